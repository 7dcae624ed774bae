# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The statement that writes one batch: former values are kept, signature, kid, version and stamps change, or nothing.

A row is written only while it is the very version that was read (``xmin`` and ``ctid``): an edit of the document, of
its status or of anything else in between is never overwritten. Rows that somebody holds are left for later.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.declared import Documents
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.judge import Signed
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.kept import Kept, check_kept, digest
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.rows import DocumentRows
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import TextArray
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    is_retryable,
    raw_cursor,
    transaction,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import aliased, identifier, literal
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import (
    Key,
    join_on_key,
    key_names,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Outcome
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import VERSION

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Writer"]


_UNIQUE = "23505"


def _joined(parts: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)


class Writer:
    """Writes signed documents to one table.

    :param kept: where former values go; None on the way back, where nothing is kept.
    """

    def __init__(self, one: Documents, kept: Kept | None, fence: Fence, rotation: str) -> None:
        self._one, self._kept, self._fence, self._rotation = one, kept, fence, rotation
        self._names = [identifier(name) for name in key_names(one.table)]
        self._text = b""

    def write(self, link: Link, rows: DocumentRows, signed: Signed) -> Outcome:
        """Write one batch in one fenced transaction."""
        chosen = rows.pick(signed.places)
        try:
            with transaction(link):
                # versions are counted over rows of others: one of us at a time
                self._fence.hold(link, strong=bool(self._one.version_per))
                done = self._run(link, chosen, signed)
        except psycopg.Error as error:
            if not is_retryable(error) and error.sqlstate != _UNIQUE:
                raise
            return Outcome(len(rows), 0, 0, chosen.keys)  # somebody has taken the same version: with the next one
        again = [key for key in chosen.keys if key not in done]
        return Outcome(len(rows), len(done), len(again), again)

    def _run(self, link: Link, rows: DocumentRows, signed: Signed) -> frozenset[Key]:
        if self._one.version_per:
            whole_tables(link)
        if not self._text:
            self._text = self._query.as_bytes(link)
        arrays = [TextArray(values) for values in (*rows.versions, signed.signatures, signed.kids)]
        cursor = raw_cursor(link)
        cursor.execute(self._text, [*rows.key_arrays, *arrays], prepare=True)
        found = cursor.fetchall()
        check_kept(self._one, all(row[-1] for row in found))
        return frozenset(row[:-1] for row in found)

    # -- the statement -------------------------------------------------------------------------------------------

    @cached_property
    def _query(self) -> sql.Composed:
        one, table = self._one, self._one.table
        back = [sql.SQL("o.b{}").format(sql.SQL(str(at))) for at in range(len(one.changed))]
        returned = [
            *(sql.SQL("o.{}").format(name) for name in self._names),
            *back,
            sql.SQL("{} AS after").format(digest(one)),
            sql.SQL("{}::text = o.n AS kept").format(aliased("c", one.column.name)),
        ]
        query = sql.SQL(
            "WITH r AS MATERIALIZED ({read}), o AS MATERIALIZED ({numbered}),"
            " w AS (UPDATE {table} c SET {changes} FROM o WHERE {join} RETURNING {returned}){keep}"
            " SELECT {keys}, kept FROM w"
        )
        return query.format(
            read=self._read,
            numbered=self._numbered,
            table=table.identifier,
            changes=_joined(self._changes),
            join=join_on_key(table, "o", is_text=False),
            returned=_joined(returned),
            keep=self._keep,
            keys=_joined([sql.SQL("w.{}::text").format(name) for name in self._names]),
        )

    @property
    def _read(self) -> sql.Composable:
        """The rows that are still as they were read, locked, with their former values."""
        one, table = self._one, self._one.table
        kinds = [part.array_sql for part in table.key] + [sql.SQL("text[]")] * 4
        listed = sql.SQL("unnest({}) u({})").format(
            _joined([sql.SQL("%s::{}").format(kind) for kind in kinds]),
            _joined([*self._names, *(sql.SQL(name) for name in "xvnk")]),
        )
        fields = [
            *(sql.SQL("{} {}").format(aliased("c", part.name), name) for part, name in zip(table.key, self._names)),
            *(
                sql.SQL("{} b{}").format(aliased("c", field.name), sql.SQL(str(at)))
                for at, field in enumerate(one.changed)
            ),
            *(
                sql.SQL("{} g{}").format(aliased("c", name), sql.SQL(str(at)))
                for at, name in enumerate(one.version_per)
            ),
            sql.SQL("u.n"),
            sql.SQL("u.k"),
        ]
        return sql.SQL("SELECT {} FROM {} JOIN {} c ON {} WHERE {}{} FOR NO KEY UPDATE OF c SKIP LOCKED").format(
            _joined(fields),
            listed,
            table.identifier,
            join_on_key(table, "u", is_text=True),
            sql.SQL(VERSION),
            one.column.chosen,
        )

    @property
    def _numbered(self) -> sql.Composable:
        """With the next version of each, where rows that are alike share one count."""
        one = self._one
        if not one.version_per or one.version is None:
            return sql.SQL("SELECT r.* FROM r")
        groups = range(len(one.version_per))
        theirs = _joined([aliased("x", name) for name in one.version_per])
        ours = _joined([sql.SQL("g{}").format(sql.SQL(str(at))) for at in groups])
        same = sql.SQL(" AND ").join([sql.SQL("m.g{0} = r.g{0}").format(sql.SQL(str(at))) for at in groups])
        own = sql.SQL("r.b{}").format(sql.SQL(str(one.changed.index(one.version))))
        named = _joined(
            [sql.SQL("{} g{}").format(aliased("x", name), sql.SQL(str(at))) for at, name in enumerate(one.version_per)]
        )
        return sql.SQL(
            "SELECT r.*, greatest(m.top, {own}, 0) + row_number() OVER (PARTITION BY {per} ORDER BY {own}, {keys}) next"
            " FROM r LEFT JOIN (SELECT {named}, max({version}) top FROM {table} x"
            " WHERE ({theirs}) IN (SELECT {ours} FROM r) GROUP BY {theirs}) m ON {same}"
        ).format(
            own=own,
            per=_joined([sql.SQL("r.g{}").format(sql.SQL(str(at))) for at in groups]),
            keys=_joined([sql.SQL("r.{}").format(name) for name in self._names]),
            named=named,
            version=aliased("x", one.version.name),
            table=one.table.identifier,
            theirs=theirs,
            ours=ours,
            same=same,
        )

    @property
    def _changes(self) -> list[sql.Composable]:
        one = self._one
        values: dict[str, sql.Composable] = {one.column.name: sql.SQL("o.n")}
        if one.kid is not None:
            values[one.kid.name] = sql.SQL("o.k::{}").format(one.kid.declaration)
        if one.version is not None:
            own = aliased("c", one.version.name)
            values[one.version.name] = sql.SQL("o.next" if one.version_per else "coalesce({}, 0) + 1").format(own)
        if one.stamp_rotation is not None:
            text = literal(self._rotation)
            values[one.stamp_rotation.name] = sql.SQL("{}::{}").format(text, one.stamp_rotation.declaration)
        if one.stamp_at is not None:
            values[one.stamp_at.name] = sql.SQL("clock_timestamp()")
        if one.stamp_count is not None:
            values[one.stamp_count.name] = sql.SQL("coalesce({}, 0) + 1").format(aliased("c", one.stamp_count.name))
        return [sql.SQL("{} = {}").format(identifier(name), value) for name, value in values.items()]

    @property
    def _keep(self) -> sql.Composable:
        """The former values, in the same statement; those of a row that was signed before are replaced."""
        if self._kept is None:
            return sql.SQL("")
        values = [identifier(name) for name in self._kept.values]
        again = [sql.SQL("{0} = excluded.{0}").format(name) for name in (*values, sql.SQL("after"))]
        names = _joined([*self._names, *values])
        return sql.SQL(
            ", s AS (INSERT INTO {side} ({names}, after) SELECT {names}, after FROM w"
            " ON CONFLICT ({keys}) DO UPDATE SET {again})"
        ).format(
            side=self._kept.identifier,
            names=names,
            keys=_joined(self._names),
            again=_joined(again),
        )
