# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The statements that write, one batch each. No plaintext is ever a bound parameter, which a server log may keep.

An encrypted cell is replaced only where the whole old cell still stands (compare-and-swap). A plaintext one is guarded
by the version of its row instead and copied within the server; where a plaintext has to be sent, it goes by COPY.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import TextArray, copy_rows
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, raw_cursor
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import tid_text
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import (
    Key,
    Rows,
    join_on_key,
    key_names,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.sides import Side
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.statements import Statement
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.temporary import temporary_missing
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.written import asking, written

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["VERSION", "Writer"]

#: The row ``c`` is still the version that ``u`` lists.
VERSION = "c.xmin::text = u.x AND c.ctid::text = u.v"


class Writer:
    """Writes to one column and its side table, inside the caller's transaction.

    :param under: the key that the cells are under which it writes to the table; companions follow it.
    """

    def __init__(self, column: Column, under: str = NEW) -> None:
        self._under = under
        self._column = column
        self._table = column.table
        self._cells = CellType(column)
        self._cell = aliased("c", column.name)
        self._names = key_names(self._table)
        self._fenced: Statement | None = None

    def _list(self, values: Sequence[tuple[str, sql.Composable]]) -> sql.Composable:
        """``(SELECT unnest(...) p1, ..., and the values by name) u``.

        ``FROM unnest(...)`` would first write all of it down, array by array.
        """
        kinds = [*(part.array_sql for part in self._table.key), *(kind for _name, kind in values)]
        names = [identifier(name) for name in (*self._names, *(name for name, _kind in values))]
        fields = [sql.SQL("unnest(%s::{}) {}").format(kind, name) for kind, name in zip(kinds, names)]
        return sql.SQL("(SELECT {}) u").format(sql.SQL(", ").join(fields))

    def _update(self, source: sql.Composable, alias: str, guard: sql.Composable, value: str) -> sql.Composed:
        new = self._cells.value(aliased(alias, value))
        update = sql.SQL(
            "UPDATE {table} c SET {column} = {value}{set} FROM {source} WHERE {join} AND {guard}{chosen}"
        ).format(
            table=self._table.identifier,
            column=self._column.identifier,
            value=new,
            set=self._set(),
            source=source,
            join=join_on_key(self._table, alias, is_text=True),
            guard=guard,
            chosen=self._column.chosen,
        )
        return asking(self._column, update, self._is(new))

    def _is(self, value: sql.Composable) -> sql.Composable:
        """The cell has this value."""
        return sql.SQL("{} = {}").format(self._cells.compare(self._cell), self._cells.compare(value))

    def _set(self, only_where: sql.Composable | None = None) -> sql.Composable:
        """``, column = value`` for each companion; where the condition does not hold it stays as it is."""
        terms = []
        for companion in self._column.companions:
            value = companion.value(self._under == NEW)
            if only_where is not None:
                kept = aliased("c", companion.column)
                value = sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(only_where, value, kept)
            terms.append(sql.SQL(", {} = {}").format(identifier(companion.column), value))
        return sql.SQL("").join(terms)

    def _same_cell(self, alias: str) -> sql.Composable:
        """The whole cell is still the one that was read (column ``o`` of the list)."""
        old = sql.SQL("{}.o").format(identifier(alias))
        return sql.SQL("{} = {}").format(self._cells.compare(self._cell), old)

    @cached_property
    def _replace_cells(self) -> Statement:
        kind = self._cells.array_sql
        return Statement(self._update(self._list([("o", kind), ("n", kind)]), "u", self._same_cell("u"), "n"))

    def replace_cells(self, link: Link, rows: Rows, raws: Sequence[bytes]) -> int:
        """Compare-and-swap of encrypted cells; how many were still as read."""
        cells = [self._cells.array(rows.raws), self._cells.array(raws)]
        parameters = [*rows.key_arrays, *cells]
        return written(self._column, self._replace_cells.run(link, parameters))

    @property
    def is_plain(self) -> bool:
        """Whether one statement is all it takes to replace cells."""
        return not self._column.table.triggers

    def replace_fenced(self, link: Link, fence: Fence, rows: Rows, raws: Sequence[bytes]) -> int:
        """:meth:`replace_cells` with the fence in one statement, where it is plain; it commits by itself.

        :returns: how many were still as read; none once somebody else has the fence.
        """
        if self._fenced is None:
            kind = self._cells.array_sql
            guard = sql.SQL("{} AND {}").format(self._same_cell("u"), fence.condition)
            self._fenced = Statement(self._update(self._list([("o", kind), ("n", kind)]), "u", guard, "n"))
        cells = [self._cells.array(rows.raws), self._cells.array(raws)]
        parameters = [*rows.key_arrays, *cells, *fence.parameters]
        return self._fenced.run(link, parameters).rowcount

    def replace_versions(self, link: Link, rows: Rows, raws: Sequence[bytes]) -> int:
        """Replace plaintext cells in rows that are still of the version that was read; how many were."""
        text = sql.SQL("text[]")
        listed = self._list([("x", text), ("v", text), ("n", self._cells.array_sql)])
        query = self._update(listed, "u", sql.SQL(VERSION), "n")
        return written(self._column, link.execute(query, [*self._versions(rows), self._cells.array(raws)]))

    def _versions(self, rows: Rows) -> list[TextArray]:
        xmins, ctids = rows.versions
        transactions = TextArray([b"%d" % int.from_bytes(xmin, "big") for xmin in xmins])
        places = TextArray([tid_text(ctid).encode() for ctid in ctids])
        return [*rows.key_arrays, transactions, places]

    # -- side tables ---------------------------------------------------------------------------------------------

    def _upsert(self, side: Side, select: sql.Composable) -> sql.Composed:
        names = sql.SQL(", ").join([identifier(name) for name in self._names])
        return sql.SQL(
            "INSERT INTO {side} ({names}, k0, k1) {select} "
            "ON CONFLICT ({names}) DO UPDATE SET k0 = excluded.k0, k1 = excluded.k1"
        ).format(side=side.identifier, names=names, select=select)

    def _cast_keys(self, alias: str) -> list[sql.Composable]:
        return [column.cast(aliased(alias, name)) for column, name in zip(self._table.key, self._names)]

    def put_pairs(
        self, link: Link, side: Side, rows: Rows, under_old: Sequence[bytes], under_new: Sequence[bytes]
    ) -> None:
        """Keep cells, both encrypted, in the side table."""
        kind = self._cells.array_sql
        fields = [*self._cast_keys("u"), *(self._cells.value(aliased("u", name)) for name in ("k0", "k1"))]
        select = sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(fields), self._list([("k0", kind), ("k1", kind)])
        )
        pairs = [self._cells.array(under_old), self._cells.array(under_new)]
        link.execute(self._upsert(side, select), [*rows.key_arrays, *pairs], prepare=True)

    def copy_pairs(self, link: Link, side: Side, rows: Rows, under_new: Sequence[bytes] | None) -> None:
        """Keep cells that are not encrypted, copied by the server from rows still of the version that was read.

        :param under_new: the encrypted cells; None when the cell itself stays under the new key too.
        """
        text = sql.SQL("text[]")
        values: list[tuple[str, sql.Composable]] = [("x", text), ("v", text)]
        parameters = self._versions(rows)
        second: sql.Composable = self._cell
        if under_new is not None:
            values.append(("k1", self._cells.array_sql))
            parameters.append(self._cells.array(under_new))
            second = self._cells.value(sql.SQL("u.k1"))
        keys = [aliased("c", column.name) for column in self._table.key]
        select = sql.SQL("SELECT {} FROM {} JOIN {} c ON {} AND {}{}").format(
            sql.SQL(", ").join([*keys, self._cell, second]),
            self._list(values),
            self._table.identifier,
            join_on_key(self._table, "u", is_text=True),
            sql.SQL(VERSION),
            self._column.chosen,
        )
        link.execute(self._upsert(side, select), parameters)

    # -- values with text in clear -------------------------------------------------------------------------------

    def stage(self, link: Link, rows: Rows, **values: Sequence[bytes]) -> None:
        """Send raw values by COPY into a temporary table, with those that were read as ``o``.

        :param values: one for each row, by the name of the temporary table's column.
        :raises KeyturnError: ``privilege-missing``.
        """
        link.execute("DROP TABLE IF EXISTS pg_temp.keyturn_plain")
        keys = [sql.SQL("{} text").format(identifier(name)) for name in self._names]
        cells = [sql.SQL("{} {}").format(identifier(name), self._cells.staging_sql) for name in ("o", *values)]
        create = sql.SQL("CREATE TEMPORARY TABLE keyturn_plain ({}) ON COMMIT DROP")
        try:
            link.execute(create.format(sql.SQL(", ").join([*keys, *cells])), NO_PARAMETERS)
        except psycopg.errors.InsufficientPrivilege:
            raise temporary_missing(str(self._column)) from None
        with link.cursor().copy("COPY pg_temp.keyturn_plain FROM STDIN (FORMAT binary)") as copy:
            copy.write(copy_rows(zip(*rows.key_parts, rows.raws, *values.values())))

    def replace_staged(self, link: Link, name: str) -> int:
        """Compare-and-swap by the staged values of this name, where they differ; how many were still as read."""
        read, wanted = (self._cells.compare(aliased("n", one)) for one in ("o", name))
        guard = sql.SQL("{} AND {} <> {}").format(self._same_cell("n"), read, wanted)
        query = self._update(sql.SQL("pg_temp.keyturn_plain n"), "n", guard, name)
        return written(self._column, link.execute(query, NO_PARAMETERS))

    def put_staged(self, link: Link, side: Side) -> None:
        """Keep the staged values ``k0`` and ``k1`` in the side table."""
        fields = [*self._cast_keys("n"), *(self._cells.value(aliased("n", name)) for name in ("k0", "k1"))]
        select = sql.SQL("SELECT {} FROM pg_temp.keyturn_plain n").format(sql.SQL(", ").join(fields))
        link.execute(self._upsert(side, select), NO_PARAMETERS)

    # -- rows and their locks ------------------------------------------------------------------------------------

    def unlocked(self, link: Link, rows: Rows) -> frozenset[Key]:
        """The keys of those rows that nobody else holds, locked for the rest of the transaction."""
        keys = sql.SQL(", ").join([sql.SQL("{}::text").format(aliased("c", part.name)) for part in self._table.key])
        query = sql.SQL("SELECT {} FROM {} JOIN {} c ON {} FOR NO KEY UPDATE OF c SKIP LOCKED").format(
            keys, self._list([]), self._table.identifier, join_on_key(self._table, "u", is_text=True)
        )
        return frozenset(raw_cursor(link).execute(query, rows.key_arrays).fetchall())

    def swap(self, link: Link, side: Side) -> int:
        """Exchange every row's cell for the one under the other key; how many rows were exchanged."""
        other = sql.SQL("s.{}").format(side.other_cell)
        truth = sql.SQL("s.{}").format(side.truth_cell)
        differs = sql.SQL("{} <> {}").format(self._cells.compare(other), self._cells.compare(truth))
        query = sql.SQL(
            "UPDATE {table} c SET {column} = {other}{set} FROM {side} s WHERE {join} AND {cell} = {truth}{chosen}"
        )
        update = query.format(
            table=self._table.identifier,
            column=self._column.identifier,
            other=other,
            set=self._set(only_where=differs),
            chosen=self._column.chosen,
            side=side.identifier,
            join=join_on_key(self._table, "s", is_text=False),
            cell=self._cells.compare(self._cell),
            truth=self._cells.compare(truth),
        )
        return written(self._column, link.execute(asking(self._column, update, self._is(other)), NO_PARAMETERS))

    def count_swapped(self, link: Link, side: Side) -> int:
        """How many rows hold the cell that :meth:`swap` put into them."""
        query = sql.SQL("SELECT count(*) FROM {table} c JOIN {side} s ON {join} WHERE {cell} = {other}{chosen}").format(
            table=self._table.identifier,
            side=side.identifier,
            join=join_on_key(self._table, "s", is_text=False),
            cell=self._cells.compare(self._cell),
            other=self._cells.compare_kept(sql.SQL("s.{}").format(side.other_cell)),
            chosen=self._column.chosen,
        )
        row = link.execute(query, NO_PARAMETERS).fetchone()
        return int(row[0]) if row else 0

    def count(self, link: Link) -> int:
        """How many of the rows that are meant hold something, counted by the database."""
        query = sql.SQL("SELECT count(*) FROM {} c WHERE {} IS NOT NULL{}").format(
            self._table.identifier, self._cell, self._column.chosen
        )
        row = link.execute(query, NO_PARAMETERS).fetchone()
        return int(row[0]) if row else 0
