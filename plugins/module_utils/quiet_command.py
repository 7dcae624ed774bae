# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the user's. What they print may hold a value: it is thrown away, or read and shown nowhere."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Ending", "run_quietly", "run_reading"]

_LONGEST = 1 << 20
_AFTER_KILL = 5.0  # seconds


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    :param code: the exit code; None when it did not end by itself.
    :param reason: why there is no code.
    :param late: whether it was killed because its time was over.
    """

    code: int | None
    reason: str = ""
    late: bool = False


def run_quietly(argv: Sequence[str], timeout: float | None, value: bytes | None = None) -> Ending:
    """Run a command without a shell, with ``value`` on its standard input, for at most ``timeout`` seconds.

    None is as long as it takes. A command that does not end in time is killed with everything it started. What it
    prints is not read.
    """
    return _run(argv, timeout, value, subprocess.DEVNULL)[0]


def run_reading(argv: Sequence[str], timeout: float, value: bytes | None = None) -> tuple[Ending, bytes]:
    """The same, with what it printed to its standard output: at most 1 MiB, more counts as a failure."""
    ending, printed = _run(argv, timeout, value, subprocess.PIPE)
    if len(printed) > _LONGEST:
        return Ending(None, "it printed more than 1 MiB"), b""
    return ending, printed


def _run(argv: Sequence[str], timeout: float | None, value: bytes | None, output: int) -> tuple[Ending, bytes]:
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if value is None else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a command"
        return Ending(None, f"cannot be started ({why})"), b""
    try:
        printed, _errors = process.communicate(value, timeout)
    except subprocess.TimeoutExpired:
        return Ending(None, f"no end within {timeout or 0:g} s", late=True), b""
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # another user's: it cannot be killed
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_AFTER_KILL)
    if process.returncode < 0:
        return Ending(None, f"ended by signal {-process.returncode}"), b""
    return Ending(process.returncode), printed or b""
