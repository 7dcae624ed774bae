# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of a column that there is something to do with, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import TextArray
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, raw_cursor
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import (
    STRIPES,
    BatchSize,
    Pages,
    Patiently,
    Reading,
    windows,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column, Table

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Key", "Row", "Source", "join_on_key", "join_shadow", "key_names", "key_parameters"]

Key = tuple[bytes, ...]


class Row(NamedTuple):
    """One row as read: key as texts, the cell raw, and which version of the row it was (both in binary form)."""

    key: Key
    raw: bytes
    xmin: bytes
    ctid: bytes


def key_names(table: Table) -> list[str]:
    """Names of the key's columns in tables and lists of ours; theirs may be anything."""
    return [f"p{number}" for number in range(1, len(table.key) + 1)]


def join_on_key(table: Table, other: str, is_text: bool) -> sql.Composable:
    """``c`` (the table) and ``other`` have the same key; ``is_text`` when the other's key columns are texts."""
    terms = []
    for column, name in zip(table.key, key_names(table)):
        theirs = aliased(other, name)
        value = column.cast(theirs) if is_text else theirs
        terms.append(sql.SQL("{} = {}").format(aliased("c", column.name), value))
    return sql.SQL(" AND ").join(terms)


def join_shadow(table: Table, shadow: Shadow) -> sql.Composed:
    """The join of a side table as ``s``; nothing where the shadow is in ``c``."""
    if shadow.beside is None:
        return sql.SQL("").format()
    return sql.SQL("LEFT JOIN {} s ON {}").format(shadow.beside, join_on_key(table, "s", is_text=False))


def key_parameters(table: Table, keys: Sequence[Key]) -> list[TextArray]:
    """One array for each column of the key."""
    return [column.array(part) for column, part in zip(table.key, zip(*keys))]


class Source:
    """The rows of a column to look at: all that hold something, or those whose shadow is behind."""

    def __init__(self, column: Column, shadow: Shadow | None = None) -> None:
        self.column = column
        self._table = column.table
        self._width = len(self._table.key)
        cells, cell = CellType(column), aliased("c", column.name)
        fields: list[sql.Composable] = [sql.SQL("{}::text").format(aliased("c", part.name)) for part in self._table.key]
        fields += [cells.read(cell), sql.SQL("c.xmin")]
        join: sql.Composable = sql.SQL("")
        where = sql.SQL("{} IS NOT NULL{}").format(cell, column.chosen)
        if shadow is not None:
            join = join_shadow(self._table, shadow)
            where = sql.SQL("{} AND {}").format(where, shadow.is_behind(cells))
        self._reading = Reading(fields, self._width, join, where, cells.lies_apart)

    def _select(self, also: sql.Composable) -> sql.Composed:
        return sql.SQL("SELECT {}, c.ctid FROM {} c {} WHERE {} {}").format(
            sql.SQL(", ").join(self._reading.fields),
            self._table.identifier,
            self._reading.join,
            self._reading.where,
            also,
        )

    def _rows(self, fetched: Sequence[tuple[bytes, ...]]) -> list[Row]:
        width, make = self._width, Row
        return [make(row[:width], row[width], row[width + 1], row[width + 2]) for row in fetched]

    def some(self, link: Link, limit: int) -> list[Row]:
        """So many of the rows."""
        query = self._select(sql.SQL("LIMIT {}").format(sql.Literal(limit)))
        return self._rows(raw_cursor(link).execute(query, NO_PARAMETERS).fetchall())

    def by_key(self, link: Link, keys: Sequence[Key]) -> list[Row]:
        """These rows, where they still are."""
        names = sql.SQL(", ").join([identifier(name) for name in key_names(self._table)])
        arrays = sql.SQL(", ").join([sql.SQL("%s::{}").format(part.array_sql) for part in self._table.key])
        listed = sql.SQL("AND EXISTS (SELECT FROM unnest({}) u({}) WHERE {})").format(
            arrays, names, join_on_key(self._table, "u", is_text=True)
        )
        query = self._select(listed)
        return self._rows(raw_cursor(link).execute(query, key_parameters(self._table, keys)).fetchall())

    def batches(self, link: Link, pages: Pages, size: BatchSize, patiently: Patiently) -> Iterator[list[Row]]:
        """All rows of these pages once, in batches; each window is dealt out like cards.

        :param patiently: reads again where somebody has locked the table.
        """
        for fetched in windows(link, pages, self._reading, size, patiently):
            rows = self._rows(fetched)
            count = min(len(rows), STRIPES)
            for stripe in range(count):
                yield rows[stripe::count]
