# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rows of a table are meant, and which of their columns change with the cell; declared, never SQL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import identifier, literal

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["HASHES", "Companion", "Condition", "parse_companions", "parse_conditions"]

#: Hashes of a key that a column beside the cell may hold.
HASHES = ("sha1", "sha256", "sha512")


@dataclass(frozen=True)
class Condition:
    """A column (of the table ``c``) that has one of these values; None stands for null."""

    column: str
    values: tuple[str | None, ...]

    @property
    def expression(self) -> sql.Composable:
        """True for a row that is meant, false or null for any other."""
        column = identifier("c", self.column)
        terms = [
            sql.SQL("{} IS NULL").format(column) if value is None else sql.SQL("{} = {}").format(column, literal(value))
            for value in self.values
        ]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(terms))


@dataclass(frozen=True)
class Companion:
    """A column that is set in the same statement as the cell; None stands for null.

    :param new: its value beside a cell under the new key.
    :param old: beside one under the old key.
    :param of_key: whether the values are made of the keys, so that one that is not made yet is none.
    """

    column: str
    new: str | None
    old: str | None
    of_key: bool = False

    def value(self, is_new: bool) -> sql.Composable:
        """What it is set to."""
        wanted = self.new if is_new else self.old
        return sql.SQL("NULL") if wanted is None else literal(wanted)

    @property
    def is_ever_null(self) -> bool:
        """Whether it is set to null, on the way forward or back."""
        return self.old is None or (self.new is None and not self.of_key)

    @property
    def longest(self) -> int:
        """The characters of its longest value, without blanks at the end: a column may do without those."""
        return max(len((value or "").rstrip(" ")) for value in (self.new, self.old))

    @property
    def trial(self) -> sql.Composable:
        """An expression that fails where a value is not of the type of the column (of the table ``c``)."""
        column = identifier("c", self.column)
        return sql.SQL("coalesce({}, {}, {})").format(column, self.value(True), self.value(False))


def _text(value: Any, code: str, where: str) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, (str, int, float)):
        return None if value is None else str(value)
    raise KeyturnError(code, "is no plain value", where=where, hint="Give a text, a number, true, false or null")


def parse_conditions(value: Any, where: str) -> tuple[Condition, ...]:
    """The conditions in ``{column, is}``, or in a list of such; all of them must hold.

    :raises KeyturnError: ``condition-invalid``.
    """
    code, hint = "condition-invalid", "Write where: {column: is_encrypted, is: true}"
    found = []
    for entry in value if isinstance(value, (list, tuple)) else [] if value is None else [value]:
        if not isinstance(entry, Mapping) or set(entry) != {"column", "is"} or not isinstance(entry["column"], str):
            raise KeyturnError(code, "a condition has a column and what it is", where=where, hint=hint)
        wanted = entry["is"] if isinstance(entry["is"], (list, tuple)) else [entry["is"]]
        if not wanted:
            raise KeyturnError(code, f"no value of {entry['column']} is named", where=where, hint=hint)
        found.append(Condition(entry["column"], tuple(_text(one, code, where) for one in wanted)))
    return tuple(found)


def parse_companions(value: Any, where: str, new: bytes | None = None, old: bytes | None = None) -> list[Companion]:
    """The columns in ``{name: {new: 2, old: 1}}`` and ``{name: {hash: sha1, of: key}}``.

    :param new: the text of the new key that encrypts, as it stands in its store; None where there is none.
    :param old: the same of the old key; without it the column becomes null on the way back.
    :raises KeyturnError: ``set-invalid``.
    """
    code, hint = "set-invalid", "Write set: {key_version: {new: 2, old: 1}}, or {key_hash: {hash: sha1, of: key}}"
    if not isinstance(value or {}, Mapping):
        raise KeyturnError(code, "must be a mapping", where=where, hint=hint)
    found = []
    for column, rule in (value or {}).items():
        if isinstance(rule, Mapping) and set(rule) == {"new", "old"}:
            found.append(Companion(column, _text(rule["new"], code, where), _text(rule["old"], code, where)))
        elif isinstance(rule, Mapping) and set(rule) == {"hash", "of"} and rule["of"] == "key":
            if rule["hash"] not in HASHES:
                message, known = f"the hash {str(rule['hash'])!r} is not known", f"Known: {', '.join(HASHES)}"
                raise KeyturnError(code, message, where=where, hint=known)
            found.append(Companion(column, _digest(rule["hash"], new), _digest(rule["hash"], old), of_key=True))
        else:
            raise KeyturnError(code, f"what {column} is set to is not understood", where=where, hint=hint)
    return found


def _digest(name: str, key: bytes | None) -> str | None:
    """Hexadecimal, as an application stores it beside the cell to find rows of a former key."""
    return None if key is None else hashlib.new(name, key, usedforsecurity=False).hexdigest()
