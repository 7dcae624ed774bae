# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns computed from the former key are emptied (the service fills them again); indexes are made for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
    transaction,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table, find_table
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Work
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Clearing", "Index", "clear", "count_filled", "find_clearing", "find_index", "has_index", "make_index"]


@dataclass(frozen=True)
class Clearing:
    """A column to empty."""

    table: Table
    name: str

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


@dataclass(frozen=True)
class Index:
    """An index to have."""

    table: Table
    name: str
    column: str


def _columns(link: Link, table: Table) -> dict[str, bool]:
    query = """
        SELECT attname, attnotnull FROM pg_attribute
        WHERE attrelid = %s::bigint::oid AND attnum > 0 AND NOT attisdropped"""
    return {row[0]: row[1] for row in link.execute(query, (table.oid,)).fetchall()}


def find_clearing(link: Link, entry: Mapping[str, Any]) -> Clearing:
    """The column that an entry ``{table, column}`` names.

    :raises KeyturnError: ``column-missing``, ``column-not-nullable`` and those of ``tables.find_table``.
    """
    table = find_table(link, entry["table"], ("SELECT", "UPDATE"), needs_key=False)
    clearing = Clearing(table, entry["column"])
    known = _columns(link, table)
    if clearing.name not in known:
        hint = nearest(clearing.name, known)
        raise KeyturnError("column-missing", "this column does not exist", where=str(clearing), hint=hint)
    if known[clearing.name]:
        hint = "Only a column that the service fills again can be cleared"
        raise KeyturnError("column-not-nullable", "cannot be empty (NOT NULL)", where=str(clearing), hint=hint)
    return clearing


def count_filled(link: Link, clearing: Clearing) -> int:
    """How many rows have a value in the column, counted by the database."""
    query = sql.SQL("SELECT count({}) FROM {}").format(identifier(clearing.name), clearing.table.identifier)
    row = link.execute(query, NO_PARAMETERS).fetchone()
    return int(row[0]) if row else 0


def clear(work: Work, clearing: Clearing) -> dict[str, Any]:
    """Empty the column once for this rotation and direction, and remember it in the same transaction.

    One statement, so that no row slips through while others update it; what the service fills in later is right.
    """
    link, place = work.link, str(clearing)
    entry = {"table": str(clearing.table), "column": clearing.name}
    if place in work.fence.cleared:
        return {**entry, "rows": 0, "filled": count_filled(link, clearing)}
    column = identifier(clearing.name)
    update = sql.SQL("UPDATE {} SET {} = NULL WHERE {} IS NOT NULL").format(clearing.table.identifier, column, column)

    def attempt() -> int:
        with transaction(link):
            work.fence.hold(link, strong=True)
            link.execute("SELECT set_config('lock_timeout', '5s', true)")
            whole_tables(link)
            rows = link.execute(update, NO_PARAMETERS).rowcount
            work.fence.note_cleared(link, place)
        return rows

    with explained(place):
        rows = retrying(work.pace, place, attempt)
    work.fence.cleared.append(place)
    return {**entry, "rows": rows, "filled": count_filled(link, clearing)}


def find_index(link: Link, entry: Mapping[str, Any]) -> Index:
    """The index that an entry ``{table, column, name}`` asks for.

    :raises KeyturnError: ``column-missing`` and those of ``tables.find_table``.
    """
    table = find_table(link, entry["table"], needs_key=False)
    known = _columns(link, table)
    if entry["column"] not in known:
        where, hint = f"{table}.{entry['column']}", nearest(entry["column"], known)
        raise KeyturnError("column-missing", "this column does not exist", where=where, hint=hint)
    return Index(table, entry["name"], entry["column"])


def has_index(link: Link, index: Index) -> bool | None:
    """Whether the index is there: None when it is there and not valid (a build that was interrupted).

    :raises KeyturnError: ``index-name-taken`` when the name belongs to something else.
    """
    query = """
        SELECT i.indisvalid, i.indrelid = %s::bigint::oid FROM pg_class c
        LEFT JOIN pg_index i ON i.indexrelid = c.oid
        WHERE c.relname = %s AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = %s::bigint::oid)"""
    row = link.execute(query, (index.table.oid, index.name, index.table.oid)).fetchone()
    if row is None:
        return False
    if not row[1]:
        hint = "Give the index another name"
        raise KeyturnError("index-name-taken", "belongs to something else", where=index.name, hint=hint)
    return True if row[0] else None


def make_index(work: Work, index: Index) -> dict[str, Any]:
    """Make the index while the table is in use; what is left of an interrupted build goes first."""
    link = work.link
    state = has_index(link, index)
    result = {"name": index.name, "table": str(index.table), "created": state is not True}
    if state is True:
        return result
    column, name = identifier(index.column), identifier(index.name)
    statements: Sequence[sql.Composed] = (
        sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(identifier(index.table.schema, index.name)),
        sql.SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} ({})").format(name, index.table.identifier, column),
    )

    def attempt() -> None:
        link.execute("SET lock_timeout = '60s'")
        try:
            for statement in statements:
                link.execute(statement, NO_PARAMETERS)
        finally:
            link.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(f"{work.lock_ms}ms")))

    with explained(f"index {index.name}"):
        retrying(work.pace, f"index {index.name}", attempt)
    return result
