# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table in ranges of pages, which several workers read side by side, each in windows that fit into memory.

A row that moves to another page meanwhile may be read twice or not at all: whoever writes does so by key and whole
cell, and the proof at the end reads everything in one snapshot, where nothing moves.

Rows have to come in the order in which they lie, or a window that ends before its range would leave some out. An index
whose condition fits would give them in its own order, so the condition is one that the planner cannot look into: what
is left to it is to read pages (a Tid Range Scan, which streams), or what is joined first. That it does the former is
looked at: no row is read twice, and where one has come out of its order, the rest of the range is sorted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Callable, NamedTuple, cast

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, raw_cursor
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table

try:
    from psycopg import sql
    from psycopg.pq.abc import PGresult
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = [
    "STRIPES",
    "BatchSize",
    "Pages",
    "Patiently",
    "Reading",
    "Window",
    "fetch",
    "finer_at_the_end",
    "page_ranges",
    "tid_text",
    "windows",
]

#: A window's rows are dealt out like cards to so many batches: pages are visited again and again, so that dead row
#: versions are pruned in between.
STRIPES = 16
_PIECES = 4  # of each of the last ranges
_FILLED = 0.95  # of a window: a range with a few rows more than fit would be read in two
_TID = struct.Struct("!IH")


class Window:
    """Rows as the server gave them: a list for each field that is asked for, and no object for each row.

    :param result: in binary form; None for no rows.
    """

    def __init__(self, result: PGresult | None) -> None:
        self._result = result
        self._count = 0 if result is None else result.ntuples

    def __len__(self) -> int:
        return self._count

    def nullable(self, field: int, at: Iterable[int] | None = None) -> list[bytes | None]:
        """A field of all rows, or of these."""
        if self._result is None:
            return []
        get = self._result.get_value
        return [get(index, field) for index in (range(self._count) if at is None else at)]

    def column(self, field: int, at: Iterable[int] | None = None) -> list[bytes]:
        """The same of a field that is never null."""
        return cast("list[bytes]", self.nullable(field, at))


#: Reads again where somebody has locked the table.
Patiently = Callable[[Callable[[], Window]], Window]


class Pages(NamedTuple):
    """Some pages of a table or of a partition, ``end`` not included.

    :param has_toast: whether values may lie outside of the pages, so that one page may hold very much.
    """

    schema: str
    name: str
    first: int
    end: int
    has_toast: bool


class BatchSize:
    """Rows of one batch: as many as asked for, fewer when they are wide."""

    def __init__(self, rows: int, size_bytes: int) -> None:
        self._rows = max(1, rows)
        self._bytes = max(1, size_bytes)
        self.now = min(self._rows, 64)

    def limited(self, window_rows: float) -> BatchSize:
        """A fresh one whose windows have at most so many rows."""
        return BatchSize(int(min(self._rows, window_rows / STRIPES)), self._bytes)

    @property
    def window_rows(self) -> int:
        """The most rows of a window."""
        return STRIPES * self._rows

    @property
    def window_bytes(self) -> int:
        """The most that a window may hold, about."""
        return STRIPES * self._bytes

    def learn(self, count: int, size: int) -> None:
        """Take the mean width of what was just read; growth is slow, shrinking at once."""
        if count:
            fits = self._bytes * count // max(1, size)
            self.now = max(1, min(self._rows, fits, self.now * 4))


@dataclass(frozen=True)
class Reading:
    """What is read of each row: fields over ``c`` (the table) and what is joined to it.

    :param wide: the fields that hold cells, the table's own first.
    :param lies_apart: whether cells lie outside of the table, so that a few rows may hold very much.
    """

    fields: Sequence[sql.Composable]
    wide: Sequence[int]
    join: sql.Composable
    where: sql.Composable
    lies_apart: bool = False

    @property
    def is_joined(self) -> bool:
        """Whether the planner may begin with something else than the table."""
        return bool(self.join.as_string(None))

    def query(self, pages: Pages, limit: int, most_bytes: int, sort: bool = False) -> sql.Composed:
        """Parameters are the row before the first, and the first row no more, as texts of a ``tid``.

        :param sort: sort the rows of the whole range first, whatever the planner does.
        """
        named: list[sql.Composable] = [
            sql.SQL("{} f{}").format(field, sql.SQL(str(number))) for number, field in enumerate(self.fields)
        ]
        named.append(sql.SQL("c.ctid t"))
        width = "w"
        if self.lies_apart:
            width = " + ".join(f"coalesce(octet_length(f{field}), 0)" for field in self.wide)
        elif pages.has_toast:
            sizes = [sql.SQL("coalesce(pg_column_size({}), 0)").format(self.fields[field]) for field in self.wide]
            named.append(sql.SQL("{} w").format(sql.SQL(" + ").join(sizes)))
        inner = sql.SQL(
            "SELECT {} FROM {} c {} WHERE CASE WHEN {} THEN true END"
            " AND c.ctid > %s::tid AND c.ctid < %s::tid {} LIMIT {}"
        ).format(
            sql.SQL(", ").join(named),
            identifier(pages.schema, pages.name),
            self.join,
            self.where,
            sql.SQL("ORDER BY c.ctid" if sort else ""),
            sql.Literal(limit),
        )
        if not pages.has_toast and not self.lies_apart:
            return inner
        names = sql.SQL(", ").join([sql.SQL(f"f{number}") for number in range(len(self.fields))])
        return sql.SQL(
            "SELECT {names}, t FROM (SELECT i.*, sum({w}) OVER ({order} ROWS UNBOUNDED PRECEDING) - ({w}) before"
            " FROM ({inner}) i) o WHERE before < {most}"
        ).format(
            names=names,
            w=sql.SQL(width),
            order=sql.SQL("ORDER BY t" if sort else ""),
            inner=inner,
            most=sql.Literal(most_bytes),
        )


def tid_text(raw: bytes) -> str:
    """A ``tid`` in binary form as the server writes it."""
    block, offset = _TID.unpack(raw)
    return f"({block},{offset})"


def page_ranges(link: Link, table: Table, rows: int) -> list[Pages]:
    """The pages that the table and its partitions have now, in ranges of about so many rows."""
    query = """
        SELECT n.nspname, c.relname, pg_relation_size(c.oid) / current_setting('block_size')::bigint,
               greatest(c.reltuples, 0)::float8 / greatest(c.relpages, 1),
               c.reltoastrelid <> 0 AND pg_relation_size(c.reltoastrelid) > 0
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND (c.oid = %(oid)s::bigint::oid OR c.oid IN (
            SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid) WHERE isleaf))
        ORDER BY n.nspname, c.relname"""
    ranges = []
    for schema, name, count, density, has_toast in link.execute(query, {"oid": table.oid}).fetchall():
        step = max(1, int(_FILLED * rows / (density or 50)))
        ranges += [
            Pages(schema, name, first, min(first + step, int(count)), has_toast) for first in range(0, int(count), step)
        ]
    return ranges


def finer_at_the_end(ranges: list[Pages], workers: int) -> list[Pages]:
    """The last ranges in smaller pieces, so that no worker has long to do alone while the others have nothing."""
    if workers < 2 or len(ranges) <= workers:
        return ranges
    pieces = []
    for pages in ranges[-workers:]:
        step = max(1, -(-(pages.end - pages.first) // _PIECES))
        pieces += [
            pages._replace(first=first, end=min(first + step, pages.end))
            for first in range(pages.first, pages.end, step)
        ]
    return [*ranges[:-workers], *pieces]


def fetch(link: Link, query: sql.Composed, parameters: Sequence[object]) -> Window:
    """What a query gives."""
    cursor = raw_cursor(link)
    cursor.execute(query, parameters)
    return Window(cursor.pgresult)


def windows(
    link: Link, pages: Pages, reading: Reading, size: BatchSize, patiently: Patiently = lambda read: read()
) -> Iterator[Window]:
    """The rows of these pages, a window at a time; their last field is the ``tid`` in binary form."""
    last, end = f"({pages.first},0)", f"({pages.end},0)"
    at, sort = len(reading.fields), False
    while True:
        limit = STRIPES * size.now
        query = reading.query(pages, limit, size.window_bytes, sort)
        window = patiently(partial(fetch, link, query, (last, end)))
        if not window:
            return
        is_whole = len(window) < limit and not pages.has_toast and not reading.lies_apart
        some = range(0, len(window), STRIPES)
        (latest,) = window.column(at, (len(window) - 1,))
        if not (is_whole or sort) and max(window.column(at, None if reading.is_joined else some)) > latest:
            sort = True  # some may have been left out
            continue
        yield window
        size.learn(len(some), sum(len(cell or b"") for field in reading.wide for cell in window.nullable(field, some)))
        if is_whole:
            return
        last = tid_text(latest)
