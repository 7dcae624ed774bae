# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before PostgreSQL that greets with a process number of its own, as a connection pooler does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

__all__ = ["RenamingProxy"]

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_GSS_REQUEST = struct.pack("!ii", 8, 80877104)


class RenamingProxy:
    """Passes bytes on in both directions and changes the BackendKeyData message (protocol 3.0, type ``K``)."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> RenamingProxy:
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
                server.sendall(first)
                threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
                self._greet(server, client)
                self._pump(server, client)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    @staticmethod
    def _greet(server: socket.socket, client: socket.socket) -> None:
        """Pass messages on up to and including BackendKeyData."""
        stream = server.makefile("rb", buffering=0)
        kind = b""
        while kind != b"K":
            kind = stream.read(1) or b"K"
            size = stream.read(4) or b""
            body = b""
            while len(body) < struct.unpack("!i", size)[0] - 4:
                body += stream.read(struct.unpack("!i", size)[0] - 4 - len(body)) or b""
            if kind == b"K":
                body = struct.pack("!i", -303747859) + body[4:]
            client.sendall(kind + size + body)
