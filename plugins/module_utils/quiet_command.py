# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of the user's: what it prints may hold a value, so it is read by nobody, or by the caller alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Ending", "read_quietly", "run_quietly"]


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    :param code: the exit code; None when it did not end by itself.
    :param reason: why there is no code.
    """

    code: int | None
    reason: str = ""


def run_quietly(argv: Sequence[str], timeout: float, value: bytes | None = None) -> Ending:
    """Run a command without a shell, with ``value`` on its standard input, for at most ``timeout`` seconds.

    A command that does not end is killed with everything it started.
    """
    return _run(argv, timeout, value, subprocess.DEVNULL)[0]


def read_quietly(argv: Sequence[str], timeout: float) -> tuple[Ending, bytes]:
    """The same for a command that prints a value; what it says on standard error is dropped."""
    return _run(argv, timeout, None, subprocess.PIPE)


def _run(argv: Sequence[str], timeout: float, value: bytes | None, output: int) -> tuple[Ending, bytes]:
    printed = b""
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
        printed = process.communicate(value, timeout)[0] or b""
    except subprocess.TimeoutExpired:
        return Ending(None, f"no end within {timeout:g} s"), b""
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode < 0:
        return Ending(None, f"ended by signal {-process.returncode}"), b""
    return Ending(process.returncode), printed
