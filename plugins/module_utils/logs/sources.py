# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that a service has written since a time: from files with their rotated ones, the journal, or containers.

What cannot be read raises; nothing is ever taken for silence.
"""

from __future__ import annotations

import bz2
import contextlib
import glob
import gzip
import json
import lzma
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.logs.times import time_of

__all__ = ["SOURCES", "Line", "lines_since", "source_of"]

#: A longer line is cut into several.
_LONGEST = 256 * 1024
#: What logrotate and its like put behind a name, and how it may be packed.
_ROTATED = re.compile(r"(?:[.-][0-9][0-9T_:-]*(?:\.[0-9]+)?)?(?P<packed>\.gz|\.bz2|\.xz|\.zst|\.Z)?")
_OPEN: dict[str, Callable[..., Any]] = {
    "": partial(open, mode="rb"),
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
#: How far the time of a file or of an engine may lie behind that of a line.
_SLACK = 2.0

Declared = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line.

    :param text: may hold anything, so it is never shown.
    :param is_dated: whether it is known to be of the time that was asked for; without a time in it, or in a line
        before it, that is not known.
    """

    text: str = field(repr=False)
    is_dated: bool = True


def source_of(declared: Declared, where: str) -> str:
    """The one source that is named, of :data:`SOURCES`.

    :raises KeyturnError: ``probe-invalid``.
    """
    named = [name for name in SOURCES if declared.get(name)]
    if len(named) != 1:
        raise KeyturnError(
            "probe-invalid", "a log needs exactly one source", where=where, hint=f"Name one of {', '.join(SOURCES)}"
        )
    return named[0]


def lines_since(declared: Declared, since: float, where: str) -> Iterator[Line]:
    """The lines of a log since a time, the oldest first.

    :param since: seconds since 1970.
    :raises KeyturnError: ``log-unreadable``, also when there is nothing to read; ``docker-unreachable``,
        ``docker-library-missing``.
    """
    return SOURCES[source_of(declared, where)](declared, since, where)


def _unreadable(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("log-unreadable", message, where=where, hint=hint)


# -- files -------------------------------------------------------------------------------------------------------------


def _files(path: str, since: float) -> list[tuple[str, str]]:
    """A log and its rotated files that were written since, each with how it is packed; the oldest first."""
    found = []
    for candidate in glob.glob(f"{glob.escape(path)}*"):
        form = _ROTATED.fullmatch(candidate[len(path) :])
        with contextlib.suppress(OSError):
            status = os.stat(candidate)
            if form and stat.S_ISREG(status.st_mode) and (candidate == path or status.st_mtime >= since - _SLACK):
                found.append((status.st_mtime, candidate, form["packed"] or ""))
    return [(candidate, packed) for _time, candidate, packed in sorted(found)]


def _from_files(declared: Declared, since: float, where: str) -> Iterator[Line]:
    paths = [declared["path"]] if isinstance(declared["path"], str) else declared["path"]
    for path in paths:
        files = _files(str(path), since)
        if not files:
            raise _unreadable("there is no such log", f"{where}: {path}", "Correct path")
        last: float | None = None
        for name, packed in files:
            for text in _text_lines(name, packed, where):
                last = time_of(text, time.time()) or last
                if last is None or last >= since:
                    yield Line(text, last is not None)


def _text_lines(path: str, packed: str, where: str) -> Iterator[str]:
    if packed not in _OPEN:
        raise _unreadable("this kind of packing is not read", f"{where}: {path}", "Let logrotate use gzip or xz")
    try:
        with _OPEN[packed](path) as stream:
            while True:
                line = stream.readline(_LONGEST)
                if not line:
                    return
                yield line.decode("utf-8", "replace").rstrip("\r\n")
    except (OSError, EOFError, lzma.LZMAError):
        raise _unreadable("cannot be read", f"{where}: {path}", "Look at its mode, and whether it is whole") from None


# -- the journal -------------------------------------------------------------------------------------------------------


def _from_journal(declared: Declared, since: float, where: str) -> Iterator[Line]:
    argv = ["journalctl", "--no-pager", "--quiet", "--all", "--output=json", f"--since=@{since:.6f}"]
    argv += [f"--unit={declared['unit']}"]
    if declared.get("directory"):
        argv.append(f"--directory={declared['directory']}")
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        raise _unreadable("journalctl cannot be started", where, "Run this probe where the journal is") from None
    with process:
        for entry in process.stdout or ():
            yield from map(Line, _messages(entry))
    if process.returncode:
        raise _unreadable(
            f"journalctl ended with {process.returncode}",
            where,
            "The user must be root or in the group systemd-journal",
        )


def _messages(entry: bytes) -> list[str]:
    """The lines of one entry; a message that is no text comes as a list of bytes."""
    try:
        message = json.loads(entry).get("MESSAGE")
    except ValueError:
        return []
    if isinstance(message, list) and all(isinstance(byte, int) for byte in message):
        message = bytes(message).decode("utf-8", "replace")
    return message.splitlines() if isinstance(message, str) else []


# -- containers --------------------------------------------------------------------------------------------------------


def _from_containers(declared: Declared, since: float, where: str) -> Iterator[Line]:
    from ansible_collections.keyturn.rotation.plugins.module_utils import compose

    place = compose.place_of({"name": declared["service"], **declared})
    with compose.connected(place.docker_host, float(declared.get("timeout") or 10)) as client:
        found = compose.containers_of(client, place)
        if not found:
            raise _unreadable("this service has no container", where, "Correct service and project")
        for container in found:
            for text in compose.lines_since(client, container, since - _SLACK):
                stamp, _blank, line = text.partition(" ")
                written = time_of(stamp, time.time())
                if written is None or written >= since:
                    yield Line(line)


#: How to read a log, by the field that names it.
SOURCES: dict[str, Callable[[Declared, float, str], Iterator[Line]]] = {
    "path": _from_files,
    "unit": _from_journal,
    "service": _from_containers,
}
