# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a table: windows in key order for work, one stream of one moment for counting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Callable, NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import TextArray
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, raw_cursor
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

__all__ = ["BatchSize", "Key", "Row", "Source", "join_on_key", "join_shadow", "key_names", "key_parameters", "stream"]

Key = tuple[bytes, ...]
_STRIPES = 8  # a table's pages are visited again and again, so that dead row versions are pruned in between


class Row(NamedTuple):
    """One row as read: key as texts, the cell raw, and which version of the row it was."""

    key: Key
    raw: bytes
    xmin: bytes
    ctid: bytes


Patiently = Callable[[Callable[[], "list[Row]"]], "list[Row]"]


class BatchSize:
    """Rows of one batch: as many as asked for, fewer when they are wide."""

    def __init__(self, rows: int, size_bytes: int) -> None:
        self._rows = max(1, rows)
        self._bytes = max(1, size_bytes)
        self.now = min(self._rows, 64)

    def learn(self, count: int, size: int) -> None:
        """Take the mean width of what was just read; growth is slow, shrinking at once."""
        if count:
            fits = self._bytes * count // max(1, size)
            self.now = max(1, min(self._rows, fits, self.now * 4))


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


def key_parameters(keys: Sequence[Key]) -> list[TextArray]:
    """One array for each column of the key."""
    return [TextArray(part) for part in zip(*keys)]


class Source:
    """The rows of a column to look at: all that hold something, or those whose shadow is behind."""

    def __init__(self, column: Column, shadow: Shadow | None = None) -> None:
        self.column = column
        self.cell_type = CellType(column)
        self._table = column.table
        self._shadow = shadow

    def _key_texts(self) -> list[sql.Composable]:
        return [sql.SQL("{}::text").format(aliased("c", part.name)) for part in self._table.key]

    def _select(self) -> sql.Composed:
        cell = aliased("c", self.column.name)
        fields: list[sql.Composable] = self._key_texts()
        fields += [self.cell_type.read(cell), sql.SQL("c.xmin::text"), sql.SQL("c.ctid::text")]
        query = [sql.SQL("SELECT {} FROM {} c").format(sql.SQL(", ").join(fields), self._table.identifier)]
        where = sql.SQL("{} IS NOT NULL{}").format(cell, self.column.chosen)
        if self._shadow is not None:
            query.append(join_shadow(self._table, self._shadow))
            where = sql.SQL("{} AND {}").format(where, self._shadow.is_behind(self.cell_type))
        return sql.SQL("{} WHERE {}").format(sql.SQL(" ").join(query), where)

    def _rows(self, link: Link, query: sql.Composed, parameters: Sequence[object]) -> list[Row]:
        width = len(self._table.key)
        fetched = raw_cursor(link).execute(query, parameters).fetchall()
        return [Row(row[:width], row[width], row[width + 1], row[width + 2]) for row in fetched]

    def after(self, link: Link, last: Key | None, limit: int) -> list[Row]:
        """The next rows in the order of the key."""
        ours = sql.SQL(", ").join([aliased("c", part.name) for part in self._table.key])
        query: list[sql.Composable] = [self._select()]
        parameters: list[object] = []
        if last is not None:
            theirs = sql.SQL(", ").join([part.cast(sql.SQL("%s::text")) for part in self._table.key])
            query.append(sql.SQL("AND ({}) > ({})").format(ours, theirs))
            parameters += [part.decode() for part in last]
        query.append(sql.SQL("ORDER BY {} LIMIT {}").format(ours, sql.Literal(limit)))
        return self._rows(link, sql.SQL(" ").join(query), parameters)

    def by_key(self, link: Link, keys: Sequence[Key]) -> list[Row]:
        """These rows, where they still are."""
        names = sql.SQL(", ").join([identifier(name) for name in key_names(self._table)])
        arrays = sql.SQL(", ").join([sql.SQL("%s::text[]")] * len(self._table.key))
        listed = sql.SQL("EXISTS (SELECT FROM unnest({}) u({}) WHERE {})").format(
            arrays, names, join_on_key(self._table, "u", is_text=True)
        )
        return self._rows(link, sql.SQL("{} AND {}").format(self._select(), listed), key_parameters(keys))

    def batches(self, link: Link, size: BatchSize, patiently: Patiently) -> Iterator[list[Row]]:
        """All rows once, in batches; each window of eight batches is dealt out like cards.

        :param patiently: reads again where somebody has locked the table.
        """
        last: Key | None = None
        while True:
            window = patiently(partial(self.after, link, last, size.now * _STRIPES))
            if not window:
                return
            last = window[-1].key
            count = -(-len(window) // size.now)
            for stripe in range(count):
                yield window[stripe::count]
            size.learn(len(window), sum(len(row.raw) for row in window))


def stream(link: Link, query: sql.Composed, size: BatchSize, width: int) -> Iterator[list[tuple[bytes, ...]]]:
    """The rows of a query in the present transaction, in batches; memory stays flat.

    :param width: how many of the last fields count as wide.
    """
    link.execute(sql.SQL("DECLARE keyturn_rows NO SCROLL CURSOR FOR {}").format(query), NO_PARAMETERS)
    while True:
        fetch = sql.SQL("FETCH FORWARD {} FROM keyturn_rows").format(sql.Literal(size.now))
        rows = raw_cursor(link).execute(fetch).fetchall()
        if not rows:
            break
        yield rows
        size.learn(len(rows), sum(len(value) for row in rows for value in row[-width:] if value is not None))
    link.execute("CLOSE keyturn_rows")
