# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP side of the sample service: connections, bodies, the log, an orderly end."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from demo.app import Answer, Application, Request, Settings
from demo.pool import Pool

__all__ = ["serve"]

_LONGEST_BODY = 65_536
_BACKLOG = 128


def _log(line: str) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    sys.stderr.write(f"{now} {line}\n")
    sys.stderr.flush()


class _Server(ThreadingHTTPServer):
    """One thread for each connection; closing it waits for the threads."""

    daemon_threads = False
    request_queue_size = _BACKLOG

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        super().__init__(address, _Handler)
        self.application = application
        self._waiting = True

    def drain(self) -> None:
        """Take the connections that were made before the end was asked for."""
        self.timeout = 0.0
        for _ in range(_BACKLOG):
            if self._waiting:
                self.handle_request()

    def handle_timeout(self) -> None:
        """No connection is waiting."""
        self._waiting = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is told by type and place."""
        del request, client_address
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            _log(_told(error))


def _told(error: BaseException) -> str:
    """An unexpected error by its type and place; its text may carry a value."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"internal error={type(error).__name__} at={Path(frame.filename).name}:{frame.lineno}"


class _Handler(BaseHTTPRequestHandler):
    """One request for each connection."""

    server: _Server
    timeout = 5.0

    def _answer(self) -> None:
        started = time.monotonic()
        answer = self._work()
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        elapsed = (time.monotonic() - started) * 1000
        _log(f"request method={self.command} path={self.path} status={answer.status} ms={elapsed:.1f}")

    def _work(self) -> Answer:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _LONGEST_BODY:
            return Answer(413, {"error": "length"})
        try:
            body: Any = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError:
            return Answer(400, {"error": "json"})
        if not isinstance(body, dict):
            return Answer(400, {"error": "json"})
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            token = ""
        try:
            return self.server.application.handle(Request(self.command, self.path, token, body))
        except Exception as error:
            _log(_told(error))
            return Answer(500, {"error": "internal"})

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Requests are logged with their duration instead."""

    def log_message(self, format: str, *args: object) -> None:
        """What the base class complains about, without the text that the client sent."""
        del args
        _log(f"http {format!r}")


for _method in ("GET", "POST", "PUT", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler._answer)


def serve(settings: Settings, host: str, port: int, ready: Callable[[], None]) -> None:
    """Listen, call ``ready``, and answer until SIGTERM or SIGINT; open requests are finished.

    :raises OSError: when the port cannot be had.
    """
    pool = Pool(settings.database_url, f"demo-service:{port}")
    with _Server((host, port), Application(settings, pool, _log)) as server:

        def end(signum: int, frame: object) -> None:
            del signum, frame
            threading.Thread(target=server.shutdown).start()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        _log(f"listening port={port} encrypted={str(settings.key is not None).lower()}")
        ready()
        server.serve_forever(poll_interval=0.02)
        server.drain()
    pool.close()
    _log("ended")
