# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``quiesce: writes``: the service's writes wait in the database from the swap until the sweep.

A lock that writers share (see ``guard`` and ``gate``) is held alone, by a process of its own that outlives the call:
the next call, of the next phase, ends it. It also ends by itself after a time, and with its connection: then writes go
on, and are swept.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    is_retryable,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace

try:
    import psycopg
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Hold", "is_held", "release"]

_READY, _TAKE, _HELD, _KEEP = b"r", b"t", b"h", b"k"
_UNDECIDED = 15  # seconds: then a process that holds locks for a call that neither keeps them nor ends lets go
#: Sessions that hold one of these locks alone, or wait to.
_HOLDERS = """
    FROM pg_locks l WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32 | l.objid::bigint) = ANY (%s) AND l.pid <> pg_backend_pid()"""


def is_held(link: Link, locks: Sequence[int]) -> bool:
    """Whether somebody holds all these locks."""
    row = link.execute("SELECT count(DISTINCT l.objid) " + _HOLDERS + " AND l.granted", (list(locks),)).fetchone()
    return row is not None and row[0] == len(set(locks))


def release(link: Link, locks: Sequence[int], pace: Pace) -> None:
    """End whoever holds one of these locks."""
    patience = pace.patience("the session that holds back writes")
    while link.execute("SELECT pg_terminate_backend(l.pid) " + _HOLDERS, (list(locks),)).fetchall():
        patience.pause()


class Hold:
    """A process that holds locks; with no locks it does nothing.

    It takes them within the transaction that swaps the rows, where nobody else can write, so that no write lies between
    the swap and the hold. If that transaction fails, or the call is killed before it is known that it did not, the
    process lets go.

    :param seconds: how long it holds them at most.
    """

    def __init__(self, open_link: Callable[[], Link], locks: Sequence[int], pace: Pace, seconds: float) -> None:
        self._open_link, self._locks, self._pace, self._seconds = open_link, sorted(set(locks)), pace, seconds
        self._process: socket.socket | None = None
        self._has_taken = False

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self._part()

    @property
    def is_wanted(self) -> bool:
        """Whether there are locks to be held."""
        return bool(self._locks)

    def start(self) -> None:
        """Start the process: the locks can then be taken within a millisecond."""
        if self._process is not None or not self._locks:
            return
        self._process, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            try:
                self._process.close()
                if os.fork() == 0:  # nobody's child, so that nobody waits for it
                    os.setsid()
                    _detach(keep=theirs.fileno())
                    self._serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        os.waitpid(child, 0)
        self._hear(_READY)

    def take(self) -> None:
        """Return once the locks are held.

        :raises KeyturnError: ``writes-not-held``.
        """
        self.start()
        if self._process is not None:
            self._has_taken = True
            with contextlib.suppress(OSError):
                self._process.sendall(_TAKE)
            self._hear(_HELD)

    def keep(self) -> None:
        """Let the process hold them without this call."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.sendall(_KEEP)
        self._part()

    def give_back(self) -> None:
        """Let go of the locks where they were taken."""
        if self._has_taken:
            self._part()

    def _part(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process, self._has_taken = None, False

    def _hear(self, expected: bytes) -> None:
        said = b""
        with contextlib.suppress(OSError):
            said = self._process.recv(1) if self._process is not None else b""
        if said != expected:
            raise KeyturnError(
                "writes-not-held",
                "the service's writes cannot be held back",
                where="quiesce: writes",
                hint="Look for long transactions of the service, or use quiesce: stop or none; then run again",
            )

    # -- in the process ------------------------------------------------------------------------------------------

    def _serve(self, call: socket.socket) -> None:
        link = self._open_link()
        call.sendall(_READY)
        if call.recv(1) != _TAKE:
            return
        self._take_all(link)
        call.sendall(_HELD)
        call.settimeout(_UNDECIDED)
        if call.recv(1) == _KEEP:
            call.close()
            select.select([link.fileno()], [], [], self._seconds)  # the server ends the session when the hold is over

    def _take_all(self, link: Link) -> None:
        """All or none: who waits for one of them may have another."""
        link.execute("SET application_name = 'keyturn hold'")
        patience = self._pace.patience("writers")
        while True:
            try:
                for lock in self._locks:
                    link.execute("SELECT pg_advisory_lock(%s)", (lock,))
                return
            except psycopg.Error as error:
                if not is_retryable(error):
                    raise
            link.execute("SELECT pg_advisory_unlock_all()")
            patience.pause()


def _detach(keep: int) -> None:
    """Let go of all files of the call, its pipes to Ansible first of all."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, min(most, 65536))
