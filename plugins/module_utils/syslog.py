# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line for each step of a rotation in the host's system log: syslog, or journald, which listens at the same place.

The line is ``key=value`` with quotes where a value needs them (logfmt), so that both people and programs can read it::

    event=advance phase=stage status=open rotation_id=20260131T120000Z-4f3a9c secrets=KEY epoch=3 who=ann@control1
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["DEV_LOG", "line", "packet", "send"]

DEV_LOG = "/dev/log"
_TAG = "keyturn"
_FACILITY = 4 << 3  # auth (RFC 5424, table 1)
_ERROR, _WARNING, _NOTICE, _INFO = 3, 4, 5, 6
_TROUBLE = ("stuck", "rollback_pending", "retiring", "replacing")
_SECONDS = 1.0
_BARE = re.compile(r"[A-Za-z0-9_.,:;@/+-]+")


def line(event: str, phase: str, rotation_id: str, rotation: Mapping[str, Any]) -> str:
    """The line for a step.

    :param event: the action of ``rotation_state``.
    :param phase: the phase that begins; without one, the one the rotation is in.
    :param rotation: its record in the register.
    """
    run = (rotation.get("runs") or [{}])[-1]
    fields = {
        "event": event,
        "phase": phase or rotation.get("phase"),
        "status": rotation.get("status"),
        "rotation_id": rotation_id,
        "secrets": ",".join(rotation.get("secrets", ())),
        "epoch": rotation.get("epoch"),
        "who": "@".join(str(run[key]) for key in ("user", "controller") if run.get(key)),
    }
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items() if value not in (None, ""))


def _quoted(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _severity(text: str, event: str) -> int:
    if event == "finish" and any(f" status={status} " in text for status in _TROUBLE):
        return _ERROR
    return {"turn_back": _WARNING, "advance": _INFO}.get(event, _NOTICE)


def packet(text: str, event: str, now: float, pid: int) -> bytes:
    """The datagram for a local log socket (RFC 3164 without a host name, as libc writes it)."""
    stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now))
    return f"<{_FACILITY + _severity(text, event)}>{stamp} {_TAG}[{pid}]: {text}".encode()


def send(text: str, event: str, path: str = DEV_LOG) -> bool:
    """Write one line and say whether something took it; a host without a system log, or with a stuck one, is none."""
    data = packet(text, event, time.time(), os.getpid())
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as log:
            log.settimeout(_SECONDS)
            log.connect(path)
            log.sendall(data if kind == socket.SOCK_DGRAM else data + b"\0")
            return True
    return False
