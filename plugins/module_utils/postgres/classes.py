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

    :param old: the old key, None for the first encryption of a column.
    :param plaintext: ``encrypt``, ``keep`` or ``refuse``.
    :raises KeyturnError: ``key-invalid``.
    """

    def __init__(
        self, column: Column, spec: EnvelopeSpec, new: bytes, old: bytes | None, plaintext: str, may_be_empty: bool
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
        judged: list[Judged] = [(NULL, None) if not cell else (UNKNOWN, None) for cell in cells]
        open_at = [index for index, cell in enumerate(cells) if cell]
        order = (NEW, OLD) if self._likely == NEW else (OLD, NEW)
        for kind in order:
            envelope = self.new if kind == NEW else self.old
            left = []
            for index, plaintext in zip(open_at, envelope.open_many([cells[index] for index in open_at])):
                if plaintext is None:
                    left.append(index)
                elif judged[index][0] == UNKNOWN or prefer == kind:
                    judged[index] = (kind, plaintext)
                elif not prefer:
                    judged[index] = (NULL, None)  # placeholder: opens under both, decided below
            if self.spec.authenticated:
                if len(left) < len(open_at):
                    self._likely = kind
                open_at = left
        for index, (kind, _plaintext) in enumerate(judged):
            if kind == NULL and cells[index]:
                judged[index] = (UNKNOWN, None)
            elif kind == UNKNOWN:
                plaintext = plaintext_of(self.spec, cells[index])
                if plaintext is not None:
                    judged[index] = (PLAINTEXT, plaintext)
        return judged


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
