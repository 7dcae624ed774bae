# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a pass as rows in the database, where processes of several hosts take them.

A part is claimed by an advisory lock of the claiming session, and done once its row says so. So the end of a process,
a host or a connection gives its part back, without a timeout, and no transaction stays open meanwhile: an open one
would keep dead row versions from being pruned. A part may be done twice without harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Protocol

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, transaction
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import Pages
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import Throttle

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Pass", "SharedParts", "Subject", "forget_parts"]

_LOOK_SECONDS = 0.2
#: So long nothing may come of parts that others have, before the host that leads does them as well: a process that is
#: frozen keeps its session.
_SILENT_SECONDS = 15.0

_TABLE = """
    CREATE TABLE {parts} (
        name text NOT NULL, token bigint NOT NULL, pass integer NOT NULL, number integer NOT NULL,
        place text NOT NULL, prefer text NOT NULL,
        table_schema text NOT NULL, table_name text NOT NULL, first_page bigint NOT NULL, end_page bigint NOT NULL,
        has_toast boolean NOT NULL, done_by text, seen bigint NOT NULL DEFAULT 0, written bigint NOT NULL DEFAULT 0,
        raced bigint NOT NULL DEFAULT 0, again bigint NOT NULL DEFAULT 0, PRIMARY KEY (name, number))"""
_DEAL = """
    INSERT INTO {parts} (name, token, pass, place, prefer, number, table_schema, table_name, first_page, end_page,
                         has_toast)
    SELECT %s, %s, %s, %s, %s, ordinality, s, n, f, e, h
    FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::boolean[]) WITH ORDINALITY
         u(s, n, f, e, h, ordinality)"""
_OURS = "name = %s AND token = %s AND pass = %s"
_LEFT = """
    SELECT number, table_schema, table_name, first_page, end_page, has_toast FROM {parts}
    WHERE {ours} AND done_by IS NULL AND number >= %s ORDER BY number LIMIT 200"""
_IS_LEFT = "SELECT 1 FROM {parts} WHERE {ours} AND number = %s AND done_by IS NULL"
_DONE = """
    UPDATE {parts} SET done_by = %s, seen = %s, written = %s, raced = %s, again = %s
    WHERE {ours} AND number = %s AND done_by IS NULL"""
_SUMS = """
    SELECT done_by, count(*), sum(seen), sum(written), sum(raced), sum(again) FROM {parts}
    WHERE {ours} AND done_by IS NOT NULL GROUP BY done_by"""
_NEXT = """
    SELECT token, pass, place, prefer FROM {parts} WHERE name = %s AND token = %s AND done_by IS NULL
    ORDER BY number LIMIT 1"""
_LED = """
    SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (classid::bigint << 32 | objid::bigint) = %s"""


class Subject(Protocol):
    """What a pass is over."""

    @property
    def column(self) -> Column:
        """The column whose cells change."""

    @property
    def place(self) -> str:
        """How messages call it."""

    @property
    def prefer(self) -> str:
        """What a cell that is of two classes counts as."""

    def rows_a_second(self) -> float:
        """How many rows one process does in a second, about."""


class Pass(NamedTuple):
    """One pass over one column.

    :param prefer: what a cell that opens under both keys counts as.
    """

    token: int
    number: int
    place: str
    prefer: str


class _Part(NamedTuple):
    number: int
    pages: Pages
    lock: int


def _lock_number(*words: object) -> int:
    """The number of an advisory lock."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "big", signed=True)


def _exists(link: Link, schema: str) -> bool:
    row = link.execute("SELECT to_regclass(quote_ident(%s) || '.parts') IS NOT NULL", (schema,)).fetchone()
    return row is not None and row[0] is True


def forget_parts(link: Link, schema: str, name: str) -> None:
    """Remove what a call that was killed has left."""
    if _exists(link, schema):
        link.execute(sql.SQL("DELETE FROM {} WHERE name = %s").format(identifier(schema, "parts")), (name,))


class SharedParts:
    """The parts of the passes of one call, on the host that leads or on one that helps.

    :param run: the rotation and its epoch.
    :param host: how this host is called.
    :param is_lead: whether this host deals out the parts; it ends a pass only once all are done.
    :param is_wanted: whether a host that helps is still to do so.
    """

    def __init__(
        self,
        schema: str,
        name: str,
        run: tuple[str, int],
        *,
        fence: Fence,
        pace: Pace,
        throttle: Throttle,
        host: str,
        is_lead: bool,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.is_lead = is_lead
        self._schema, self._name, self._run = schema, name, run
        self._fence, self._pace, self._throttle = fence, pace, throttle
        self._host = host
        self._is_wanted = is_wanted
        self._parts = identifier(schema, "parts")
        self._pass = Pass(0, 0, "", "")
        self._process = os.getpid()
        self._told_at = float("-inf")
        self._told = 0
        self._helped: dict[str, list[int]] = {}

    @property
    def helped(self) -> list[dict[str, Any]]:
        """How many parts each host has done, and how many rows it has written."""
        return [
            {"host": host, "parts": parts, "rows_written": rows} for host, (parts, rows) in sorted(self._helped.items())
        ]

    # -- who leads -----------------------------------------------------------------------------------------------

    @property
    def _lead_lock(self) -> int:
        return _lock_number(self._schema, self._name, *self._run, "lead")

    def announce(self, link: Link) -> None:
        """Let hosts that help see that one leads, for as long as this connection lives."""
        link.execute("SELECT pg_try_advisory_lock(%s)", (self._lead_lock,))

    def wait(self, link: Link, longest_s: float) -> Pass | None:
        """The next pass that has parts left; None when there will be none.

        :param longest_s: how long to wait for a host that leads.
        :raises KeyturnError: ``fenced`` when a later run took over; ``stopped``.
        """
        waited, was_led = 0.0, False
        while self._is_wanted():
            has_begun = self._fence.join(link)
            if has_begun and _exists(link, self._schema):
                row = link.execute(self._sql(_NEXT), (self._name, self._fence.token)).fetchone()
                if row is not None:
                    self._pass = Pass(*row)
                    return self._pass
            is_led = link.execute(_LED, (self._lead_lock,)).fetchone() is not None  # after the other look
            if ((was_led or has_begun is not None) and not is_led) or waited > longest_s:
                return None
            was_led = was_led or is_led
            self._rest(link)
            waited += _LOOK_SECONDS
        return None

    # -- parts ---------------------------------------------------------------------------------------------------

    def each(
        self, crew: Crew, work: Callable[[Link, Pages], tuple[Any, ...]], parts: Sequence[Pages], target: Subject
    ) -> Iterator[tuple[Any, ...]]:
        """Do parts with this host's workers until none is left.

        The host that leads yields what all hosts have done, last of all with the number of rows that others still have
        to look at again; one that helps what it has done itself.
        """
        link = crew.first
        if self.is_lead:
            self._deal(link, parts, target)
        self._told = 0
        again = 0
        idle, crew.idle = crew.idle, lambda: self._tell(link)
        try:
            workers = list(range(min(crew.workers, len(parts)) or 1))
            for plain in crew.each(lambda worker, number: self._toil(worker, work, link, number), workers):
                again += len(plain[3])
                yield (0, 0, 0, plain[3]) if self.is_lead else plain
        finally:
            crew.idle = idle
        self._told_at = float("-inf")
        self._tell(link)
        if self.is_lead:
            yield self._sum_up(link, again)

    def _deal(self, link: Link, parts: Sequence[Pages], target: Subject) -> None:
        """Write the parts of a new pass in the place of the one before."""
        self._pass = Pass(self._fence.token, self._pass.number + 1, target.place, target.prefer)
        columns = [list(column) for column in zip(*parts)]

        def attempt() -> None:
            with transaction(link):
                self._fence.hold(link)
                if not _exists(link, self._schema):
                    link.execute(self._sql(_TABLE), NO_PARAMETERS)
                link.execute(self._sql("DELETE FROM {parts} WHERE name = %s"), (self._name,))
                header = (self._name, *self._ours[1:], target.place, target.prefer)
                link.execute(self._sql(_DEAL), (*header, *columns))

        try:
            retrying(self._pace, "parts", attempt)
        except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):  # another secret's run has just made it
            retrying(self._pace, "parts", attempt)

    def _toil(
        self, link: Link, work: Callable[[Link, Pages], tuple[Any, ...]], first: Link, _number: int
    ) -> tuple[Any, ...]:
        """One worker: part after part; where others have all that is left, until these are done or given back."""
        seen = written = raced = start = level = 0
        again: list[Any] = []
        waited, before = 0.0, 0
        while self._goes_on():
            left = self._left(link, start)
            if not left:
                break
            start = left[0].number
            part = self._claim(link, left, level)
            if part is None:
                waited, before = (waited, before) if len(left) == before else (0.0, len(left))
                if self.is_lead and waited >= _SILENT_SECONDS:
                    level, waited = level + 1, 0.0
                self._rest(link)
                waited += _LOOK_SECONDS
            else:
                plain = work(link, part.pages)
                self._note(link, part, plain)
                seen, written, raced = seen + plain[0], written + plain[1], raced + plain[2]
                again += plain[3]
            if os.getpid() == self._process:
                self._tell(first)
        return seen, written, raced, again

    def _goes_on(self) -> bool:
        """Whether this call is still there, and wanted."""
        return self._process in (os.getpid(), os.getppid()) and self._is_wanted()

    def _left(self, link: Link, start: int) -> list[_Part]:
        """Parts that are not done, those with the lowest numbers."""
        rows = link.execute(self._sql(_LEFT), (*self._ours, start)).fetchall()
        return [_Part(row[0], Pages(*row[1:]), 0) for row in rows]

    def _claim(self, link: Link, left: Sequence[_Part], level: int) -> _Part | None:
        """One of these that nobody has; it is this session's until it is noted.

        :param level: grows where those who have parts say nothing: then somebody else may have them as well.
        """
        for part in left:
            lock = _lock_number(self._schema, *self._ours, part.number, level)
            row = link.execute("SELECT pg_try_advisory_lock(%s)", (lock,)).fetchone()
            if row and row[0]:
                if link.execute(self._sql(_IS_LEFT), (*self._ours, part.number)).fetchone():
                    return part._replace(lock=lock)
                self._give_back(link, lock)  # done in this moment
        return None

    def _note(self, link: Link, part: _Part, plain: tuple[Any, ...]) -> None:
        """Say that a part is done."""
        link.execute(self._sql(_DONE), (self._host, *plain[:3], len(plain[3]), *self._ours, part.number))
        self._give_back(link, part.lock)

    @staticmethod
    def _give_back(link: Link, lock: int) -> None:
        link.execute("SELECT pg_advisory_unlock(%s)", (lock,))

    # -- what is said --------------------------------------------------------------------------------------------

    @property
    def _ours(self) -> tuple[str, int, int]:
        return (self._name, self._pass.token, self._pass.number)

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(parts=self._parts, ours=sql.SQL(_OURS))

    def _rest(self, link: Link) -> None:
        self._throttle.hold(link, 0)
        self._pace.rest(_LOOK_SECONDS)

    def _tell(self, link: Link) -> None:
        """Say about once a second how many rows are done: by all hosts, or by this one where it helps."""
        now = self._pace.clock()
        if now - self._told_at >= 1:
            self._told_at = now
            sums = link.execute(self._sql(_SUMS), self._ours).fetchall()
            done = sum(int(row[2]) for row in sums if self.is_lead or row[0] == self._host)
            self._told, news = max(done, self._told), max(0, done - self._told)
            self._pace.did(news)
        self._pace.tick()

    def _sum_up(self, link: Link, own_again: int) -> tuple[Any, ...]:
        """What all hosts have done in this pass, which is over."""
        totals = [0, 0, 0, 0]
        for host, parts, *sums in link.execute(self._sql(_SUMS), self._ours).fetchall():
            known = self._helped.setdefault(host, [0, 0])
            known[0] += parts
            known[1] += int(sums[1])
            totals = [total + int(more) for total, more in zip(totals, sums)]
        with contextlib.suppress(psycopg.errors.LockNotAvailable):  # the next pass does it
            link.execute(self._sql("DELETE FROM {parts} WHERE name = %s AND token = %s"), self._ours[:2])
        return (*totals[:3], [], max(0, totals[3] - own_again))
