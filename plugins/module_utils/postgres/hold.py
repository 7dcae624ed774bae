# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``quiesce: writes``: the service's writes wait in the database from the swap until the sweep.

A lock that the guards share is held alone, by a process of its own that outlives the call: the next call, of the next
phase, ends it. It also ends by itself after a time, and with its connection: then writes go on, and are swept.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    is_retryable,
    transaction,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace

try:
    import psycopg
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["hold", "is_held", "release"]

_HELD = b"held"
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


def hold(open_link: Callable[[], Link], fence: Fence, locks: Sequence[int], pace: Pace, seconds: float) -> None:
    """Hold these locks in a process of its own, for so many seconds at most; returns once they are held.

    :param fence: taken by this call. Whoever was overtaken meanwhile lets go at once.
    :raises KeyturnError: ``writes-not-held``.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            if os.fork() == 0:  # nobody's child, so that nobody waits for it
                os.setsid()
                _detach(keep=writing)
                _hold(open_link(), fence, locks, pace, writing, seconds)
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        if pipe.read() == _HELD:
            return
    raise KeyturnError(
        "writes-not-held",
        "the service's writes cannot be held back",
        where="quiesce: writes",
        hint="Look for long transactions of the service, or use quiesce: stop or none; then run again",
    )


def _detach(keep: int) -> None:
    """Let go of all files of the call, its pipes to Ansible first of all."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, min(most, 65536))


def _hold(link: Link, fence: Fence, locks: Sequence[int], pace: Pace, tell: int, seconds: float) -> None:
    link.execute("SET application_name = 'keyturn hold'")
    patience = pace.patience("writers")
    for lock in sorted(set(locks)):
        while True:
            try:
                link.execute("SELECT pg_advisory_lock(%s)", (lock,))
                break
            except psycopg.Error as error:
                if not is_retryable(error):
                    raise
            patience.pause()
    with transaction(link):
        fence.hold(link)
    os.write(tell, _HELD)
    os.close(tell)
    with contextlib.suppress(OSError):
        select.select([link.fileno()], [], [], seconds)  # the server ends the session when the hold is over
