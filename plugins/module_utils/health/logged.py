# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last lines of what services logged that are not well, masked: of their containers, or of their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.log_lines import kept_values
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import HEALTHY, Outcome

__all__ = ["add_logs"]


def add_logs(params: Mapping[str, Any], answer: dict[str, Any], outcomes: Mapping[str, Outcome]) -> None:
    """Add ``log`` to what got worse, or to all that is not healthy, where a service has a log that can be found."""
    got_worse = {entry["name"] for entry in answer["worse"]}
    services = {str(service["name"]): service for service in params["services"]}
    wanted = {
        name
        for name in services
        if name in got_worse or (params.get("logs") == "unhealthy" and outcomes[name].status != HEALTHY)
    }
    lines = int(params.get("log_lines") or 0)
    if not wanted or lines < 1 or params.get("logs") == "none":
        return
    values = kept_values(str(params.get("state_dir") or ""))
    for name in sorted(wanted):
        log = _last_lines(services[name], outcomes[name], lines, values)
        if log is None:
            continue
        for entry in answer["worse"]:
            if entry["name"] == name:
                entry["log"] = log
        answer["services"][name]["log"] = log


def _last_lines(service: Mapping[str, Any], outcome: Outcome, lines: int, values: Sequence[str]) -> list[str] | None:
    """None for a service of which nobody knows where it logs, and for a journal that has nothing of it."""
    if service.get("manager") == "compose":
        from ansible_collections.keyturn.rotation.plugins.module_utils.health.containers import last_lines

        return last_lines(service, outcome, lines, values)
    unit = service.get("unit") or (service.get("health") or {}).get("systemd")
    if not unit:
        return None
    from ansible_collections.keyturn.rotation.plugins.module_utils.health import journal

    return journal.last_lines(str(unit), lines, values) or None
