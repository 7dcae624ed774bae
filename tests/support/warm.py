# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of tests start from a process that has imported what all of them import.

A module of Ansible is a program on the standard input of a new Python. Nine tenths of its processor time go to imports
that are the same each time: Ansible's own, and libraries. A server imports these once. The new Python, as soon as it
has started (``compiled.py``), hands its environment, folder, and files to the server, which forks; the fork reads and
runs the program. The collection's own code always comes from the program, as it does for users.

The new Python waits, and ends as the fork does. When it is killed, so is the fork. Tests that freeze processes or look
into them do without: ``Controller(..., warm=False)``, or ``KEYTURN_COLD=1`` for all.
"""

from __future__ import annotations

import array
import atexit
import builtins
import contextlib
import functools
import gc
import importlib
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["address"]

_PRELOADED = (
    "ansible.module_utils._internal._ansiballz._loader",
    "ansible.module_utils.urls",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.asymmetric.padding",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.serialization",
    "concurrent.futures.thread",
    "docker",
    "multiprocessing",
    "psycopg",
    "shutil",
    "tempfile",
    "unittest.mock",
    "zipfile",
)
_FILES = 4  # standard input, output and error, and the working directory


@functools.cache
def address() -> str:
    """Where the server of this process listens; it ends with this process."""
    if os.environ.get("KEYTURN_COLD") or not os.environ.get("KEYTURN_COMPILED"):
        return ""
    folder = tempfile.mkdtemp(prefix="keyturn-warm-")
    path = str(Path(folder) / "socket")
    environment = {**os.environ, "KEYTURN_WARM": ""}
    command = [sys.executable, "-P", __file__, path]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    _servers.append(server)  # its standard input stays open as long as this process lives
    if server.stdout is None or server.stdout.readline() != b"ready\n":
        raise RuntimeError("the server for modules did not start")
    return path


_servers: list[subprocess.Popen[bytes]] = []


# -- the server ------------------------------------------------------------------------------------------------------


def _receive(connection: socket.socket) -> tuple[list[int], dict[str, str], int]:
    """What the new Python has sent: its files, its environment, its umask."""
    files = array.array("i")
    head, ancillary, _flags, _sender = connection.recvmsg(4, socket.CMSG_SPACE(_FILES * files.itemsize))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files.frombytes(data)
    left, parts = int.from_bytes(head, "big"), []
    while left:
        part = connection.recv(left)
        if not part:
            os._exit(1)
        parts.append(part)
        left -= len(part)
    environment, umask = marshal.loads(b"".join(parts))
    return list(files), environment, umask


def _become(files: list[int], environment: dict[str, str], umask: int) -> None:
    """Take over what the new Python would have had."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    os.fchdir(files[3])
    for file in files:
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.umask(umask)
    time.tzset()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    sys.argv[:] = [""]


def _watch(connection: socket.socket, runner: int) -> None:
    """Tell how the fork ended; kill it when nobody waits for it any more."""
    ended = os.pidfd_open(runner)
    waited: list[Any] = [connection, ended]
    if ended not in select.select(waited, [], [])[0]:
        os.kill(runner, signal.SIGKILL)
    status = os.waitpid(runner, 0)[1]
    with contextlib.suppress(OSError):
        connection.sendall(status.to_bytes(4, "big"))
    os._exit(0)


def _handle(connection: socket.socket) -> None:
    """In a process of its own. Returns in another one, which is to run the program on its standard input."""
    given = _receive(connection)
    runner = os.fork()
    if runner:
        for file in given[0]:
            os.close(file)
        _watch(connection, runner)
    connection.close()
    _become(*given)


def _serve(path: str) -> None:
    """Returns in each process that is to run a program."""
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # else each fork would copy what it looks through
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that watch are nobody's
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(64)
        print("ready", flush=True)
        while True:
            ready = select.select([server, sys.stdin], [], [])[0]
            if sys.stdin in ready:
                os.unlink(path)
                os.rmdir(Path(path).parent)
                os._exit(0)
            connection = server.accept()[0]
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _handle(connection)


def _run() -> int:
    """Run the program on the standard input as Python would; its exit code."""
    program = types.ModuleType("__main__")
    vars(program).update(__file__="<stdin>", __builtins__=builtins)
    sys.modules["__main__"] = program
    try:
        types.FunctionType(compile(sys.stdin.read(), "<stdin>", "exec", dont_inherit=True), vars(program))()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as Python would, but without taking apart what the server has imported: that would copy all of it first."""
    vars(threading)["_shutdown"]()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
    _end(_run())
