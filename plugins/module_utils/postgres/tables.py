# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalog of a database says about a table and a column, and refusals that name the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import IntegerArray, TextArray
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.conditions import Companion, Condition
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, row_security
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    identifier,
    server_text,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = [
    "COLUMN_TYPES",
    "LARGE_OBJECT",
    "Column",
    "KeyColumn",
    "Table",
    "check_columns_beside",
    "find_column",
    "find_table",
    "split_name",
]

#: Column types that can hold an encrypted value, by their names in ``pg_type``.
COLUMN_TYPES = ("text", "varchar", "bytea", "jsonb", "json", "_text", "_varchar", "_bytea")
#: The type of a column that names large objects, which hold the values.
LARGE_OBJECT = "oid"

_TYPE_HINT = "An encrypted value lies in a column of type text, varchar, bytea, jsonb, json, text[], bytea[] or oid"
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


@dataclass(frozen=True)
class KeyColumn:
    """One column of a primary key; ``type_sql`` and ``collation`` are as the server writes them."""

    name: str
    type_sql: str
    collation: str = ""

    def cast(self, value: sql.Composable) -> sql.Composable:
        """A text expression as a value of this column."""
        typed = sql.SQL("{}::{}").format(value, server_text(self.type_sql))
        return sql.SQL("{} COLLATE {}").format(typed, server_text(self.collation)) if self.collation else typed

    @property
    def _is_integer(self) -> bool:
        return self.type_sql in IntegerArray.TYPES

    def read(self, expression: sql.Composable) -> sql.Composable:
        """The column as it is read: integers in binary form, all else as texts."""
        return expression if self._is_integer else sql.SQL("{}::text").format(expression)

    def texts(self, values: list[bytes]) -> list[bytes]:
        """What was read, as texts."""
        return IntegerArray.texts(values, self.type_sql) if self._is_integer else values

    def array(self, values: Sequence[bytes]) -> TextArray:
        """What was read, for a parameter of type :attr:`array_sql`."""
        return IntegerArray(values, self.type_sql) if self._is_integer else TextArray(values)

    def array_of_texts(self, texts: Sequence[bytes]) -> TextArray:
        """The same of texts."""
        return self.array(IntegerArray.binary(texts, self.type_sql) if self._is_integer else texts)

    @property
    def array_sql(self) -> sql.Composable:
        """The type of an array of its values: of texts, where it is not one that is packed here."""
        return sql.SQL(f"{self.type_sql if self._is_integer else 'text'}[]")

    @property
    def declaration(self) -> sql.Composable:
        """Its type, for a column of ours that holds the same values."""
        suffix = f" COLLATE {self.collation}" if self.collation else ""
        return server_text(self.type_sql + suffix)


@dataclass(frozen=True)
class Table:
    """A table and its primary key.

    :param triggers: the service's row triggers that may change what is written.
    """

    oid: int
    schema: str
    name: str
    key: tuple[KeyColumn, ...]
    triggers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Composable:
        """Its name in SQL."""
        return identifier(self.schema, self.name)


@dataclass(frozen=True)
class Column:
    """A column that holds encrypted values.

    :param type_name: one of :data:`COLUMN_TYPES`, or :data:`LARGE_OBJECT`.
    :param type_sql: the same with its length, as the server writes it.
    :param conditions: what a row must meet to be meant.
    :param companions: columns that change with the cell.
    """

    table: Table
    name: str
    type_name: str
    type_sql: str
    conditions: tuple[Condition, ...] = ()
    companions: tuple[Companion, ...] = ()

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"

    @property
    def identifier(self) -> sql.Composable:
        """Its name in SQL, without the table."""
        return identifier(self.name)

    @property
    def is_large_object(self) -> bool:
        """Whether the values lie in large objects, which the column names."""
        return self.type_name == LARGE_OBJECT

    @property
    def holds_bytes(self) -> bool:
        """Whether a cell in it may be any bytes, not only text."""
        return self.type_name in ("bytea", "_bytea") or self.is_large_object

    @property
    def chosen(self) -> sql.Composable:
        """What rows of ``c`` must meet besides: nothing, or ``AND ...``."""
        return sql.SQL("").join([sql.SQL(" AND {}").format(one.expression) for one in self.conditions])


def split_name(name: str) -> tuple[str, str]:
    """Schema (empty when not given) and table of ``table``, ``schema.table`` or a quoted form of either.

    :raises KeyturnError: ``table-missing`` for anything else.
    """
    parts: list[str] = []
    position = 0
    while True:
        match = _PART.match(name, position)
        if not match:
            break
        parts.append(match.group(1).replace('""', '"') if match.group(1) else match.group(2))
        position = match.end()
        if position == len(name) and len(parts) <= 2:
            return (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
        if name[position : position + 1] != ".":
            break
        position += 1
    hint = 'Write table, schema.table, or "a name with.dots" in double quotes'
    raise KeyturnError("table-missing", "is not the name of a table", where=name, hint=hint)


def find_table(link: Link, name: str, need: Iterable[str] = (), needs_key: bool = True) -> Table:
    """The table of this name with its primary key.

    :param need: privileges on it that the work needs, such as ``SELECT`` and ``UPDATE``.
    :param needs_key: whether a table without a primary key is refused.
    :raises KeyturnError: ``table-missing``, ``table-unsupported``, ``primary-key-missing``, ``privilege-missing``,
        ``row-security``.
    """
    schema, table = split_name(name)
    query = """
        SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, row_security_active(c.oid),
               EXISTS (SELECT FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid
                       WHERE i.inhparent = c.oid AND (c.relkind <> 'p' OR k.relkind = 'f'))
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = %(table)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND CASE WHEN %(schema)s = '' THEN pg_table_is_visible(c.oid) ELSE n.nspname = %(schema)s END"""
    found = link.execute(query, {"schema": schema, "table": table}).fetchone()
    if found is None:
        raise _table_missing(link, name, schema, table)
    oid, in_schema, in_name, kind, hides_rows, has_children = found
    where = f"{in_schema}.{in_name}"
    if kind not in ("r", "p"):
        raise KeyturnError("table-unsupported", "is not a table", where=where, hint="Name the table beneath it")
    if has_children:
        hint = "Name each of these tables by itself"
        raise KeyturnError("table-unsupported", "other tables inherit from it", where=where, hint=hint)
    if hides_rows:
        raise row_security(where)
    for privilege in need:
        row = link.execute("SELECT has_table_privilege(%s::bigint::oid, %s)", (oid, privilege)).fetchone()
        if not (row and row[0]):
            hint = "Use the owner of the table, or grant it"
            raise KeyturnError("privilege-missing", f"this role may not {privilege} it", where=where, hint=hint)
    key = _primary_key(link, oid)
    if needs_key and not key:
        raise KeyturnError(
            "primary-key-missing",
            "has no primary key, so its rows cannot be told apart",
            where=where,
            hint="Add one (ALTER TABLE ... ADD PRIMARY KEY)",
        )
    return Table(oid, in_schema, in_name, key, _triggers(link, oid))


def _table_missing(link: Link, name: str, schema: str, table: str) -> KeyturnError:
    query = """
        SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""
    known = link.execute(query).fetchall()
    elsewhere = sorted(f"{row[0]}.{row[1]}" for row in known if row[1] == table)
    if elsewhere:
        hint = f"There is {' and '.join(elsewhere)}"
    elif schema:
        hint = nearest(f"{schema}.{table}", [f"{row[0]}.{row[1]}" for row in known][:200])
    else:
        hint = nearest(table, [str(row[1]) for row in known][:200])
    return KeyturnError("table-missing", "this table does not exist", where=name, hint=hint)


def _triggers(link: Link, oid: int) -> tuple[str, ...]:
    query = """
        SELECT DISTINCT t.tgname FROM pg_trigger t
        WHERE (t.tgrelid = %(oid)s::bigint::oid
               OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid)))
          AND (t.tgtype & 19) = 19 AND t.tgenabled IN ('O', 'A') AND t.tgname !~ %(ours)s ORDER BY t.tgname"""
    ours = "^(zzzz_keyturn_[0-9a-f]{16}|keyturn_hold_[0-9a-f]{16}_row)$"
    return tuple(row[0] for row in link.execute(query, {"oid": oid, "ours": ours}).fetchall())


def _primary_key(link: Link, oid: int) -> tuple[KeyColumn, ...]:
    query = """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attcollation <> t.typcollation
                    THEN (SELECT quote_ident(s.nspname) || '.' || quote_ident(l.collname) FROM pg_collation l
                          JOIN pg_namespace s ON s.oid = l.collnamespace WHERE l.oid = a.attcollation) ELSE '' END
        FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(number, position)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE i.indrelid = %s::bigint::oid AND i.indisprimary AND k.position <= i.indnkeyatts ORDER BY k.position"""
    return tuple(KeyColumn(*row) for row in link.execute(query, (oid,)).fetchall())


def find_column(link: Link, table: Table, name: str) -> Column:
    """The column of this name.

    :raises KeyturnError: ``column-missing``, ``column-type-unsupported``.
    """
    query = """
        SELECT a.attname, CASE WHEN is_oid THEN 'oid' ELSE t.typname END,
               is_oid OR t.typnamespace = 'pg_catalog'::regnamespace, a.attgenerated <> '',
               format_type(a.atttypid, a.atttypmod)
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        CROSS JOIN LATERAL (SELECT 'oid'::regtype IN (t.oid, t.typbasetype)) o(is_oid)
        WHERE a.attrelid = %s::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped"""
    known = {row[0]: row[1:] for row in link.execute(query, (table.oid,)).fetchall()}
    where = f"{table}.{name}"
    if name not in known:
        raise KeyturnError("column-missing", "this column does not exist", where=where, hint=nearest(name, known))
    type_name, is_builtin, is_generated, type_sql = known[name]
    problem = ""
    if type_name not in (*COLUMN_TYPES, LARGE_OBJECT) or not is_builtin:
        problem = f"has the type {type_sql}"
    elif is_generated:
        problem = "is generated by the database"
    elif name in {column.name for column in table.key}:
        problem = "belongs to the primary key"
    if problem:
        raise KeyturnError("column-type-unsupported", problem, where=where, hint=_TYPE_HINT)
    return Column(table, name, type_name, type_sql)


class _Beside(NamedTuple):
    """What a column beside the cell can take.

    :param longest: characters, where there is a limit.
    """

    is_generated: bool
    is_required: bool
    longest: int | None


def _check_room(companion: Companion, beside: _Beside, where: str) -> None:
    """Refuse a value that the column would refuse, perhaps not before the way back.

    :raises KeyturnError: ``set-invalid``.
    """
    if beside.is_required and companion.is_ever_null:
        message = "cannot be null (NOT NULL), as it is to be where there is no key"
        hint = "Let the column be null (ALTER TABLE ... DROP NOT NULL)"
        if not companion.of_key:
            message, hint = "cannot be null (NOT NULL)", "Set it to a value in both directions"
        raise KeyturnError("set-invalid", message, where=where, hint=hint)
    if beside.longest is not None and companion.longest > beside.longest:
        message = f"takes {beside.longest} characters and is to be set to {companion.longest}"
        raise KeyturnError("set-invalid", message, where=where, hint="Widen the column, or set a shorter value")


def check_columns_beside(link: Link, column: Column) -> None:
    """Refuse conditions and companions that the table does not have, or that cannot take the values.

    :raises KeyturnError: ``column-missing``, ``condition-invalid``, ``set-invalid``.
    """
    table = column.table
    query = """
        SELECT a.attname, a.attgenerated <> '', a.attnotnull OR t.typnotnull,
               CASE WHEN coalesce(nullif(t.typbasetype, 0), t.oid) IN ('varchar'::regtype, 'bpchar'::regtype)
                    THEN nullif(greatest(a.atttypmod, t.typtypmod), -1) - 4 END
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = %s::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped"""
    known = {row[0]: _Beside(*row[1:]) for row in link.execute(query, (table.oid,)).fetchall()}
    fixed = {column.name, *(part.name for part in table.key), *(one.column for one in column.conditions)}
    beside: tuple[Condition | Companion, ...] = (*column.conditions, *column.companions)
    for one in beside:
        where = f"{table}.{one.column}"
        if one.column not in known:
            hint = nearest(one.column, known)
            raise KeyturnError("column-missing", "this column does not exist", where=where, hint=hint)
        if isinstance(one, Condition):
            trial, code, what = one.expression, "condition-invalid", "cannot be compared with what the condition says"
        else:
            if known[one.column].is_generated or one.column in fixed:
                hint = "Set columns beside the cell: not generated ones, keys, the cell, or those of a condition"
                raise KeyturnError("set-invalid", "cannot be set with the cell", where=where, hint=hint)
            _check_room(one, known[one.column], where)
            trial, code, what = one.trial, "set-invalid", "cannot take what it is to be set to"
        try:
            link.execute(sql.SQL("SELECT {} FROM {} c LIMIT 0").format(trial, table.identifier), NO_PARAMETERS)
        except (psycopg.DataError, psycopg.ProgrammingError):
            hint = "Give a value of the column's type"
            raise KeyturnError(code, what, where=where, hint=hint) from None
