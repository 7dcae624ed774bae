# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parts of one call share, and how a batch meets rows that others hold."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Callable, TypeVar

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.ahead import Ahead
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
    is_retryable,
    transaction,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import (
    BatchSize,
    Pages,
    Patiently,
    Window,
    finer_at_the_end,
    page_ranges,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Key, Rows, Source
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shared_parts import SharedParts, Subject
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import Throttle
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import Writer

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["TABLE_LOCK_MS", "WRITERS", "Later", "Outcome", "Work"]

#: The lock that holds back all who write rows, and nobody else.
WRITERS = "SHARE ROW EXCLUSIVE"
#: For how long a table's lock is asked for, at least.
TABLE_LOCK_MS = 100

_AGAIN = 500  # rows of one second visit
_SET_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, true)"
_MANY = 10_000  # so many rows are visited again by their keys; more than that means another pass


Result = TypeVar("Result")


@dataclass
class Outcome:
    """What became of some rows.

    :param written: rows that were changed or kept anew in a side table.
    :param again: rows to look at again: others held or changed them.
    :param raced: how many of those somebody else had changed.
    :param elsewhere: rows that other hosts look at again.
    """

    seen: int = 0
    written: int = 0
    raced: int = 0
    again: list[Key] = field(default_factory=list)
    elsewhere: int = 0

    def add(self, other: Outcome) -> None:
        """Sum up."""
        self.seen += other.seen
        self.written += other.written
        self.raced += other.raced
        self.again += other.again[: max(0, _MANY + 1 - len(self.again))]
        self.elsewhere += other.elsewhere


#: What is left to do for a batch that is judged and encrypted: only this part of the work uses the connection.
Later = Callable[[], Outcome]
#: Writes rows (those with these keys, or all) in a transaction; returns how many somebody else had changed meanwhile.
Write = Callable[[Link, "frozenset[Key] | None"], int]
#: The same for all rows, in one statement of its own.
AtOnce = Callable[[Link, Fence], int]


@dataclass
class Work:
    """One call's connection(s), fence, pace and sizes, and its counters.

    :param share: where other hosts take parts of the passes too.
    :param sends: see :class:`Ahead`.
    """

    crew: Crew
    fence: Fence
    pace: Pace
    throttle: Throttle
    schema: str
    batch_rows: int
    batch_bytes: int
    lock_ms: int
    rate: float = 0
    share: SharedParts | None = None
    totals: dict[str, int] = field(default_factory=dict)
    written: int = 0
    raced: int = 0
    sends: threading.Event = field(default_factory=threading.Event)
    held_ms: float = 0.0
    waited_ms: float = 0.0

    @property
    def link(self) -> Link:
        """The first connection."""
        return self.crew.first

    def size(self) -> BatchSize:
        """A fresh batch size."""
        return BatchSize(self.batch_rows, self.batch_bytes)

    def write(self, link: Link, target: Target, rows: Rows, work: Write, at_once: AtOnce | None = None) -> Outcome:
        """Run ``work`` on these rows in one fenced transaction; on a lock of somebody else do without those rows.

        :param work: takes the keys that it may write, None for all.
        :param at_once: the same for all rows in one statement, which holds the fence and commits by itself: a fourth
            of the round trips.
        """
        try:
            if at_once is not None:
                self.sends.set()
                raced = at_once(link, self.fence)
            else:
                with transaction(link):
                    self.fence.hold(link)
                    self.sends.set()
                    raced = work(link, None)
        except psycopg.Error as error:
            if not is_retryable(error):
                raise
        else:
            if raced and at_once is not None:  # or somebody else has the fence
                retrying(self.pace, target.place, partial(self._hold_once, link))
            again = rows.keys if raced else []
            return Outcome(len(rows), len(rows) - raced, raced, again)
        keys = frozenset(rows.keys)
        free: frozenset[Key] = frozenset()
        raced = 0
        try:
            with transaction(link):
                self.fence.hold(link)
                free = Writer(target.column).unlocked(link, rows)
                raced = work(link, free) if free else 0
        except psycopg.Error as error:
            if not is_retryable(error):
                raise
            free, raced = frozenset(), 0
        return Outcome(len(rows), len(free) - raced, raced, list(keys if raced else keys - free))

    def _hold_once(self, link: Link) -> None:
        """Make sure that this call still has the fence."""
        with transaction(link):
            self.fence.hold(link)

    def run(
        self, target: Subject, source: Source, work: Callable[[Link, Rows], Later], is_shared: bool = True
    ) -> Outcome:
        """One pass over the rows of a source, then second visits to those that others held or changed.

        :param work: judges and encrypts one batch; what it returns writes it.
        :param is_shared: whether other hosts may do parts of it, where there are any.
        """
        size = self.size().limited(min(self.rate or target.rows_a_second(), target.rows_a_second()))

        def patiently(read: Callable[[], Result]) -> Result:
            return retrying(self.pace, target.place, read)

        def write(link: Link, later: Later, rows: int) -> Outcome:
            done = later()
            self.throttle.hold(link, rows)
            return done

        def held(link: Link, read: Callable[[Patiently], Iterable[Rows]]) -> tuple[int, int, int, list[Key]]:
            done = Outcome()
            with explained(target.place), Ahead(done.add, self.sends, self.crew.workers < 2) as ahead:

                def in_between(fetch: Callable[[], Window]) -> Window:
                    ahead.settle()
                    return patiently(fetch)

                for rows in read(in_between):
                    ahead.put(partial(write, link, work(link, rows), len(rows)))
            return done.seen, done.written, done.raced, done.again

        total = Outcome()
        self.pace.begin(str(target.column.table), target.column.name, self.totals.get(target.place, 0))
        parts = finer_at_the_end(page_ranges(self.link, target.column.table, size.window_rows), self.crew.workers)

        def one(link: Link, pages: Pages) -> tuple[int, int, int, list[Key]]:
            return held(link, partial(source.batches, link, pages, size))

        if self.share is not None and is_shared and (len(parts) > 1 or not self.share.is_lead):
            for plain in self.share.each(self.crew, one, parts, target):
                total.add(Outcome(*plain))
        else:
            for plain in self.crew.each(one, parts):
                total.add(Outcome(*plain))
                self.pace.did(plain[0])
        patience = self.pace.patience(target.place)
        while total.again and len(total.again) <= _MANY and not patience.is_over:
            patience.pause()
            keys, total.again = total.again, []
            for at in range(0, len(keys), _AGAIN):
                rows = patiently(partial(source.by_key, self.link, keys[at : at + _AGAIN]))
                if rows:
                    total.add(Outcome(*held(self.link, partial(_only, rows))))
        self.written += total.written
        self.raced += total.raced
        return total

    def barrier(self, tables: Sequence[Table], mode: str = WRITERS) -> None:
        """Wait until every transaction that could still write under the former key is over.

        The statement of a client that was killed goes on in its backend; its table lock is waited for here.
        """

        def pass_through() -> None:
            with transaction(self.link):
                self.fence.hold(self.link, strong=True)
                self.lock_tables(tables, mode)

        retrying(self.pace, "barrier", pass_through)

    def stop_vacuum(self, tables: Sequence[Table]) -> None:
        """Let an autovacuum of these tables give way; none begins for the rest of the transaction.

        It does so for a lock that is waited for longer than ``deadlock_timeout``. This one holds up nobody else.
        """
        row = self.link.execute("SELECT extract(epoch FROM current_setting('deadlock_timeout')::interval)").fetchone()
        self.link.execute(_SET_LOCK_TIMEOUT, (f"{float(row[0] if row else 1) + 1}s",))
        for table in sorted(set(tables), key=str):
            lock = sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(table.identifier)
            self.link.execute(lock, NO_PARAMETERS)
        self.link.execute(_SET_LOCK_TIMEOUT, (f"{self.lock_ms}ms",))

    def lock_tables(self, tables: Sequence[Table], mode: str = WRITERS) -> None:
        """Hold back writers for the rest of the transaction; tables always in the same order.

        Whoever comes after a lock that is waited for waits behind it, so it is asked for a short time only.

        :param mode: readers go on by default, and wait too with ``ACCESS EXCLUSIVE``.
        """
        self.stop_vacuum(tables)
        self.link.execute(_SET_LOCK_TIMEOUT, (f"{max(self.lock_ms, TABLE_LOCK_MS)}ms",))
        whole_tables(self.link)
        for table in sorted(set(tables), key=str):
            lock = sql.SQL("LOCK TABLE {} IN {} MODE").format(table.identifier, sql.SQL(mode))
            self.link.execute(lock, NO_PARAMETERS)


def _only(rows: Rows, _read: Patiently) -> Iterable[Rows]:
    return [rows]


def rows_behind(place: str, count: int, key: str) -> KeyturnError:
    """The refusal to call a column finished."""
    return KeyturnError(
        "rows-behind",
        f"{count} rows are still, or again, under the {key} key",
        where=place,
        hint="Somebody still writes with it, or has held such a row locked for all of max_wait_s. Restart or stop that "
        "service, or end its long transaction, then run again",
    )
