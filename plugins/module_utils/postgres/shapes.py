# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that hold several cells: taken apart, and put together again with some of the cells replaced. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.layers import (
    ArrayLayer,
    JsonLayer,
    Layer,
    ListLayer,
    PatternLayer,
    parse_path,
)

__all__ = ["Frame", "Shape", "parse_shape"]


@dataclass(frozen=True)
class Frame:
    """A text without its pieces: equal for two texts that differ in nothing else.

    :param around: what stands around the pieces, one more than those.
    :param pieces: the pieces as they stand.
    :param inner: the frames of the pieces where they hold further ones.
    :param paths: which paths led to the pieces, or to those within them.
    """

    around: tuple[str, ...]
    pieces: tuple[str, ...] = field(compare=False)
    inner: tuple[Frame | None, ...]
    paths: frozenset[int] = field(compare=False)


class Shape:
    """The layers of a value, the outermost first.

    :param paths: the paths as they were declared, for messages.
    """

    def __init__(self, layers: Sequence[Layer], paths: Sequence[str] = ()) -> None:
        self._layers = tuple(layers)
        self.paths = tuple(paths)

    def split(self, raw: bytes) -> tuple[Frame, list[bytes]]:
        """The frame and the cells; an empty cell holds nothing.

        :raises ValueError: when the value is not of this shape.
        """
        try:
            return self._split(raw, 0)
        except RecursionError:
            raise ValueError("nested too deep") from None

    def _split(self, raw: bytes, depth: int) -> tuple[Frame, list[bytes]]:
        layer, is_last = self._layers[depth], depth + 1 == len(self._layers)
        text = raw.decode()
        around, pieces, frames = [], [], []
        cells: list[bytes] = []
        at, spans = 0, layer.spans(text)
        for start, end, _paths in spans:
            around.append(text[at:start])
            pieces.append(text[start:end])
            at = end
            value = layer.read(pieces[-1])
            frame, within = (None, [value]) if is_last else self._split(value, depth + 1) if value else (None, [b""])
            frames.append(frame)
            cells += within
        around.append(text[at:])
        inner = (frame.paths for frame in frames if frame is not None)
        paths = frozenset().union(*(span.paths for span in spans), *inner)
        return Frame(tuple(around), tuple(pieces), tuple(frames), paths), cells

    def join(self, frame: Frame, cells: Sequence[tuple[bytes, bool] | None], where: str) -> bytes:
        """The value again, with some cells replaced.

        :param cells: one for each cell that :meth:`split` gave: its bytes and whether they are plaintext; None leaves
            the piece as it stands.
        :raises KeyturnError: ``cell-unsupported`` when a cell cannot be told from what is around it.
        """
        try:
            raw = self._join(frame, iter(cells), 0)[0].encode()
            again, found = self.split(raw)
        except ValueError:
            raw, again, found = b"", None, []
        is_same = again == frame and len(found) == len(cells) and b"\0" not in raw
        if not is_same or any(cell is not None and cell[0] != one for cell, one in zip(cells, found)):
            hint = "It stays encrypted only in a value of its own, or under a key"
            raise KeyturnError("cell-unsupported", "a value cannot stand where it belongs", where=where, hint=hint)
        return raw

    def _join(self, frame: Frame, cells: Iterator[tuple[bytes, bool] | None], depth: int) -> tuple[str, bool]:
        layer = self._layers[depth]
        text, is_changed = [frame.around[0]], False
        for piece, inner, after in zip(frame.pieces, frame.inner, frame.around[1:]):
            if inner is not None:
                value, differs = self._join(inner, cells, depth + 1)
                piece = layer.write(value.encode()) if differs else piece
            else:
                cell = next(cells)
                differs = cell is not None
                if cell is not None:
                    piece = layer.write_plain(cell[0]) if cell[1] else layer.write(cell[0])
            is_changed |= differs
            text += [piece, after]
        return "".join(text), is_changed


def parse_shape(entry: Mapping[str, Any], type_name: str, where: str) -> Shape | None:
    """The shape that a column's ``paths``, ``list`` and ``pattern`` declare; None for one cell in each row.

    :param type_name: the column's type in ``pg_type``.
    :raises KeyturnError: ``path-invalid``, ``pattern-invalid``, ``list-invalid``.
    """
    paths, inner = list(entry.get("paths") or ()), _inner_layer(entry, where)
    steps = [parse_path(path) for path in paths]
    layers: list[Layer] = []
    if type_name.startswith("_"):
        layers.append(ArrayLayer(is_bytes=type_name == "_bytea"))
    if paths or (inner is not None and type_name in ("json", "jsonb")):
        layers.append(JsonLayer(steps or [()], holds_text=inner is not None, is_binary=type_name == "jsonb"))
    layers += [] if inner is None else [inner]
    return Shape(layers, paths) if layers else None


def _inner_layer(entry: Mapping[str, Any], where: str) -> Layer | None:
    separator, pattern = entry.get("list"), entry.get("pattern")
    if separator is not None and pattern is not None:
        raise KeyturnError("list-invalid", "a list and a pattern at once", where=where, hint="Say one of the two")
    if separator is not None:
        if not separator:
            raise KeyturnError("list-invalid", "the separator is empty", where=where, hint='Write list: ","')
        return ListLayer(separator)
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error:
        compiled = None
    if compiled is None or compiled.groups != 1:
        message = "is no regular expression" if compiled is None else f"has {compiled.groups} groups"
        hint = "Put one pair of parentheses around the encrypted value: enc:\\(([A-Za-z0-9+/=]+)\\)"
        raise KeyturnError("pattern-invalid", f"the pattern {message}", where=where, hint=hint)
    return PatternLayer(compiled)
