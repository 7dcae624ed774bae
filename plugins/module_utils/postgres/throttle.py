# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a live database calm: so many rows a second, standbys that keep up, and a person's hand on the tap.

The hand is a file beside the progress file: ``{"do": "run" | "pause" | "stop", "rate": rows a second}``. The playbook
``pace`` writes it; every worker looks at it twice a second, between two batches, when it holds nothing.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import time
from typing import Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, explained

__all__ = ["Throttle", "control_path"]

_LOOK_SECONDS = 0.5
_LAG_SECONDS = 0.25
#: For how long it counts as waiting after it has found a standby behind.
_BEHIND_SECONDS = 2.0
#: Of others that read WAL (a base backup, an archive) no replay is known; a state is, to a role that may see it.
_LAG = """
    SELECT count(*), count(state), coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)::bigint
    FROM pg_stat_replication"""


def control_path(progress_path: str) -> str:
    """The control file that belongs to a progress file."""
    head, tail = os.path.split(progress_path)
    return os.path.join(head, tail.replace("progress-", "pace-", 1))


class Throttle:
    """Holds a worker back between two batches.

    :param rate: rows a second of one worker, 0 for no limit.
    :param workers: how many share what the control file says.
    :param max_lag: bytes of WAL that a standby may be behind, 0 for no limit.
    :param control: the control file.
    """

    def __init__(
        self,
        *,
        rate: float = 0,
        workers: int = 1,
        max_lag: int = 0,
        control: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = self._asked = rate / workers
        self._workers = workers
        self._max_lag = max_lag
        self._control = control
        self._clock, self._sleep = clock, sleep
        self._next_row = clock()
        self._looked = self._measured = float("-inf")
        self._behind = mmap.mmap(-1, 8)  # when a standby was behind last; seen by the process that the workers left
        struct.pack_into("d", self._behind, 0, float("-inf"))

    @property
    def is_paused(self) -> bool:
        """Whether a person asked for a pause."""
        return self._read()[0] == "pause"

    @property
    def waits_for_standby(self) -> bool:
        """Whether a worker waits for a standby that is too far behind."""
        last: float = struct.unpack_from("d", self._behind)[0]
        return self._clock() - last < _BEHIND_SECONDS

    def hold(self, link: Link, rows: int) -> None:
        """Wait as long as it takes after so many rows.

        :raises KeyturnError: ``stopped`` when a person asked for it; ``lag-unknown``.
        """
        self._obey()
        self._let_standbys_catch_up(link)
        if self._rate:
            self._next_row = max(self._next_row, self._clock()) + rows / self._rate
            self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        """A batch may be worth minutes at a low rate: the hand on the tap is looked at meanwhile."""
        while (left := self._next_row - self._clock()) > 0:
            self._sleep(min(left, _LOOK_SECONDS))
            rate = self._rate
            self._obey()
            if self._rate != rate:
                left = max(0.0, self._next_row - self._clock())
                self._next_row = self._clock() + (left * rate / self._rate if self._rate else 0.0)

    def _read(self) -> tuple[str, float]:
        if self._control is None:
            return "run", self._asked
        try:
            with open(self._control, encoding="utf-8") as file:
                content = json.load(file)
            rate = content.get("rate")
            return str(content.get("do", "run")), self._asked if rate is None else float(rate) / self._workers
        except (OSError, ValueError, TypeError, AttributeError):
            return "run", self._asked

    def _obey(self) -> None:
        if self._control is None or self._clock() - self._looked < _LOOK_SECONDS:
            return
        while True:
            self._looked = self._clock()
            do, self._rate = self._read()
            if do == "stop":
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._control)
                raise KeyturnError(
                    "stopped", "stopped as asked", where="", hint="Run again: it goes on where it stopped"
                )
            if do != "pause":
                return
            self._sleep(_LOOK_SECONDS)

    def _let_standbys_catch_up(self, link: Link) -> None:
        if not self._max_lag or self._clock() - self._measured < _LAG_SECONDS:
            return
        while True:
            with explained("pg_stat_replication"):
                row = link.execute(_LAG).fetchone() or (0, 0, 0)
            self._measured = self._clock()
            if row[0] and not row[1]:
                raise KeyturnError(
                    "lag-unknown",
                    "this role cannot see how far the standbys are behind",
                    where="max_lag",
                    hint="GRANT pg_monitor to it, or leave max_lag away",
                )
            if row[2] <= self._max_lag:
                return
            struct.pack_into("d", self._behind, 0, self._measured)
            self._obey()
            self._sleep(_LAG_SECONDS)
