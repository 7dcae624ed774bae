# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Known secrets, searched for in all that a run leaves behind, in every form in which they may have got there.

A piece of a secret is enough to be found: every window of twelve bytes of every form is looked for at every eighth
place, so that nothing of nineteen bytes or more is missed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

__all__ = ["Canaries", "Search", "decode_trace", "forms"]

_WINDOW = 12
_STEP = 8
_SHORTEST = _WINDOW + _STEP - 1
#: The code of a module, packed, in the file that Ansible brings to a host; its arguments stand beside it in clear.
_PACKED = re.compile(rb"zip_data='([A-Za-z0-9+/=]+)'")
#: A text of ``strace -xx``; the dots are there when it was cut.
_TRACED = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def _base64_at(value: bytes, before: int) -> bytes:
    """The base64 digits that depend on ``value`` alone when ``before`` bytes (modulo 3) precede it."""
    digits = base64.b64encode(bytes(before) + value + bytes(2))
    return digits[-(-8 * before // 6) : 8 * (before + len(value)) // 6]


def forms(value: bytes) -> dict[str, bytes]:
    """The forms of a value, by name."""
    found = {
        "raw": value,
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
        "percent": quote(value, safe="").encode(),
        "repr": repr(value)[2:-1].encode(),
    }
    for before in range(3):
        found[f"base64+{before}"] = _base64_at(value, before)
        found[f"base64url+{before}"] = _base64_at(value, before).translate(bytes.maketrans(b"+/", b"-_"))
    try:
        found["json"] = json.dumps(value.decode())[1:-1].encode()
    except UnicodeDecodeError:
        found["latin-1 in json"] = json.dumps(value.decode("latin-1"))[1:-1].encode()
        found["latin-1"] = value.decode("latin-1").encode()
    return found


@dataclass
class Search:
    """What a search found.

    :param found: place to the canaries and their forms.
    """

    found: dict[str, set[str]] = field(default_factory=dict)
    files: int = 0
    size: int = 0


class Canaries:
    """A set of known secrets."""

    def __init__(self) -> None:
        self._windows: dict[bytes, str] = {}
        self._names: set[str] = set()
        self._unpacked: set[bytes] = set()

    @property
    def names(self) -> set[str]:
        """What is looked for."""
        return set(self._names)

    def add(self, name: str, value: bytes | str) -> None:
        """Look for one more value, of 19 bytes or more, random throughout."""
        raw = value.encode() if isinstance(value, str) else value
        if len(raw) < _SHORTEST:
            raise ValueError(f"{name} is too short to be told from chance")
        self._names.add(name)
        for form, text in forms(raw).items():
            for at in range(len(text) - _WINDOW + 1):
                self._windows.setdefault(text[at : at + _WINDOW], f"{name} ({form})")

    def find(self, data: bytes) -> set[str]:
        """The canaries in some bytes, each with its form."""
        windows = self._windows
        return {
            windows[window]
            for at in range(0, len(data) - _WINDOW + 1, _STEP)
            if (window := data[at : at + _WINDOW]) in windows
        }

    def search_bytes(self, into: Search, place: str, data: bytes) -> None:
        """Search some bytes and what is packed in them."""
        into.size += len(data)
        found: set[str] = set()
        for part in self._parts(data):
            found |= self.find(part)
        if found:
            into.found.setdefault(place, set()).update(found)

    def search_files(self, into: Search, roots: Iterable[Path]) -> None:
        """Search every file below some folders, and the files' names."""
        for root in roots:
            for path in sorted([root, *root.rglob("*")]):
                names = self.find(str(path).encode())
                if names:
                    into.found.setdefault(str(path), set()).update(names)
                if stat.S_ISREG(path.lstat().st_mode):
                    into.files += 1
                    self.search_bytes(into, str(path), path.read_bytes())

    def _parts(self, data: bytes) -> Iterator[bytes]:
        """The bytes themselves, and the files in packed modules (each different package once)."""
        packed = _PACKED.findall(data)
        yield _PACKED.sub(b"", data) if packed else data
        for text in packed:
            mark = hashlib.sha256(text).digest()
            if mark in self._unpacked:
                continue
            self._unpacked.add(mark)
            with zipfile.ZipFile(io.BytesIO(base64.b64decode(text))) as package:
                for name in package.namelist():
                    yield package.read(name)


def decode_trace(trace: bytes) -> bytes:
    """What ``strace -xx`` wrote, with its texts as the bytes they are.

    :raises ValueError: when strace cut a text short.
    """

    def plain(found: re.Match[bytes]) -> bytes:
        if found[2]:
            raise ValueError("strace cut a text short")
        return b'"' + bytes.fromhex(found[1].decode().replace("\\x", "")) + b'"'

    return _TRACED.sub(plain, trace)
