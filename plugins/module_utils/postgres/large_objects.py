# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells that lie in large objects: the column holds an ``oid``, and the object of that number the cell.

The content is replaced within the object, so its number, owner and grants stay, and none is made or left over. The
row itself changes only where columns change with the cell. PostgreSQL has no lock for the content of an object: who
wrote a piece of it last holds that piece (``inv_api.c``), so each piece is taken by writing one byte as it is, before
the content is compared for the last time. Somebody who writes one in the same moment gets an error, or we do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import TextArray
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    transaction,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Rows, join_on_key
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.sides import Side
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column, Table
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import WRITERS, Work
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import Writer

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = [
    "check_objects",
    "ensure_function",
    "lock_mode",
    "read_permitted",
    "tables_of",
    "wait_for_writers",
    "writer_for",
]

_NAME = "rewrite_object"
_SIGNATURE = "(oid, bytea, bytea)"
#: A piece is a quarter of a block (``LOBLKSIZE``). Whoever holds the first one of an object holds back all who write
#: it anew. A conflict has the SQLSTATE of one, so the batch is undone and done again.
_FUNCTION = """
CREATE FUNCTION {name}(object oid, was bytea, wanted bytea) RETURNS boolean LANGUAGE plpgsql AS $body$
DECLARE
  piece integer := pg_catalog.current_setting('block_size')::integer / 4;
  descriptor integer;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = object) THEN
    RAISE serialization_failure;
  END IF;
  FOR at IN 0 .. pg_catalog.octet_length(was) - 1 BY piece LOOP
    PERFORM pg_catalog.lo_put(object, at, pg_catalog.lo_get(object, at, 1));
  END LOOP;
  IF pg_catalog.lo_get(object) IS DISTINCT FROM was THEN
    RAISE serialization_failure;
  END IF;
  PERFORM pg_catalog.lo_put(object, 0, wanted);
  IF pg_catalog.octet_length(wanted) < pg_catalog.octet_length(was) THEN
    descriptor := pg_catalog.lo_open(object, 131072);  -- INV_WRITE
    PERFORM pg_catalog.lo_truncate(descriptor, pg_catalog.octet_length(wanted));
    PERFORM pg_catalog.lo_close(descriptor);
  END IF;
  RETURN true;
END
$body$"""

#: All large objects of a database lie in this table, whose number never changes.
_OBJECTS = Table(2613, "pg_catalog", "pg_largeobject", ())

#: Open transactions that have written something, and have used large objects.
_WRITING = """
    SELECT DISTINCT coalesce('pid ' || o.pid, 'a prepared transaction'), o.virtualtransaction
    FROM pg_locks o JOIN pg_locks x ON x.virtualtransaction = o.virtualtransaction
      AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted
    WHERE o.locktype = 'relation' AND o.relation = %s::bigint::oid AND o.pid IS DISTINCT FROM pg_backend_pid()
      AND o.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

_MAY = """
    current_setting('is_superuser') = 'on' OR current_setting('lo_compat_privileges') = 'on'
    OR pg_has_role(m.lomowner, 'USAGE')
    OR EXISTS (SELECT FROM aclexplode(m.lomacl) g WHERE g.privilege_type = {privilege}
               AND CASE WHEN g.grantee = 0 THEN true ELSE pg_has_role(g.grantee, 'USAGE') END)"""


def tables_of(columns: Iterable[Column]) -> list[Table]:
    """The tables in whose files the cells of these columns lie."""
    columns = list(columns)
    tables = [column.table for column in columns]
    return [*tables, _OBJECTS] if any(column.is_large_object for column in columns) else tables


def lock_mode(columns: Iterable[Column]) -> str:
    """The lock that holds back all who write these columns.

    Who writes into an object may have locked its row and changed nothing of it.
    """
    return "EXCLUSIVE" if any(column.is_large_object for column in columns) else WRITERS


def wait_for_writers(work: Work, columns: Iterable[Column]) -> None:
    """Wait until those are done who write into objects now; no lock of a table says so of them.

    :raises KeyturnError: ``lock-unavailable``.
    """
    if not any(column.is_large_object for column in columns):
        return
    patience = work.pace.patience("transactions that write large objects")
    left = None
    while left is None or left:
        now = set(work.link.execute(_WRITING, (_OBJECTS.oid,)).fetchall())
        left = now if left is None else left & now
        if left and patience.is_over:
            raise KeyturnError(
                "lock-unavailable",
                f"transactions that write large objects are still open ({', '.join(sorted(one[0] for one in left))})",
                where="pg_locks",
                hint="Wait for them or end them, or raise max_wait; then run again",
            )
        if left:
            patience.pause()


def check_objects(link: Link, column: Column, need: Iterable[str]) -> None:
    """Refuse a column whose objects this role may not read, or not write.

    :param need: ``SELECT``, ``UPDATE``.
    :raises KeyturnError: ``privilege-missing``.
    """
    for privilege in need:
        may = sql.SQL(_MAY).format(privilege=sql.Literal(privilege))
        query = sql.SQL(
            "SELECT count(*) FROM {} c JOIN pg_largeobject_metadata m ON m.oid = {} WHERE NOT ({}){}"
        ).format(column.table.identifier, aliased("c", column.name), may, column.chosen)
        with transaction(link):
            whole_tables(link)
            row = link.execute(query, NO_PARAMETERS).fetchone()
        if row and row[0]:
            raise KeyturnError(
                "privilege-missing",
                f"this role may not {privilege} {row[0]} of the large objects that it names",
                where=str(column),
                hint="Use the role that owns them, or grant it: GRANT SELECT, UPDATE ON LARGE OBJECT ... TO ...",
            )


def read_permitted(expression: sql.Composable) -> sql.Composable:
    """The content of an object that is there and that this role may read; null for any other."""
    return sql.SQL(
        "CASE WHEN EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.oid = {oid} AND ({may}))"
        " THEN lo_get({oid}) END"
    ).format(oid=expression, may=sql.SQL(_MAY).format(privilege=sql.Literal("SELECT")))


def ensure_function(link: Link, schema: str, columns: Iterable[Column], pace: Pace) -> None:
    """Make the function that writes objects where it is missing and needed. The schema has to be there."""
    if not any(column.is_large_object for column in columns):
        return

    def make() -> None:
        known = link.execute("SELECT to_regprocedure(quote_ident(%s) || %s)", (schema, f".{_NAME}{_SIGNATURE}"))
        row = known.fetchone()
        if row is None or row[0] is None:
            link.execute(sql.SQL(_FUNCTION).format(name=identifier(schema, _NAME)), NO_PARAMETERS)

    try:
        retrying(pace, f"schema {schema}", make)
    except (psycopg.errors.DuplicateFunction, psycopg.errors.UniqueViolation):
        retrying(pace, f"schema {schema}", make)  # somebody else made it in the same moment


def writer_for(column: Column, schema: str, under: str = NEW) -> Writer:
    """What writes to this column.

    :param schema: the schema of our own objects.
    """
    return _ObjectWriter(column, schema, under) if column.is_large_object else Writer(column, under)


class _ObjectWriter(Writer):
    """Writes to the objects that a column names."""

    def __init__(self, column: Column, schema: str, under: str) -> None:
        super().__init__(column, under)
        self._function = identifier(schema, _NAME)

    @property
    def is_plain(self) -> bool:
        """Never: rows and objects change together."""
        return False

    def _call(self, was: sql.Composable, wanted: sql.Composable) -> sql.Composed:
        return sql.SQL("{}({}, {}, {})").format(self._function, self._cell, was, wanted)

    def _counted(
        self, source: sql.Composable, join: sql.Composable, done: sql.Composable, setting: sql.Composable
    ) -> sql.Composed:
        """The statement that asks ``done`` of each row, and tells how many did it; rows change only where they must."""
        statement = "SELECT count(*) FROM {source} JOIN {table} c ON {join}{chosen} WHERE {done}"
        if self._column.companions:
            statement = (
                "WITH w AS (UPDATE {table} c SET {column} = {cell}{set} FROM {source} WHERE {join}{chosen} AND {done}"
                " RETURNING 1) SELECT count(*) FROM w"
            )
        return sql.SQL(statement).format(
            table=self._table.identifier,
            column=self._column.identifier,
            cell=self._cell,
            set=setting,
            source=source,
            join=join,
            chosen=self._column.chosen,
            done=done,
        )

    def _replace(
        self, link: Link, source: sql.Composable, alias: str, name: str, parameters: Sequence[TextArray]
    ) -> int:
        """With the rows locked first: who is about to give one another object has done so then."""
        join = join_on_key(self._table, alias, is_text=True)
        lock = sql.SQL("SELECT FROM {} JOIN {} c ON {}{} FOR NO KEY UPDATE OF c")
        locked = lock.format(source, self._table.identifier, join, self._column.chosen)
        link.execute(locked, parameters)
        was, wanted = aliased(alias, "o"), aliased(alias, name)
        done = sql.SQL("CASE WHEN {} AND {} <> {} THEN {} ELSE false END").format(
            self._same_cell(alias), was, wanted, self._call(was, wanted)
        )
        row = link.execute(self._counted(source, join, done, self._set()), parameters).fetchone()
        return int(row[0]) if row else 0

    def replace_cells(self, link: Link, rows: Rows, raws: Sequence[bytes]) -> int:
        """Compare-and-swap of encrypted cells; how many were still as read."""
        kind = self._cells.array_sql
        cells = [self._cells.array(rows.raws), self._cells.array(raws)]
        parameters = [*rows.key_arrays, *cells]
        return self._replace(link, self._list([("o", kind), ("n", kind)]), "u", "n", parameters)

    def replace_versions(self, link: Link, rows: Rows, raws: Sequence[bytes]) -> int:
        """Sent by COPY: the version of a row says nothing of its object."""
        self.stage(link, rows, n=raws)
        return self.replace_staged(link, "n")

    def replace_staged(self, link: Link, name: str) -> int:
        """Compare-and-swap by the staged values of this name, where they differ; how many were still as read."""
        return self._replace(link, sql.SQL("pg_temp.keyturn_plain n"), "n", name, [])

    def copy_pairs(self, link: Link, side: Side, rows: Rows, under_new: Sequence[bytes] | None) -> None:
        """Keep cells that are not encrypted, sent by COPY as they were read."""
        self.stage(link, rows, k0=rows.raws, k1=rows.raws if under_new is None else under_new)
        self.put_staged(link, side)

    def swap(self, link: Link, side: Side) -> int:
        """Put into every object what is kept of it under the other key; how many rows that is.

        :raises psycopg.Error: one to try again after, where somebody has written to an object since it was kept.
        """
        truth, other = (sql.SQL("s.{}").format(name) for name in (side.truth_cell, side.other_cell))
        differs = sql.SQL("{} <> {}").format(other, truth)
        done = sql.SQL("CASE WHEN {} THEN {} ELSE {} = {} END").format(
            differs, self._call(truth, other), self._cells.compare(self._cell), truth
        )
        join = join_on_key(self._table, "s", is_text=False)
        source, setting = sql.SQL("{} s").format(side.identifier), self._set(only_where=differs)
        row = link.execute(self._counted(source, join, done, setting), NO_PARAMETERS).fetchone()
        return int(row[0]) if row else 0
