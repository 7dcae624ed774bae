# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that signs and verifies tokens with a keyset: ``keyset_server.py FOLDER file|env start|stop``.

It reads ``jwt-keyset.json`` every 0.2 s, or ``.env`` once when it starts. When it cannot read the keyset it keeps the
last one that was good, and looks healthy; a file ``stuck`` in the folder keeps it from reading.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["KeysetServer", "encode_token"]

Keyset = tuple[str, dict[str, str]]


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def encode_token(kid: str, key: str, **claims: Any) -> str:
    """A token for a player, valid for ten minutes."""
    now = int(time.time())
    payload = {"actor_type": "player", "exp": now + 600, "iat": now, "sub": "p", **claims}
    header = {"alg": "HS256", "kid": kid, "typ": "JWT"}
    signed = ".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, payload))
    return f"{signed}.{_base64url(hmac.digest(key.encode(), signed.encode(), hashlib.sha256))}"


def verify(token: str, keyset: Keyset) -> bool:
    """Whether a token is signed with a key of the keyset and not over."""
    active, keys = keyset
    try:
        head, body, signature = token.split(".")
        header, payload = _decoded(head), _decoded(body)
    except ValueError:
        return False
    key = keys.get(header.get("kid") or active)
    if header.get("alg") != "HS256" or key is None or not payload.get("actor_type"):
        return False
    right = _base64url(hmac.digest(key.encode(), f"{head}.{body}".encode(), hashlib.sha256))
    return hmac.compare_digest(right, signature) and payload.get("exp", 0) > time.time()


def _from_file(folder: Path) -> Keyset:
    content = json.loads((folder / "jwt-keyset.json").read_text())
    return content["active_kid"], content["keys"]


def _from_env(folder: Path) -> Keyset:
    lines = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines() if "=" in line)
    return lines["ACTIVE"], dict(part.split(":", 1) for part in lines["KEYS"].split(","))


def _serve(folder: Path, read: Callable[[Path], Keyset], interval: float) -> None:
    state = {"keyset": read(folder)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keyset = state["keyset"]
            if self.path == "/token":
                self._say(200, {"access_token": encode_token(keyset[0], keyset[1][keyset[0]])})
            elif self.path == "/me":
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                self._say(200 if verify(token, keyset) else 401, {})
            else:
                self._say(200, {"status": "ok"})

        def _say(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    def reload() -> None:
        while True:
            time.sleep(interval)
            with contextlib.suppress(OSError, ValueError, KeyError):
                if not (folder / "stuck").exists():
                    state["keyset"] = read(folder)

    if interval:
        threading.Thread(target=reload, daemon=True).start()
    port = int((folder / "port").read_text()) if (folder / "port").exists() else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    (folder / "port.new").write_text(str(server.server_address[1]))
    (folder / "port.new").rename(folder / "port")
    (folder / "pid").write_text(str(os.getpid()))
    server.serve_forever()


class KeysetServer:
    """One of them, below a test's folder."""

    def __init__(self, folder: Path, mode: str = "file") -> None:
        self.folder, self.mode = folder, mode

    def command(self, action: str) -> list[str]:
        """How a catalog starts and stops it."""
        return [sys.executable, str(Path(__file__).resolve()), str(self.folder), self.mode, action]

    def start(self) -> None:
        """Start it as the catalog does."""
        subprocess.run(self.command("start"), check=True)

    def stop(self) -> None:
        """Stop it."""
        subprocess.run(self.command("stop"), check=True)

    @property
    def url(self) -> str:
        """Its address; the port stays over a restart."""
        return f"http://127.0.0.1:{(self.folder / 'port').read_text()}"


def _stop(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    with contextlib.suppress(FileNotFoundError):
        (folder / "pid").unlink()


def _main(folder: Path, mode: str, action: str) -> None:
    if action == "serve":
        _serve(folder, _from_file if mode == "file" else _from_env, 0.2 if mode == "file" else 0)
    _stop(folder)
    if action == "start":
        subprocess.Popen(
            [sys.executable, __file__, str(folder), mode, "serve"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not (folder / "pid").exists():
            time.sleep(0.05)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
