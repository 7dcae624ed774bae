# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules import is compiled once for all tests.

Ansible sends every module with all that it imports as a zip, from which Python compiles anew each time: half of a
module's processor time. ``tests/setup/venv.sh`` has each Python of ``.venv`` run this file where ``KEYTURN_COMPILED``
names it, which only the controllers of tests do. Code is kept under the digest of its source and of this Python.
"""

from __future__ import annotations

import marshal
import os
import sys
import zipimport
from _blake2 import blake2b  # hashlib would load OpenSSL

_FOLDER = os.path.join(os.environ["KEYTURN_COMPILED"].rpartition("/tests/")[0], ".cache", "compiled")
_PYTHON = f"{sys.version} {sys.flags.optimize}".encode()
_compile = vars(zipimport)["_compile_source"]


def _compiled(path: str, source: bytes) -> object:
    kept = os.path.join(_FOLDER, blake2b(_PYTHON + b"\0" + source, digest_size=20).hexdigest())
    try:
        with open(kept, "rb") as file:
            return marshal.load(file)
    except (OSError, ValueError, EOFError, TypeError):
        pass
    code = _compile(path, source)
    try:
        os.makedirs(_FOLDER, mode=0o700, exist_ok=True)
        mine = f"{kept}.{os.getpid()}"
        with open(mine, "wb") as file:
            marshal.dump(code, file)
        os.replace(mine, kept)
    except OSError:
        pass
    return code


vars(zipimport)["_compile_source"] = _compiled


def _hand_over(path: str) -> None:
    """Let the server of ``warm.py`` run the program on the standard input, and end as it ends."""
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(path)
    folder = os.open(".", os.O_RDONLY)
    umask = os.umask(0o077)
    given = marshal.dumps([dict(os.environ), umask])
    files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2, folder))
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)]
    connection.sendmsg([len(given).to_bytes(4, "big")], rights)
    connection.sendall(given)
    status = connection.recv(4)
    if len(status) != 4:
        os._exit(255)
    ended = int.from_bytes(status, "big")
    if os.WIFSIGNALED(ended):
        os.kill(os.getpid(), os.WTERMSIG(ended))
    os._exit(os.waitstatus_to_exitcode(ended))


if os.environ.get("KEYTURN_WARM") and len(sys.orig_argv) == 1:
    _hand_over(os.environ["KEYTURN_WARM"])
