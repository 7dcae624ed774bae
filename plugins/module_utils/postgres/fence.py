# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence: one row per secret, locked in each batch, so that only the run that took it last can write.

The row also says which way the rotation goes, whether it rests, and what was cleared: facts that no column shows.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, transaction
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.private import close_schema, close_table
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.statements import Statement

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["BACK", "FORWARD", "SAME", "Fence", "ensure_schema"]

FORWARD, BACK, SAME = "forward", "back", "same"

_TABLE = """
    CREATE TABLE {fence} (
        name text PRIMARY KEY, rotation text NOT NULL, epoch bigint NOT NULL, token bigint NOT NULL,
        pid integer NOT NULL, backend_start timestamptz NOT NULL, taken_at timestamptz NOT NULL,
        turned_back boolean NOT NULL, in_place boolean NOT NULL, closed boolean NOT NULL, cleared text[] NOT NULL)"""
# A session that has switched to another role does not see when it began, and could end no other one either
_TAKE = """
    INSERT INTO {fence} AS f
    SELECT %(name)s, %(rotation)s, %(epoch)s, 1, pid, coalesce(backend_start, clock_timestamp()), clock_timestamp(),
           %(direction)s::text = 'back', %(in_place)s, false, '{{}}'
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ON CONFLICT (name) DO UPDATE SET
        rotation = excluded.rotation, epoch = excluded.epoch, token = f.token + 1, pid = excluded.pid,
        backend_start = excluded.backend_start, taken_at = excluded.taken_at, closed = false,
        turned_back = CASE WHEN %(direction)s::text = 'same' AND f.rotation = excluded.rotation
                           THEN f.turned_back ELSE excluded.turned_back END,
        in_place = excluded.in_place OR f.in_place AND f.rotation = excluded.rotation,
        cleared = CASE WHEN f.rotation = excluded.rotation
                            AND (%(direction)s::text = 'same' OR f.turned_back = excluded.turned_back)
                       THEN f.cleared ELSE excluded.cleared END
    WHERE f.rotation <> excluded.rotation AND (f.closed OR %(seize)s::boolean AND f.epoch < excluded.epoch)
       OR f.rotation = excluded.rotation AND f.epoch <= excluded.epoch
          AND NOT (%(direction)s::text = 'forward' AND f.turned_back AND f.pid <> 0 AND f.epoch = excluded.epoch)
          AND NOT (%(direction)s::text = 'same' AND f.pid = 0)
    RETURNING token, turned_back, in_place, cleared"""
_FINISH = """
    UPDATE {fence}
    SET token = token + 1, pid = 0, closed = true, turned_back = %s, in_place = false, cleared = '{{}}'
    WHERE name = %s AND token = %s"""
_TERMINATE = """
    SELECT pg_terminate_backend(f.pid) FROM {fence} f
    JOIN pg_stat_activity a ON a.pid = f.pid AND a.backend_start = f.backend_start
    WHERE f.name = %s AND f.pid <> pg_backend_pid()"""
#: No timeout of the server ends a COPY whose client is frozen, or whose host is lost: only the network's, after hours.
_FROZEN_SECONDS = 5
_TERMINATE_FROZEN = """
    SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
    WHERE l.locktype = 'relation' AND l.relation = to_regclass(quote_ident(%s) || '.fence') AND l.granted
      AND a.datname = current_database() AND a.application_name = current_setting('application_name')
      AND a.state = 'active' AND a.wait_event = 'ClientRead'
      AND a.query_start < clock_timestamp() - make_interval(secs => %s) AND a.pid <> pg_backend_pid()"""


def ensure_schema(link: Link, schema: str, pace: Pace) -> None:
    """Make the schema and the fence table where they are missing."""
    fence = identifier(schema, "fence")

    def make() -> None:
        with transaction(link):
            known = link.execute("SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL", (schema,)).fetchone()
            if known is None or not known[0]:
                link.execute(sql.SQL("CREATE SCHEMA {}").format(identifier(schema)), NO_PARAMETERS)
                close_schema(link, schema)
            if not fence_exists(link, schema):
                link.execute(sql.SQL(_TABLE).format(fence=fence), NO_PARAMETERS)
                close_table(link, fence)

    try:
        retrying(pace, f"schema {schema}", make)
    except psycopg.errors.UniqueViolation:  # somebody else made it in the same moment
        retrying(pace, f"schema {schema}", make)


def fence_exists(link: Link, schema: str) -> bool:
    """Whether the fence table is there."""
    query = "SELECT to_regclass(quote_ident(%s) || '.fence') IS NOT NULL"
    row = link.execute(query, (schema,)).fetchone()
    return row is not None and row[0] is True


class Fence:
    """The right of this run to write, for one secret."""

    def __init__(self, schema: str, name: str, rotation: str, epoch: int) -> None:
        self._schema = schema
        self._name = name
        self._rotation = rotation
        self._epoch = epoch
        self._token = 0
        self._former: tuple[Any, ...] | None = None
        self._table = identifier(schema, "fence")
        self._share = Statement(self._hold("SHARE"))
        self.turned_back = False
        self.in_place = False
        self.is_closed = False
        self.is_over = False
        self.went_back = False
        self.is_lost = False
        self.cleared: list[str] = []

    def read(self, link: Link) -> bool:
        """Read the row's facts without taking it; False when it is not this rotation's, or that one is over."""
        row = None
        if fence_exists(link, self._schema):
            query = sql.SQL(
                "SELECT turned_back, in_place, cleared, closed, pid = 0, rotation FROM {} WHERE name = %s"
            ).format(self._table)
            row = link.execute(query, (self._name,)).fetchone()
        self.is_lost = row is None
        if row is not None and row[5] != self._rotation:
            row = None
        self.is_over = row is not None and row[4] is True
        self.went_back = self.is_over and row is not None and row[0] is True
        if row is None or self.is_over:
            return False
        self.turned_back, self.in_place, self.cleared = row[0], row[1], list(row[2])
        self.is_closed = row[3]
        return True

    def take(self, link: Link, direction: str, pace: Pace, in_place: bool = False, seize: bool = False) -> None:
        """Become the only writer; a backend that still works for the former one is ended.

        :param direction: :data:`FORWARD`, :data:`BACK`, or :data:`SAME` for work that goes either way.
        :param in_place: whether rows are re-encrypted where they are; remembered from then on.
        :param seize: whether another rotation need not have ended; epochs grow over all rotations, so the later one
            has the higher.
        :raises KeyturnError: ``fenced`` when a later run, or another rotation, has it.
        """
        values = {
            "name": self._name,
            "rotation": self._rotation,
            "epoch": self._epoch,
            "direction": direction,
            "in_place": in_place,
            "seize": seize,
        }

        former = sql.SQL("SELECT pid, backend_start FROM {} WHERE name = %s").format(self._table)

        def attempt() -> None:
            self._former = link.execute(former, (self._name,)).fetchone()
            try:
                row = link.execute(sql.SQL(_TAKE).format(fence=self._table), values).fetchone()
            except psycopg.errors.LockNotAvailable:
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                    link.execute(sql.SQL(_TERMINATE).format(fence=self._table), (self._name,))
                    link.execute(_TERMINATE_FROZEN, (self._schema, _FROZEN_SECONDS))
                raise
            if row is None:
                raise self._refused(link)
            self._token, self.turned_back, self.in_place, self.cleared = row[0], row[1], row[2], list(row[3])

        retrying(pace, f"fence of {self._name}", attempt)

    def join(self, link: Link) -> bool | None:
        """Write beside the call of this run that has it, as a host that helps; None before it has it, False after.

        :raises KeyturnError: ``fenced`` when a later run has it, or the rotation goes back or is over.
        """
        if not fence_exists(link, self._schema):
            return None
        query = sql.SQL(
            "SELECT token, epoch, turned_back, pid = 0, closed FROM {} WHERE name = %s AND rotation = %s"
        ).format(self._table)
        row = link.execute(query, (self._name, self._rotation)).fetchone()
        if row is None or row[1] < self._epoch:
            return None
        token, epoch, turned_back, is_over, is_closed = row
        if epoch > self._epoch or turned_back or is_over:
            raise self._refused(link)
        self._token = token
        return not is_closed

    @property
    def token(self) -> int:
        """Which taking of the fence this call writes under."""
        return self._token

    def end_former(self, link: Link) -> None:
        """End the session of whoever had the fence before, if it is still there.

        A process that is frozen while it counts has no right to write, but keeps tables from being changed.
        """
        query = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE pid = %s AND backend_start = %s AND pid <> pg_backend_pid()"""
        if self._former is not None:
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                link.execute(query, self._former)

    def _hold(self, how: str) -> sql.Composed:
        query = "SELECT 1 FROM {} WHERE name = %s AND token = %s FOR {}"
        return sql.SQL(query).format(self._table, sql.SQL(how))

    def hold(self, link: Link, strong: bool = False) -> None:
        """Keep the fence until the present transaction ends: shared for a batch, ``strong`` for a change of tables.

        :raises KeyturnError: ``fenced``.
        """
        ran = link.execute(self._hold("UPDATE"), self.parameters) if strong else self._share.run(link, self.parameters)
        if ran.fetchone() is None:
            raise self._refused(link)

    @property
    def condition(self) -> sql.Composable:
        """Holds the fence, shared, as long as the transaction lasts; false once somebody else has it.

        For the WHERE of a statement with a transaction of its own: it is looked at once, before the first row. The
        locks are taken in another order than by :meth:`hold` and an UPDATE after it: first that of the table, which
        whoever changes tables takes after the fence. Both have ``lock_timeout``, and neither runs beside the other.
        """
        return sql.SQL("({}) = 1").format(self._hold("SHARE"))

    @property
    def parameters(self) -> tuple[str, int]:
        """Of :attr:`condition` and :meth:`hold`."""
        return self._name, self._token

    def note_cleared(self, link: Link, place: str) -> None:
        """Remember, in the present transaction, that a column was cleared."""
        query = sql.SQL("UPDATE {} SET cleared = cleared || %s::text WHERE name = %s").format(self._table)
        link.execute(query, (place, self._name))

    def close(self, link: Link) -> None:
        """Say that the rotation rests: another one may begin."""
        query = sql.SQL("UPDATE {} SET closed = true WHERE name = %s AND token = %s").format(self._table)
        link.execute(query, (self._name, self._token))

    def finish(self, link: Link, went_back: bool = False) -> None:
        """Say that the rotation is over. The row stays: a run left behind must find that it came too late.

        :param went_back: whether rows came back, so that those may follow which a host that was lost has written since.
        """
        query = sql.SQL(_FINISH).format(fence=self._table)
        link.execute(query, (went_back, self._name, self._token))

    def _refused(self, link: Link) -> KeyturnError:
        query = sql.SQL("SELECT rotation, epoch, turned_back, pid FROM {} WHERE name = %s").format(self._table)
        row = link.execute(query, (self._name,)).fetchone()
        where = f"fence of {self._name}"
        if row is None or (row[0] == self._rotation and row[3] == 0):
            return KeyturnError("fenced", "this rotation is over", where=where, hint="Look at its evidence")
        rotation, epoch, turned_back = row[:3]
        if rotation != self._rotation:
            hint = (
                "Finish it, roll it back, or clean it up first. Where the status playbook says that it is over, the "
                f"database was restored from the middle of it: delete its row from {self._schema}.fence"
            )
            return KeyturnError("fenced", f"rotation {rotation} is not finished", where=where, hint=hint)
        if epoch <= self._epoch and turned_back:
            hint = "Begin a new rotation once it is over"
            return KeyturnError("fenced", f"rotation {rotation} is going back", where=where, hint=hint)
        hint = "Nothing more was changed by this run. Follow the run that took over"
        return KeyturnError("fenced", f"a later run of rotation {rotation} took over", where=where, hint=hint)
