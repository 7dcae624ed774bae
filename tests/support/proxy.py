# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proxies before PostgreSQL: one that greets as a connection pooler does, one that stops at a chosen statement."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Callable, TypeVar

__all__ = ["CountingProxy", "RenamingProxy"]

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_GSS_REQUEST = struct.pack("!ii", 8, 80877104)

Own = TypeVar("Own", bound="_Proxy")


class _Proxy:
    """Passes bytes on in both directions."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self: Own) -> Own:
        """Begin to listen."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            first = client.recv(8)
            while first in (_SSL_REQUEST, _GSS_REQUEST):
                client.sendall(b"N")
                first = client.recv(8)
            with socket.create_connection(("127.0.0.1", self._server_port)) as server:
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.sendall(first)
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                self._down(server, client)

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        """What the client says, after the first eight bytes."""
        _pump(client, server)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        """What the server says."""
        _pump(server, client)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    """The type of the next message (protocol 3.0), and its body."""
    kind, size = struct.unpack("!ci", _exactly(source, 5))
    return kind, _exactly(source, size - 4)


def _packed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


class RenamingProxy(_Proxy):
    """Changes the process number in the server's BackendKeyData."""

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        kind = b""
        while kind != b"K":
            kind, body = _message(server)
            if kind == b"K":
                body = struct.pack("!i", -303747859) + body[4:]
            client.sendall(_packed(kind, body))
        _pump(server, client)


class CountingProxy(_Proxy):
    """Counts the statements of all connections, and does something before each is passed on."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._work: Callable[[int], object] = int
        self._count = 0

    def before_each(self, work: Callable[[int], object]) -> None:
        """Do this with the number of the statement, counted from now on."""
        with self._lock:
            self._work, self._count = work, 0

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            chosen, self._open = self._open, []
        for one in chosen:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            with self._lock:
                self._open += [client, server]
            _pass_startup(client, server)
            while True:
                kind, body = _message(client)
                if kind in (b"Q", b"P"):
                    self._work(self._next())
                server.sendall(_packed(kind, body))

    def _next(self) -> int:
        with self._lock:
            self._count += 1
            return self._count


def _pass_startup(client: socket.socket, server: socket.socket) -> None:
    """The rest of the startup message, up to the two zero bytes at its end."""
    data = b""
    while not data.endswith(b"\0\0"):
        data += _exactly(client, 1)
    server.sendall(data)
