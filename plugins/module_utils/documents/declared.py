# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table of signed documents as it was declared, found in the catalog of the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.turns import Turns
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jws import Form, parse_form
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.conditions import Condition, parse_conditions
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import server_text
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import (
    Column,
    Table,
    check_columns_beside,
    find_column,
    find_table,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Documents", "Field", "find_documents"]

_TEXTS = ("text", "varchar")
_NUMBERS = ("smallint", "integer", "bigint", "numeric")
_MOMENTS = ("timestamp with time zone", "timestamp without time zone")


@dataclass(frozen=True)
class Field:
    """A column beside the signature; ``type_sql`` as the server writes it."""

    name: str
    type_sql: str

    @property
    def declaration(self) -> sql.Composable:
        """Its type in SQL."""
        return server_text(self.type_sql)


@dataclass(frozen=True)
class Documents:
    """A table of documents.

    :param column: of the signature, with the conditions that say which rows are meant.
    :param document: the column that holds the JSON text that is signed.
    :param tenant: the column that says whose a document is; None where all are turned alike.
    :param version_per: the next version is one more than the highest among rows that have these columns alike; empty
        for one more than the row's own.
    """

    column: Column
    document: Field
    form: Form
    tenant: Field | None = None
    kid: Field | None = None
    version: Field | None = None
    version_per: tuple[str, ...] = ()
    stamp_rotation: Field | None = None
    stamp_at: Field | None = None
    stamp_count: Field | None = None
    signs_unsigned: bool = False
    may_be_empty: bool = False

    @property
    def table(self) -> Table:
        """The table."""
        return self.column.table

    @property
    def place(self) -> str:
        """How messages call it."""
        return str(self.column)

    @property
    def prefer(self) -> str:
        """No class wins over another."""
        return ""

    @staticmethod
    def rows_a_second() -> float:
        """How many documents are signed in a second by one process, at most: with RSA it is less, with EC more."""
        return 3000.0

    @property
    def changed(self) -> tuple[Field, ...]:
        """All columns that signing changes, the signature first."""
        beside = (self.kid, self.version, self.stamp_rotation, self.stamp_at, self.stamp_count)
        first = Field(self.column.name, self.column.type_sql)
        return (first, *(field for field in beside if field is not None))


def _invalid(where: str, message: str, hint: str) -> KeyturnError:
    return KeyturnError("documents-invalid", message, where=where, hint=hint)


class _Columns:
    """The columns of a table, by name."""

    def __init__(self, link: Link, table: Table) -> None:
        query = """
            SELECT attname, format_type(atttypid, atttypmod), attgenerated <> '' FROM pg_attribute
            WHERE attrelid = %s::bigint::oid AND attnum > 0 AND NOT attisdropped"""
        self._table = table
        self._known = {row[0]: row[1:] for row in link.execute(query, (table.oid,)).fetchall()}

    def field(self, name: str | None) -> Field | None:
        """The column of this name; None where none is named.

        :raises KeyturnError: ``column-missing``.
        """
        if not name:
            return None
        if name not in self._known:
            where, hint = f"{self._table}.{name}", nearest(name, self._known)
            raise KeyturnError("column-missing", "this column does not exist", where=where, hint=hint)
        return Field(name, self._known[name][0])

    def written(self, name: str | None, types: Sequence[str] = ()) -> Field | None:
        """The same of a column that signing changes.

        :param types: that it may have; empty for any.
        """
        field = self.field(name)
        if field is None:
            return None
        where = f"{self._table}.{field.name}"
        if self._known[field.name][1] or field.name in {part.name for part in self._table.key}:
            raise _invalid(where, "is made by the database or belongs to the primary key", "Name another column")
        if types and field.type_sql.partition("(")[0] not in types:
            raise _invalid(where, f"has the type {field.type_sql}", f"It must be {' or '.join(types)}")
        return field


def find_documents(
    link: Link, entries: Sequence[Mapping[str, Any]], turns: Turns, rotation: str, need: tuple[str, ...]
) -> list[Documents]:
    """The tables of a call.

    :param need: privileges on them.
    :raises KeyturnError: ``documents-invalid``, ``column-twice``, and those of ``tables`` and ``conditions``.
    """
    found: list[Documents] = []
    for entry in entries:
        one = _find(link, entry, turns, need)
        _try_values(link, one, turns, rotation)
        if one.place in [known.place for known in found]:
            raise KeyturnError("column-twice", "is named twice", where=one.place, hint="Name each column once")
        found.append(one)
    if not found:
        raise _invalid("documents", "no table is named", "Say where the signed documents are")
    return found


def _find(link: Link, entry: Mapping[str, Any], turns: Turns, need: tuple[str, ...]) -> Documents:
    table = find_table(link, entry["table"], need)
    column = find_column(link, table, entry["signature"])
    where = str(column)
    if column.type_name not in _TEXTS:
        raise _invalid(where, f"has the type {column.type_sql}", "A compact JWS lies in a column of type text")
    columns = _Columns(link, table)
    document, tenant = columns.field(entry["document"]), columns.field(entry.get("tenant"))
    if document is None or document.name == column.name:
        raise _invalid(where, "is both document and signature", "Name the column with the JSON text as document")
    if document.type_sql.partition("(")[0] not in ("jsonb", "json", "text", "character varying"):
        place = f"{table}.{document.name}"
        raise _invalid(place, f"has the type {document.type_sql}", "A document lies in a column of JSON or text")
    if turns.tenants and tenant is None:
        raise _invalid(where, "the turns name tenants, and no column says whose a row is", "Name it as tenant")
    conditions = parse_conditions(entry.get("where"), where)
    if tenant is not None and turns.tenants:
        conditions = (*conditions, Condition(tenant.name, turns.tenants))
    column = replace(column, conditions=conditions)
    check_columns_beside(link, column)
    stamps = entry.get("stamps") or {}
    one = Documents(
        column=column,
        document=document,
        form=parse_form(entry, where),
        tenant=tenant if turns.tenants else None,
        kid=columns.written(entry.get("kid")),
        version=columns.written(entry.get("version"), _NUMBERS),
        version_per=tuple(entry.get("version_per") or ()),
        stamp_rotation=columns.written(stamps.get("rotation_id")),
        stamp_at=columns.written(stamps.get("at"), _MOMENTS),
        stamp_count=columns.written(stamps.get("count"), _NUMBERS),
        signs_unsigned=entry.get("unsigned") == "sign",
        may_be_empty=bool(entry.get("may_be_empty")),
    )
    for name in (*one.version_per, *one.form.columns):
        columns.field(name)
    if one.version_per and one.version is None:
        raise _invalid(where, "version_per without version", "Name the column of the version")
    names = [field.name for field in (*one.changed, document)]
    fixed = {condition.column for condition in conditions} | set(one.version_per) | set(one.form.columns)
    if len(set(names)) != len(names) or fixed & set(names):
        raise _invalid(where, "a column is named for two purposes", "Each one is changed, or read, or compared")
    return one


def _try_values(link: Link, one: Documents, turns: Turns, rotation: str) -> None:
    """Refuse columns that cannot take the kids or the name of the rotation, before any row is written."""
    kids: Iterable[str] = {kid for turn in turns for kid in (turn.new, turn.old[0])}
    for field, values in ((one.kid, sorted(kids)), (one.stamp_rotation, [rotation])):
        if field is None:
            continue
        query = sql.SQL("SELECT count(v::{}) FROM unnest(%s::text[]) v").format(field.declaration)
        try:
            link.execute(query, (values,))
        except psycopg.DataError:
            where = f"{one.table}.{field.name}"
            raise _invalid(where, f"its type {field.type_sql} cannot take {values[0]}", "Name another column") from None
