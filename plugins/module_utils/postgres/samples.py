# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of a column, taken at random, and the cells that they may hold. Nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    raw_cursor,
    snapshot,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import read_permitted
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, aliased
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shapes import Shape, parse_shape
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column, Table

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["SHORTEST", "Extent", "Samples", "extent_of", "take"]

#: In bytes; nothing encrypted is shorter.
SHORTEST = 16
_VALUES = 50
_PATHS = 200  # JSON whose members are named by an id has any number
_PAGES = 512  # a table of more is not read whole


class Extent(NamedTuple):
    """How large a table is, and which of its pages are looked at where that is not all: for all columns the same.

    :param pages: with those of its partitions and of the tables that inherit from it.
    :param seed: for TABLESAMPLE.
    """

    pages: int
    seed: float

    @property
    def sampling(self) -> sql.Composable:
        """What stands behind the table's name."""
        if self.pages <= _PAGES:
            return sql.SQL("")
        share, seed = sql.Literal(round(100 * _PAGES / self.pages, 6)), sql.Literal(self.seed)
        return sql.SQL(" TABLESAMPLE SYSTEM ({}) REPEATABLE ({})").format(share, seed)


class Samples(NamedTuple):
    """What was taken of a column.

    :param cells: by the path where they are strings inside of JSON; under the empty path whole values, the elements of
        arrays, or what a declared shape finds.
    :param hidden: how many large objects this role may not read.
    """

    cells: dict[str, list[bytes]]
    hidden: int


def extent_of(link: Link, table: Table) -> Extent:
    """The size of a table now; the server's estimate of its rows may be old or missing."""
    query = """
        WITH RECURSIVE t(oid) AS (
            SELECT %s::bigint::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN t ON i.inhparent = t.oid)
        SELECT (coalesce(sum(pg_relation_size(t.oid)), 0) / current_setting('block_size')::bigint)::bigint, random()
        FROM t"""
    return Extent(*(link.execute(query, (table.oid,)).fetchone() or (0, 0.0)))


def take(link: Link, column: Column, extent: Extent, shape: Shape | None = None) -> Samples:
    """Some values of a column, in a transaction of their own: a lock is held for no longer.

    :param shape: where the cells lie in a value, if that is known.
    """
    cell = aliased("c", column.name)
    if column.is_large_object:
        holds = sql.SQL("EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.oid = {})").format(cell)
    else:
        holds = sql.SQL("pg_column_size({}) > {}").format(cell, sql.Literal(SHORTEST))  # as stored, with its length
    chosen = sql.SQL("SELECT {} AS cell FROM {} c{} WHERE {}{} ORDER BY random() LIMIT {}").format(
        cell, column.table.identifier, extent.sampling, holds, column.chosen, sql.Literal(_VALUES)
    )
    value = sql.SQL("s.cell")
    read = read_permitted(value) if column.is_large_object else CellType(column).read(value)
    query = sql.SQL("SELECT {} FROM ({}) s").format(read, chosen)  # only what is chosen is read whole
    with snapshot(link):
        whole_tables(link)
        raws = [row[0] for row in raw_cursor(link).execute(query, NO_PARAMETERS).fetchall()]
    return Samples(_cells(column, [raw for raw in raws if raw is not None], shape), raws.count(None))


def _cells(column: Column, raws: Sequence[bytes], shape: Shape | None) -> dict[str, list[bytes]]:
    cells: dict[str, list[bytes]] = {}
    found = (pair for raw in raws for pair in (_found(column, raw) if shape is None else _declared(shape, raw)))
    for path, cell in found:
        if len(cell) >= SHORTEST:
            cells.setdefault(path, []).append(cell)
    some = sorted(cells.items())[:_PATHS]
    return {path: several[:: -(-len(several) // _VALUES)] for path, several in some}


def _declared(shape: Shape, raw: bytes) -> list[tuple[str, bytes]]:
    try:
        return [("", cell) for cell in shape.split(raw)[1]]
    except ValueError:
        return []


def _found(column: Column, raw: bytes) -> list[tuple[str, bytes]]:
    """The whole value or an array's elements, and strings inside of JSON by path."""
    shape = parse_shape({}, column.type_name, str(column))
    whole = CellType(column).decode([raw]) if shape is None else shape.split(raw)[1]
    is_text = column.type_name != "bytea" and not column.is_large_object
    return [*(("", cell) for cell in whole), *(one for cell in whole if is_text for one in _strings(cell))]


_PLAIN_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def _strings(text: bytes) -> Iterator[tuple[str, bytes]]:
    """The strings inside of JSON, with their paths."""
    if not text.lstrip().startswith((b"{", b"[", b'"')):
        return
    try:
        waiting: list[tuple[str, Any]] = [("$", json.loads(text))]
    except (ValueError, RecursionError):
        return
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value.encode(errors="surrogatepass")
        elif isinstance(value, list):
            waiting += [(f"{path}[*]", element) for element in value]
        elif isinstance(value, dict):
            waiting += [(f"{path}{_step(name)}", member) for name, member in value.items()]


def _step(name: str) -> str:
    return f".{name}" if name and _PLAIN_NAME.issuperset(name) else f'["{name}"]'
