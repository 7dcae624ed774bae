# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import (
    HEALTHY,
    STARTING,
    UNHEALTHY,
    UNKNOWN,
    Outcome,
)

__all__ = ["check_systemd", "parse_unit"]

_PROPERTIES = "LoadState,ActiveState,SubState,ActiveEnterTimestamp"
_RUNNING = ("running", "listening", "waiting", "mounted", "plugged", "active")


def parse_unit(text: str, running_is_enough: bool = False) -> Outcome:
    """What ``systemctl show`` says of a unit (systemd's D-Bus API, org.freedesktop.systemd1: unit states).

    :param text: ``Name=value`` lines of LoadState, ActiveState, SubState and ActiveEnterTimestamp, times in UTC.
    :param running_is_enough: accept a unit that is active although nothing of it runs any more (``exited``).
    """
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    load, active, sub = (said.get(name, "") for name in ("LoadState", "ActiveState", "SubState"))
    state = f"{active} ({sub})"
    if load == "not-found":
        return Outcome(UNKNOWN, "no such unit")
    if load != "loaded":
        return Outcome(UNHEALTHY if load == "masked" else UNKNOWN, f"unit is {load or 'not known'}")
    if active == "active":
        since = _unit_time(said.get("ActiveEnterTimestamp", ""))
        if sub in _RUNNING or (sub == "exited" and running_is_enough):
            return Outcome(HEALTHY, state, since)
        return Outcome(UNKNOWN, f"{state}: nothing of it runs", since)
    if sub.startswith("auto-restart"):
        return Outcome(UNHEALTHY, f"{state}: it keeps ending")
    if active in ("activating", "reloading", "refreshing"):
        return Outcome(STARTING, state)
    return Outcome(UNHEALTHY if active in ("inactive", "deactivating", "failed") else UNKNOWN, state)


def _unit_time(text: str) -> str:
    with contextlib.suppress(ValueError):
        return datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC").strftime("%Y-%m-%dT%H:%M:%SZ")
    return ""


def check_systemd(health: Mapping[str, Any]) -> Outcome:
    """Ask systemd for the state of the unit."""
    argv = ["systemctl", "show", f"--property={_PROPERTIES}", "--", health["systemd"]]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
            timeout=health["timeout"],
            check=False,
        )
    except OSError:
        return Outcome(UNKNOWN, "there is no systemctl on this host", final=True)
    except subprocess.TimeoutExpired:
        return Outcome(UNKNOWN, "systemd does not answer")
    if done.returncode:
        return Outcome(UNKNOWN, "systemd does not answer")
    return parse_unit(done.stdout.decode("utf-8", "replace"), bool(health.get("running_is_enough")))
