# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of a column that there is something to do with, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import TextArray
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import (
    STRIPES,
    BatchSize,
    Pages,
    Patiently,
    Reading,
    Window,
    fetch,
    windows,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column, KeyColumn, Table

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Key", "Rows", "Source", "join_on_key", "join_shadow", "key_names", "read_key"]

Key = tuple[bytes, ...]


class Rows:
    """Rows as read, field by field: millions of small objects would cost more than the crypto.

    :param window: its fields are the columns of the key as :meth:`KeyColumn.read` has them, the cell raw, and last,
        where rows are to be written, which version of the row that was: ``xmin`` and ``ctid``, in binary form.
    :param key: the columns of the key.
    :param at: which rows of the window; None for all.
    """

    def __init__(self, window: Window, key: Sequence[KeyColumn], at: Sequence[int] | None = None) -> None:
        self._window, self._key, self._width = window, key, len(key)
        self._at = range(len(window)) if at is None else at

    def __len__(self) -> int:
        return len(self._at)

    @cached_property
    def raws(self) -> list[bytes]:
        """The cells."""
        return self._window.column(self._width, self._at)

    @cached_property
    def _key_fields(self) -> list[list[bytes]]:
        return [self._window.column(field, self._at) for field in range(self._width)]

    @cached_property
    def key_parts(self) -> list[list[bytes]]:
        """A list of texts for each column of the key."""
        return [column.texts(field) for column, field in zip(self._key, self._key_fields)]

    @property
    def key_arrays(self) -> list[TextArray]:
        """A parameter for each column of the key."""
        return [column.array(field) for column, field in zip(self._key, self._key_fields)]

    @property
    def keys(self) -> list[Key]:
        """The key of each row."""
        return list(zip(*self.key_parts))

    @property
    def versions(self) -> tuple[list[bytes], list[bytes]]:
        """``xmin`` and ``ctid`` of each row."""
        return self._window.column(self._width + 1, self._at), self._window.column(self._width + 2, self._at)

    def pick(self, places: Sequence[int]) -> Rows:
        """The rows at these places, in this order."""
        if places == range(len(self)):
            return self
        return Rows(self._window, self._key, [self._at[place] for place in places])

    def stripe(self, number: int, count: int) -> Rows:
        """Every so manieth row."""
        return Rows(self._window, self._key, self._at[number::count])

    def places(self, keys: frozenset[Key]) -> list[int]:
        """Where the rows with these keys are."""
        return [place for place, key in enumerate(self.keys) if key in keys]


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


def read_key(table: Table) -> list[sql.Composable]:
    """The columns of the key, of ``c``, as they are read."""
    return [part.read(aliased("c", part.name)) for part in table.key]


class Source:
    """The rows of a column to look at: all that hold something, or those whose shadow is behind."""

    def __init__(self, column: Column, shadow: Shadow | None = None) -> None:
        self.column = column
        self._table = column.table
        self._width = len(self._table.key)
        cells, cell = CellType(column), aliased("c", column.name)
        fields = [*read_key(self._table), cells.read(cell), sql.SQL("c.xmin")]
        join: sql.Composable = sql.SQL("")
        where = sql.SQL("{} IS NOT NULL{}").format(cell, column.chosen)
        if shadow is not None:
            join = join_shadow(self._table, shadow)
            where = sql.SQL("{} AND {}").format(where, shadow.is_behind(cells))
        self._reading = Reading(fields, (self._width,), join, where, cells.lies_apart)

    def _select(self, also: sql.Composable) -> sql.Composed:
        return sql.SQL("SELECT {}, c.ctid FROM {} c {} WHERE {} {}").format(
            sql.SQL(", ").join(self._reading.fields),
            self._table.identifier,
            self._reading.join,
            self._reading.where,
            also,
        )

    def _read(self, link: Link, also: sql.Composable, parameters: Sequence[object]) -> Rows:
        return self._rows(fetch(link, self._select(also), parameters))

    def _rows(self, window: Window) -> Rows:
        return Rows(window, self._table.key)

    def some(self, link: Link, limit: int) -> Rows:
        """So many of the rows."""
        return self._read(link, sql.SQL("LIMIT {}").format(sql.Literal(limit)), NO_PARAMETERS)

    def by_key(self, link: Link, keys: Sequence[Key]) -> Rows:
        """These rows, where they still are."""
        names = sql.SQL(", ").join([identifier(name) for name in key_names(self._table)])
        arrays = sql.SQL(", ").join([sql.SQL("%s::{}").format(part.array_sql) for part in self._table.key])
        listed = sql.SQL("AND EXISTS (SELECT FROM unnest({}) u({}) WHERE {})").format(
            arrays, names, join_on_key(self._table, "u", is_text=True)
        )
        texts = zip(*keys)
        return self._read(link, listed, [part.array_of_texts(each) for part, each in zip(self._table.key, texts)])

    def batches(self, link: Link, pages: Pages, size: BatchSize, patiently: Patiently) -> Iterator[Rows]:
        """All rows of these pages once, in batches; each window is dealt out like cards."""
        for window in windows(link, pages, self._reading, size, patiently):
            rows = self._rows(window)
            count = min(len(rows), STRIPES)
            for number in range(count):
                yield rows.stripe(number, count)
