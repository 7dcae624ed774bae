# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services that accept connections."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import HEALTHY, UNHEALTHY, UNKNOWN, Outcome

__all__ = ["check_tcp", "refuse_tcp"]


def check_tcp(health: Mapping[str, Any]) -> Outcome:
    """Open a connection and close it."""
    address = _address(health["tcp"])
    if address is None:
        return Outcome(UNKNOWN, "tcp is no host:port", final=True)
    try:
        with socket.create_connection(address, health["timeout"]):
            return Outcome(HEALTHY, "accepts connections")
    except socket.timeout:
        return Outcome(UNHEALTHY, f"no answer within {health['timeout']:g} s")
    except OSError as error:
        return Outcome(UNHEALTHY, f"no connection ({error.strerror or type(error).__name__})")


def refuse_tcp(health: Mapping[str, Any], where: str) -> None:
    """Refuse an address that is none, before anything is asked.

    :raises KeyturnError: ``health-invalid``.
    """
    if _address(str(health["tcp"])) is None:
        raise KeyturnError("health-invalid", "tcp is no host:port", where=where, hint="Write 127.0.0.1:5432")


def _address(text: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text)
    if not found or not 0 < int(found[3]) < 65536:
        return None
    return found[1] or found[2], int(found[3])
