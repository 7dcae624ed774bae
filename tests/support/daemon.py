# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A little daemon: ``daemon.py start|stop FOLDER``. It loads FOLDER/value once, serves its length, and notes each call.

Like many services it talks too much: what it loads goes to its standard output.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

_SECONDS = 30.0


def _port(folder: Path) -> int:
    return int((folder / "port").read_text())


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _wait(port: int, listening: bool) -> int:
    deadline = time.monotonic() + _SECONDS
    while _listens(port) != listening:
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.02)
    return 0


def _serve(folder: Path) -> None:
    length = str(len((folder / "value").read_text())).encode()
    sick = (folder / "sick").exists()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(503 if sick else 200)
            self.end_headers()
            self.wfile.write(length)

        def log_message(self, *_words: object) -> None:
            """Stay silent."""

    setattr(Handler, "do_" + "GET", Handler._answer)
    server = HTTPServer(("127.0.0.1", _port(folder)), Handler)
    (folder / "pid").write_text(str(os.getpid()))
    server.serve_forever(0.02)


def _start(folder: Path) -> int:
    print((folder / "value").read_text())
    if not _listens(_port(folder)):
        subprocess.Popen(
            [sys.executable, __file__, "serve", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return _wait(_port(folder), True)


def _stop(folder: Path) -> int:
    if (folder / "stubborn").exists():
        print((folder / "value").read_text(), file=sys.stderr)
        return 7
    if _listens(_port(folder)):
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    return _wait(_port(folder), False)


def main(verb: str, folder: Path) -> int:
    """Run the command line and return the exit code."""
    if verb == "serve":
        _serve(folder)
        return 0
    with (folder.parent / "calls").open("a") as calls:
        calls.write(f"{folder.name} {verb}\n")
    if verb == "restart":
        return _stop(folder) or _start(folder)
    return (_start if verb == "start" else _stop)(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
