# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A background process with a pid file: started once, stopped once, however often it is asked for.

The process holds a lock on its pid file as long as it lives, so a stale file or a reused pid deceives nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["DaemonError", "PidFile", "start", "stop"]

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_READY = b"ready"


class DaemonError(RuntimeError):
    """A process that did not start or did not stop."""


class PidFile:
    """The lock that a running process holds, and its pid."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_lock(self) -> bool:
        """Take the lock, unless a running process holds it."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.ftruncate(self._handle, 0)
        return True

    def write(self) -> None:
        """Note this process's pid; the lock is held."""
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def read(self) -> int | None:
        """The pid of the process that holds the lock, once it has noted it."""
        text = os.pread(self._handle, 32, 0)
        return int(text) if text.endswith(b"\n") else None

    def close(self) -> None:
        """Let go of the file, and of the lock unless a child process has it too."""
        os.close(self._handle)


def _detach(log: Path) -> None:
    """Leave the caller's folder, terminal and streams."""
    os.chdir("/")
    os.umask(0o077)
    sources = (os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    for source, targets in zip(sources, ((0,), (1, 2))):
        for target in targets:
            os.dup2(source, target)
        os.close(source)


def _run_detached(pid_file: PidFile, log: Path, run: Callable[[Callable[[], None]], None], report: int) -> None:
    """The life of the background process; does not return."""
    code = 1
    try:
        _detach(log)
        pid_file.write()

        def ready() -> None:
            os.write(report, _READY)
            os.close(report)

        run(ready)
        code = 0
    except DaemonError as error:
        with contextlib.suppress(OSError):
            os.write(report, str(error).encode())
    except BaseException as error:
        # Its text may carry a value, so only its type is told.
        with contextlib.suppress(OSError):
            os.write(report, type(error).__name__.encode())
        sys.stderr.write(f"ended by {type(error).__name__}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(path: Path, log: Path, run: Callable[[Callable[[], None]], None], listening: Callable[[], bool]) -> bool:
    """Run ``run(ready)`` in the background and return when it has called ``ready``.

    :param path: the pid file.
    :param listening: whether the process that already holds the pid file is of use.
    :returns: whether it was started; false when it was running.
    :raises DaemonError: when it ended before it was ready, or the one that runs is of no use.
    """
    pid_file = PidFile(path)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not pid_file.try_lock():
            if listening():
                return False
            if time.monotonic() > deadline:
                raise DaemonError(f"{path}: the process that holds this file does not listen")
            time.sleep(0.02)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.setsid()
            if os.fork() > 0:
                os._exit(0)
            _run_detached(pid_file, log, run, writer)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as stream:
            told = stream.read()
    finally:
        pid_file.close()
    if told != _READY:
        raise DaemonError(f"it did not start: {told.decode() or 'it ended at once'}; see {log}")
    return True


def stop(path: Path, seconds: float = _STOP_SECONDS) -> bool:
    """Ask the process to end and wait until it is gone.

    :returns: whether one was running.
    :raises DaemonError: when it does not end in time.
    """
    if not path.exists():
        return False
    pid_file = PidFile(path)
    try:
        deadline = time.monotonic() + seconds
        asked: int | None = None
        while not pid_file.try_lock():
            pid = pid_file.read()
            if pid is not None and pid != asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                asked = pid
            if time.monotonic() > deadline:
                raise DaemonError(f"{path}: the process does not end")
            time.sleep(0.01)
    finally:
        pid_file.close()
    return asked is not None
