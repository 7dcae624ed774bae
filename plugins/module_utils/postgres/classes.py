# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which key a cell is under: authenticated decryption under the new key, the old one, then the plaintext form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, EnvelopeSpec, plaintext_of
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

__all__ = ["CLASSES", "NEW", "NULL", "OLD", "PLAINTEXT", "UNKNOWN", "Counts", "Judged", "Target"]

NEW, OLD, PLAINTEXT, NULL, UNKNOWN = "new", "old", "plaintext", "null", "unknown"
CLASSES = (NEW, OLD, PLAINTEXT, NULL, UNKNOWN)
_SAMPLES = 10

#: Class and plaintext of a cell; no plaintext for null and unknown.
Judged = tuple[str, "bytes | None"]


class Target:
    """One column with its envelope, both keys and what is to be done with plaintext.

    :param new: the new key; None where it is not made yet and only counting is to be done.
    :param old: the old key; None for the first encryption of a column.
    :param plaintext: ``encrypt``, ``keep`` or ``refuse``.
    :raises KeyturnError: ``key-invalid``.
    """

    def __init__(
        self,
        column: Column,
        spec: EnvelopeSpec,
        new: bytes | None,
        old: bytes | None,
        plaintext: str = "refuse",
        may_be_empty: bool = False,
    ) -> None:
        self.column = column
        self.cell_type = CellType(column)
        self.spec = spec
        self.new = Envelope(spec, new).primary
        self.old = Envelope(spec, old)
        self.is_adoption = old is None
        self.plaintext = plaintext
        self.may_be_empty = may_be_empty
        self._likely = NEW

    @property
    def place(self) -> str:
        """How messages call the column."""
        return str(self.column)

    def judge(self, cells: Sequence[bytes], prefer: str = "") -> list[Judged]:
        """The class of each cell. An empty cell holds nothing and counts as null.

        :param prefer: the key that wins where an unauthenticated cipher opens under both; without it such a cell is
            unknown.
        """
        opened: dict[str, list[bytes | None]] = {NEW: [None] * len(cells), OLD: [None] * len(cells)}
        left = [index for index, cell in enumerate(cells) if cell]
        for kind in (NEW, OLD) if self._likely == NEW else (OLD, NEW):
            envelope, found = (self.new if kind == NEW else self.old), opened[kind]
            for index, plaintext in zip(left, envelope.open_many([cells[index] for index in left])):
                found[index] = plaintext
            if self.spec.authenticated:  # a cell opens under one key only, so the other need not try
                still = [index for index in left if found[index] is None]
                if len(still) < len(left):
                    self._likely = kind
                left = still
        return [self._class_of(cell, new, old, prefer) for cell, new, old in zip(cells, opened[NEW], opened[OLD])]

    def _class_of(self, cell: bytes, new: bytes | None, old: bytes | None, prefer: str) -> Judged:
        if not cell:
            return (NULL, None)
        if new is not None and old is not None:
            return {NEW: (NEW, new), OLD: (OLD, old)}.get(prefer, (UNKNOWN, None))
        if new is not None:
            return (NEW, new)
        if old is not None:
            return (OLD, old)
        plaintext = plaintext_of(self.spec, cell)
        return (UNKNOWN, None) if plaintext is None else (PLAINTEXT, plaintext)


@dataclass
class Counts:
    """How many rows of a column are in which class, and the keys of some that are in none."""

    total: int = 0
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    unknown_keys: list[str] = field(default_factory=list)
    plaintext_keys: list[str] = field(default_factory=list)

    def add(self, kind: str, key: tuple[bytes, ...]) -> None:
        """Count one row."""
        self.rows[kind] += 1
        if kind in (UNKNOWN, PLAINTEXT):
            keys = self.unknown_keys if kind == UNKNOWN else self.plaintext_keys
            if len(keys) < _SAMPLES:
                text = ", ".join(part.decode(errors="replace") for part in key)
                keys.append(f"({text})" if len(key) > 1 else text)

    def as_result(self, column: Column) -> dict[str, Any]:
        """One entry of the coverage."""
        return {"table": str(column.table), "column": column.name, "total": self.total, **self.rows}
