# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast and how patiently the rotator works, and what it says meanwhile."""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING, Callable, TypeVar

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import write_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import is_retryable
from ansible_collections.keyturn.rotation.plugins.module_utils.processes import start_time

try:
    import psycopg
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Pace", "Patience", "dwindling", "retrying"]

Result = TypeVar("Result")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5


class Pace:
    """Patience and progress of one call.

    :param state: the state that is being made, for the progress file.
    :param max_wait_s: how long a lock is tried for, or rows are chased that others keep writing.
    :param progress_path: where it is written about once a second how far the work on a column is: ``state``, ``table``,
        ``column``, ``done`` of ``total`` rows, ``rate`` (rows a second since it began), ``left_s`` (seconds, None while
        unknown), ``paused``, ``behind`` (it waits for a standby), ``t`` (seconds since 1970), and the process (``pid``,
        ``started``).
    """

    #: Whether a person holds the work back.
    is_paused: Callable[[], bool]
    #: Whether it waits for a standby.
    is_behind: Callable[[], bool]

    def __init__(
        self,
        state: str,
        *,
        max_wait_s: float = 60,
        progress_path: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._max_wait = max_wait_s
        self._path = progress_path
        self.clock = clock
        self._sleep = sleep
        self._wall_clock = wall_clock
        self._process = os.getpid()
        self.is_paused = self.is_behind = lambda: False
        self._began = clock()
        self._last_report = float("-inf")
        self._place = ("", "")
        self._done = self._total = 0

    def begin(self, table: str, column: str, total: int) -> None:
        """The work on a column begins."""
        self._place, self._done, self._total, self._began = (table, column), 0, total, self.clock()
        self._report()

    def expect(self, total: int) -> None:
        """So many rows they are in all."""
        self._total = total
        self._report()

    def tick(self) -> None:
        """Say once a second where the work is, also while it waits; workers that were forked off say nothing."""
        if os.getpid() == self._process and self.clock() - self._last_report >= 1:
            self._report()

    def rest(self, seconds: float) -> None:
        """Wait, and go on saying where the work is."""
        until = self.clock() + seconds
        while (left := until - self.clock()) > 0:
            self._sleep(min(left, 1.0))
            self.tick()

    def did(self, rows: int) -> None:
        """Some rows are done."""
        self._done += rows
        if self.clock() - self._last_report >= 1:
            self._report()

    def _report(self) -> None:
        if self._path is None:
            return
        self._last_report = self.clock()
        seconds = self._last_report - self._began
        rate = self._done / seconds if seconds > 0 else 0.0
        table, column = self._place
        report = {
            "state": self._state,
            "table": table,
            "column": column,
            "done": self._done,
            "total": self._total,
            "rate": round(rate, 1),
            "left_s": round(max(0, self._total - self._done) / rate, 1) if rate and self._total else None,
            "paused": self.is_paused(),
            "behind": self.is_behind(),
            "t": round(self._wall_clock(), 3),
            "pid": self._process,
            "started": start_time(self._process),
        }
        write_file(self._path, json.dumps(report).encode(), 0o600)

    def patience(self, where: str) -> Patience:
        """Time to wait for something, from now."""
        return Patience(self.clock, self._sleep, self._max_wait, where)


class Patience:
    """Short pauses until a time limit."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None], seconds: float, where: str) -> None:
        self._clock = clock
        self._sleep = sleep
        self._until = clock() + seconds
        self._where = where
        self._next = _FIRST_PAUSE

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._clock() >= self._until

    def pause(self) -> None:
        """Wait a little, differently each time, so that two who got in each other's way do not do so again.

        Longer each time too: others who queue behind a lock that is asked for again and again get their turn.

        :raises KeyturnError: ``lock-unavailable`` when the time is up.
        """
        if self.is_over:
            raise KeyturnError(
                "lock-unavailable",
                "other sessions hold locks, or keep writing, for too long",
                where=self._where,
                hint="Look for long transactions, stop the writers, or raise max_wait_s; then run again",
            )
        self._sleep(self._next * (0.1 + 0.9 * random.random()))
        self._next = min(_LONGEST_PAUSE, 1.5 * self._next)


def dwindling(pace: Pace, where: str, left: Callable[[], int]) -> int:
    """Call ``left`` again while it leaves less than ever, however long that takes; otherwise for the longest wait.

    :returns: what is left at last.
    """
    least, patience = left(), pace.patience(where)
    while least:
        now = left()
        if now < least:
            least, patience = now, pace.patience(where)
        elif patience.is_over:
            return now
    return 0


def retrying(pace: Pace, where: str, work: Callable[[], Result]) -> Result:
    """The result of ``work``, tried again after lock timeouts, deadlocks and serialization conflicts.

    :raises KeyturnError: ``lock-unavailable``.
    """
    patience = pace.patience(where)
    while True:
        try:
            return work()
        except psycopg.Error as error:
            if not is_retryable(error):
                raise
        except KeyturnError as error:  # what a worker makes of the same
            if error.code != "lock-unavailable":
                raise
        patience.pause()
