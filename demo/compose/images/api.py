# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An API like PostgREST: it lets in who brings a token signed with JWT_SECRET, and reads from PostgreSQL and Redis.

``GET /items`` for the roles anon and service_role, ``POST /items`` for service_role, ``GET /health`` for everybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt

from demo.compose.images.common import ERRORS, Stores, content

__all__ = ["main"]

_ROLES = {"GET": ("anon", "service_role"), "POST": ("service_role",)}
#: Connections that nobody uses now; each request of nginx comes in a thread of its own.
_FREE: queue.LifoQueue[Stores] = queue.LifoQueue()


@contextlib.contextmanager
def _stores() -> Iterator[Stores]:
    try:
        stores = _FREE.get_nowait()
    except queue.Empty:
        stores = Stores()
    try:
        yield stores
    finally:
        _FREE.put(stores)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a log of requests would be long."""

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _role(self) -> str:
        scheme, _blank, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return ""
        try:
            claims = jwt.decode(token, os.environ["JWT_SECRET"], algorithms=["HS256"], options={"require": ["exp"]})
        except jwt.InvalidTokenError:
            return ""
        return str(claims.get("role", ""))

    def _handle(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with _stores() as stores:
            try:
                status, answer = self._look(stores)
            except ERRORS as error:
                stores.forget()
                sys.stderr.write(f"{type(error).__name__}\n")
                status, answer = 503, {"error": "a server does not answer"}
        self._answer(status, answer)

    def _look(self, stores: Stores) -> tuple[int, dict[str, Any]]:
        if self.path == "/health":
            stores.database.execute("SELECT 1")
            stores.redis.ping()
            return (200 if content() else 503), {}
        if self.path != "/items":
            return 404, {"error": "there is no such path"}
        if self._role() not in _ROLES[self.command]:
            return 401, {"error": "the token is refused"}
        if self.command == "POST":
            stores.database.execute("INSERT INTO items (note) VALUES ('worked')")
            return 201, {"done": stores.redis.incr("done")}
        row = stores.database.execute("SELECT count(*) FROM items").fetchone()
        return 200, {"items": row[0] if row else 0, "done": int(stores.redis.get("done") or 0)}


for _method in _ROLES:
    setattr(_Handler, f"do_{_method}", _Handler._handle)


def main() -> None:
    """Serve until SIGTERM."""
    server = ThreadingHTTPServer(("", 8000), _Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda _number, _frame: threading.Thread(target=server.shutdown).start())
    server.serve_forever(0.1)


if __name__ == "__main__":
    main()
