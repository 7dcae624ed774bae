# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which key a cell is under: authenticated decryption under the new key, the old one, then the plaintext form."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, NamedTuple, Union, cast

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, EnvelopeSpec, plaintext_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.parts import Parts, judge_values, replace_parts
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shapes import Shape
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column
from ansible_collections.keyturn.rotation.plugins.module_utils.processes import processors

__all__ = ["CLASSES", "EITHER", "NEW", "NULL", "OLD", "PLAINTEXT", "UNKNOWN", "Content", "Counts", "Judged", "Target"]

NEW, OLD, PLAINTEXT, NULL, UNKNOWN = "new", "old", "plaintext", "null", "unknown"
CLASSES = (NEW, OLD, PLAINTEXT, NULL, UNKNOWN)
#: Opens under both keys of a cipher that is not authenticated: the column decides (:meth:`Counts.settle`).
EITHER = "either"
_SAMPLES = 10
_TRIALS = 64
_QUICK = 0.002  # seconds
_BUSY = 1.0  # seconds that a processor derives keys for the rows of one window

#: What a value says: the plaintext of a cell, or of several.
Content = Union[bytes, Parts]


class Judged(NamedTuple):
    """Class and content of each of some values; no content for unknown and either, and none that counts for null."""

    kinds: list[str]
    contents: Sequence[Content | None]


class Target:
    """One column with its envelopes, both keys and what is to be done with plaintext.

    :param spec: the envelope under the old key.
    :param new: the new key; None where it is not made yet and only counting is to be done.
    :param old: the old key; None for the first encryption of a column.
    :param plaintext: ``encrypt``, ``keep`` or ``refuse``.
    :param shape: where the cells lie in a value that holds several.
    :param new_spec: the envelope under the new key, where it is another one.
    :raises KeyturnError: ``key-invalid``, ``envelopes-alike``.
    """

    def __init__(
        self,
        column: Column,
        spec: EnvelopeSpec,
        new: bytes | None,
        old: bytes | None,
        plaintext: str = "refuse",
        may_be_empty: bool = False,
        shape: Shape | None = None,
        new_spec: EnvelopeSpec | None = None,
    ) -> None:
        self.column = column
        self.cell_type = CellType(column)
        self.spec = spec
        self.shape = shape
        self.new = Envelope(new_spec or spec, new).primary
        self.old = Envelope(spec, old)
        self.is_adoption = old is None
        self.plaintext = plaintext
        self.may_be_empty = may_be_empty
        self.authenticated = self.new.spec.authenticated and self.old.spec.authenticated
        self.needs_context = self.new.spec.needs_context or self.old.spec.needs_context
        #: The key to leave: a value with cells under both counts as under this one.
        self.leaving = OLD
        #: What a cell that opens under both keys counts as, since the last count.
        self.prefer = ""
        self._likely = NEW
        self._asks = True
        self._seconds = 0.0
        if new_spec is not None and new is not None and new == old:
            self._refuse_alike()

    def _refuse_alike(self) -> None:
        """Two envelopes under one key must not read each other's cells, or nothing tells which one a cell has."""
        row = (b"1",) * len(self.column.table.key)
        texts = [bytes([65]) * length for length in range(4)]
        for seal, other in ((self._seal(NEW, texts, [row] * 4), OLD), (self._seal(OLD, texts, [row] * 4), NEW)):
            if any(plaintext is not None for plaintext in self._open(other, seal, [row] * 4)):
                hint = "Nothing has to change, or the key has to change as well"
                raise KeyturnError("envelopes-alike", "both envelopes open a cell", where=self.place, hint=hint)

    @property
    def place(self) -> str:
        """How messages call the column."""
        return str(self.column)

    def _associated(self, spec: EnvelopeSpec, keys: Sequence[tuple[bytes, ...]]) -> list[bytes] | None:
        if not spec.needs_context:
            return None
        table, column = self.column.table.name, self.column.name
        return [spec.associated_for(table, column, key) for key in keys]

    def _open(self, kind: str, cells: Sequence[bytes], keys: Sequence[tuple[bytes, ...]]) -> list[bytes | None]:
        envelope = self.new if kind == NEW else self.old
        if not self.needs_context:
            return envelope.open_many(cells)
        return envelope.open_many(cells, self._associated(envelope.spec, keys))

    def _seal(self, kind: str, texts: Sequence[bytes], keys: Sequence[tuple[bytes, ...]]) -> list[bytes]:
        """Cells under a key; none under the new one opens under the old one too, where nothing is authenticated."""
        envelope = self.new if kind == NEW else self.old
        cells = envelope.seal_many(texts, self._associated(envelope.spec, keys) if self.needs_context else None)
        if self.new.spec.authenticated or self.old.spec.authenticated:
            return cells
        opened = self._open(OLD if kind == NEW else NEW, cells, keys)
        if kind == NEW and any(plaintext is not None for plaintext in opened):
            hint = "Run again; if it stays so, generate another new key. Nothing of this batch was written"
            raise KeyturnError("seal-ambiguous", "a cell opens under both keys by chance", where=self.place, hint=hint)
        return cells

    def seconds_to_seal(self) -> float:
        """The time of one encryption among many, under the slower of the two envelopes; measured once."""
        if not self._seconds:
            self._seconds = max(self._seconds_under(self.new), self._seconds_under(self.old))
        return self._seconds

    def _seconds_under(self, envelope: Envelope) -> float:
        """The first cell costs what is done once; where it was quick, the mean of some more says what each costs."""
        seconds, row = 0.0, (b"1",) * len(self.column.table.key)
        for count in (1, _TRIALS):
            associated = self._associated(envelope.spec, [row] * count)
            started = time.perf_counter()
            envelope.seal_many([b"keyturn"] * count, associated)
            seconds = (time.perf_counter() - started) / count
            if seconds > _QUICK:
                break
        return seconds

    @property
    def derives_slowly(self) -> bool:
        """Whether each cell has a key of its own that takes long to derive: threads do that, on all processors."""
        return self.new.spec.derives_slowly or self.old.spec.derives_slowly

    def rows_a_second(self) -> float:
        """How many rows are opened, sealed and opened again in a second, by one process.

        Where keys are derived slowly, at least as many as keep the processors busy for a moment.
        """
        seconds = max(self.seconds_to_seal(), 1e-6)
        some = processors() * max(1, min(64, int(_BUSY / seconds)))
        return max(1 / (3 * seconds), some) if self.derives_slowly else 1 / (3 * seconds)

    def seconds_to_open(self, rows: int) -> float:
        """The most that opening so many takes where keys are derived slowly, each tried under both; otherwise 0."""
        return 2 * rows * self.seconds_to_seal() if self.derives_slowly else 0.0

    def ask_again(self) -> None:
        """The cells to come may be under another key than the last ones.

        Where a cell's own key takes long to derive, one cell tells which of the two to derive first for the others.
        """
        self._asks = True

    def judge(
        self, cells: Sequence[bytes], prefer: str = "", keys: Sequence[tuple[bytes, ...]] = ()
    ) -> tuple[list[str], list[bytes | None]]:
        """The class of each cell and what it says. An empty cell holds nothing and counts as null.

        :param prefer: the key that wins where an unauthenticated cipher opens under both; without it such a cell is
            :data:`EITHER`.
        :param keys: the rows' primary keys where :attr:`needs_context`.
        """
        if self._asks and self.authenticated and self.derives_slowly and len(cells) > 1:
            self._asks = False
            head, tail = self.judge(cells[:1], prefer, keys[:1]), self.judge(cells[1:], prefer, keys[1:])
            return head[0] + tail[0], head[1] + tail[1]
        first = self._likely
        second = OLD if first == NEW else NEW
        opened = {first: self._open(first, cells, keys)}
        if self.authenticated and None not in opened[first]:
            return [first] * len(cells), opened[first]
        if not self.authenticated:
            opened[second] = self._open(second, cells, keys)
        else:  # a cell opens under one key only, so the other need not try
            left = [index for index, plaintext in enumerate(opened[first]) if plaintext is None]
            opened[second] = [None] * len(cells)
            theirs = [keys[index] for index in left] if self.needs_context else ()
            for index, plaintext in zip(left, self._open(second, [cells[index] for index in left], theirs)):
                opened[second][index] = plaintext
            if 2 * len(left) > len(cells):
                self._likely = second
        classed = [self._class_of(cell, new, old, prefer) for cell, new, old in zip(cells, opened[NEW], opened[OLD])]
        return [kind for kind, _plaintext in classed], [plaintext for _kind, plaintext in classed]

    def _class_of(self, cell: bytes, new: bytes | None, old: bytes | None, prefer: str) -> tuple[str, bytes | None]:
        if not cell:
            return (NULL, None)
        if new is not None and old is not None:
            if self.new.spec.authenticated != self.old.spec.authenticated:  # that one is proof, the other is chance
                prefer = NEW if self.new.spec.authenticated else OLD
            return {NEW: (NEW, new), OLD: (OLD, old)}.get(prefer, (EITHER, None))
        if new is not None:
            return (NEW, new)
        if old is not None:
            return (OLD, old)
        plaintext = plaintext_of(self.spec, cell)
        return (UNKNOWN, None) if plaintext is None else (PLAINTEXT, plaintext)

    # -- values --------------------------------------------------------------------------------------------------

    def judge_values(self, raws: Sequence[bytes], keys: Sequence[tuple[bytes, ...]] = (), prefer: str = "") -> Judged:
        """The class of each raw value.

        :param keys: the rows' primary keys where :attr:`needs_context`.
        """
        shape = self.shape
        if shape is None:
            return Judged(*self.judge(self.cell_type.decode(raws), prefer, keys))
        values = judge_values(shape, raws, keys, lambda cells, rows: self.judge(cells, prefer, rows))
        classed = [(NULL, None) if not raw else self._class_of_parts(value) for raw, value in zip(raws, values)]
        return Judged([kind for kind, _parts in classed], [parts for _kind, parts in classed])

    def _class_of_parts(self, parts: Parts | None) -> tuple[str, Parts | None]:
        if parts is None:
            return (UNKNOWN, None)
        for kind in (UNKNOWN, EITHER):
            if kind in parts.kinds:
                return (kind, None)
        return next(((kind, parts) for kind in self._precedence if kind in parts.kinds), (NULL, parts))

    @property
    def _precedence(self) -> tuple[str, str, str]:
        if self.leaving == NEW:
            return (NEW, OLD, PLAINTEXT)
        orders = {"encrypt": (OLD, PLAINTEXT, NEW), "keep": (OLD, NEW, PLAINTEXT)}
        return orders.get(self.plaintext, (PLAINTEXT, OLD, NEW))

    def seal_values(
        self, under: str, contents: Sequence[Content], keys: Sequence[tuple[bytes, ...]] = ()
    ) -> list[bytes]:
        """Raw values with all cells under a key; of a value with several only those that are not yet are sealed."""
        if self.shape is None:
            return self.cell_type.encode(self._seal(under, cast("Sequence[bytes]", contents), keys))
        chosen = {NEW: {OLD}, OLD: set() if self.is_adoption else {NEW}}[under]
        if under == NEW and self.plaintext == "encrypt":
            chosen.add(PLAINTEXT)
        values = cast("Sequence[Parts]", contents)
        seal = partial(self._seal, under)
        return replace_parts(self.shape, values, keys, frozenset(chosen), seal, self.place)

    def bare_values(self, contents: Sequence[Content]) -> list[bytes]:
        """Raw values with nothing under the new key, as they were before the first encryption.

        :raises KeyturnError: ``cell-unsupported`` for one that this column cannot hold.
        """
        if self.shape is None:
            return self.cell_type.encode_plain(cast("Sequence[bytes]", contents))
        return replace_parts(self.shape, cast("Sequence[Parts]", contents), (), frozenset({NEW}), None, self.place)


@dataclass
class Counts:
    """How many rows of a column are in which class, and the keys of some that are in none.

    :param total: the rows that are meant, the sum of the classes.
    :param skipped: rows of the table that are not meant, by their condition.
    :param either: rows that open under both keys of a cipher that is not authenticated.
    :param paths: the numbers of the paths that led to something.
    """

    total: int = 0
    skipped: int = 0
    either: int = 0
    paths: set[int] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    unknown_keys: list[str] = field(default_factory=list)
    plaintext_keys: list[str] = field(default_factory=list)

    def add_many(self, kinds: list[str], keys: Callable[[], Sequence[tuple[bytes, ...]]]) -> None:
        """Count rows, and note the keys of some that want a look."""
        found = {kind: kinds.count(kind) for kind in set(kinds)}
        self.either += found.pop(EITHER, 0)
        for kind, count in found.items():
            self.rows[kind] += count
        if EITHER in kinds or UNKNOWN in found or PLAINTEXT in found:
            for kind, key in zip(kinds, keys()):
                if kind in (UNKNOWN, PLAINTEXT, EITHER):
                    texts = self.plaintext_keys if kind == PLAINTEXT else self.unknown_keys
                    text = ", ".join(part.decode(errors="replace") for part in key)
                    texts.append(f"({text})" if len(key) > 1 else text)
            self._keep_few()

    def add(self, other: Counts) -> None:
        """Add other rows of the same column."""
        self.total += other.total
        self.either += other.either
        self.paths |= other.paths
        for kind, count in other.rows.items():
            self.rows[kind] += count
        self.unknown_keys += other.unknown_keys
        self.plaintext_keys += other.plaintext_keys
        self._keep_few()

    def _keep_few(self) -> None:
        del self.unknown_keys[_SAMPLES:]
        del self.plaintext_keys[_SAMPLES:]

    def settle(self) -> str:
        """Put the rows that open under both keys where all others of the column are, if these agree.

        :returns: their class; empty where there are none.
        """
        if not self.either:
            return ""
        kind = OLD if not self.rows[NEW] else NEW if not self.rows[OLD] else UNKNOWN
        self.rows[kind] += self.either
        if kind != UNKNOWN and not self.rows[UNKNOWN]:
            self.unknown_keys.clear()
        return kind

    def as_result(self, column: Column) -> dict[str, Any]:
        """One entry of the coverage."""
        return {
            "table": str(column.table),
            "column": column.name,
            "total": self.total,
            **self.rows,
            "skipped": self.skipped,
        }
