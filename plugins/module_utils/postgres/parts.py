# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judging and sealing values that hold several cells: all cells of a batch at once, then value by value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shapes import Frame, Shape

__all__ = ["Parts", "judge_values", "replace_parts"]


@dataclass(frozen=True)
class Parts:
    """What a value holds: equal for two values that say the same, whatever keys their cells are under.

    :param kinds: the class of each cell.
    :param plaintexts: None for a cell that holds nothing.
    """

    frame: Frame
    kinds: tuple[str, ...] = field(compare=False)
    plaintexts: tuple[bytes | None, ...]


def judge_values(
    shape: Shape,
    raws: Sequence[bytes],
    keys: Sequence[tuple[bytes, ...]],
    judge: Callable[[list[bytes], list[tuple[bytes, ...]]], tuple[Sequence[str], Sequence[bytes | None]]],
) -> list[Parts | None]:
    """The parts of each value, judged; None for a value that is not of this shape.

    :param keys: the rows' keys where the cells are bound to them; empty otherwise.
    """
    splits: list[tuple[Frame, list[bytes]] | None] = []
    cells: list[bytes] = []
    rows: list[tuple[bytes, ...]] = []
    for index, raw in enumerate(raws):
        try:
            split = shape.split(raw)
        except ValueError:
            splits.append(None)
            continue
        splits.append(split)
        cells += split[1]
        rows += [keys[index]] * len(split[1]) if keys else []
    kinds, plaintexts = judge(cells, rows)
    values: list[Parts | None] = []
    at = 0
    for known in splits:
        if known is None:
            values.append(None)
            continue
        end = at + len(known[1])
        values.append(Parts(known[0], tuple(kinds[at:end]), tuple(plaintexts[at:end])))
        at = end
    return values


def replace_parts(
    shape: Shape,
    values: Sequence[Parts],
    keys: Sequence[tuple[bytes, ...]],
    chosen: frozenset[str],
    seal: Callable[[list[bytes], list[tuple[bytes, ...]]], Sequence[bytes]] | None,
    where: str,
) -> list[bytes]:
    """Each value with the cells of the chosen classes sealed anew; the others stay to the byte.

    :param seal: gives the new cells; None puts the plaintexts themselves in.
    """
    texts: list[bytes] = []
    rows: list[tuple[bytes, ...]] = []
    for index, value in enumerate(values):
        for kind, plaintext in zip(value.kinds, value.plaintexts):
            if kind in chosen and plaintext is not None:
                texts.append(plaintext)
                rows += [keys[index]] if keys else []
    cells = iter(texts if seal is None else seal(texts, rows))
    raws = []
    for value in values:
        new = [
            (next(cells), seal is None) if kind in chosen and plaintext is not None else None
            for kind, plaintext in zip(value.kinds, value.plaintexts)
        ]
        raws.append(shape.join(value.frame, new, where))
    return raws
