# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file with the health of all services at one moment, to compare with later. Pure; time is passed in.

The format is one that other tools write too: ``{"timestamp": …, "services": {name: {"status", "health", "service",
"name", "state"}}}`` with Docker Compose's words. A service on several hosts has ``hosts`` besides, one entry each.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.compose import state_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import (
    HEALTHY,
    RANK,
    STARTING,
    UNHEALTHY,
    UNKNOWN,
    Outcome,
    worst,
)

__all__ = ["compare", "load", "outcome_of", "snapshot", "text_of"]

_NOT_FOUND = {"status": "not_running", "health": "unknown", "state": "not found"}
_WORDS = {HEALTHY: "running", STARTING: "running", UNHEALTHY: "unhealthy", UNKNOWN: "unknown"}

#: By service, by host: what was seen.
Seen = Mapping[str, Mapping[str, Mapping[str, Any]]]


def _entry(name: str, seen: Mapping[str, Any]) -> dict[str, Any]:
    """One service on one host; the words of its worst container where Docker Compose runs it."""
    status, parts = str(seen.get("status") or UNKNOWN), seen.get("containers")
    if parts is None:
        word = _WORDS.get(status, "unknown")
        return {"status": word, "health": status, "service": name, "name": name, "state": word}
    if not parts:
        return dict(_NOT_FOUND)
    outcomes = [state_of(str(part["state"]), str(part["health"])) for part in parts]
    part = parts[outcomes.index(worst(outcomes))]
    health = status if part["state"] == "running" and status != UNKNOWN else part["health"]
    return {"status": part["state"], "health": health, "service": name, "name": part["name"], "state": part["state"]}


def snapshot(seen: Seen, now: datetime) -> dict[str, Any]:
    """The content of a file.

    :param seen: by service, by host, what ``service_health`` said: ``status``, and ``containers`` of Docker Compose.
    :param now: local time without a zone, as the format has it.
    """
    services = {}
    for name, hosts in sorted(seen.items()):
        entries = {host: _entry(name, said) for host, said in sorted(hosts.items())}
        lowest = min(entries, key=lambda host: RANK.get(entries[host]["health"], 0)) if entries else ""
        services[name] = {**(entries[lowest] if entries else _NOT_FOUND), "hosts": entries}
    return {"timestamp": now.replace(tzinfo=None).isoformat(), "services": services}


def text_of(content: Mapping[str, Any]) -> bytes:
    """A snapshot as it lies on the disk."""
    return json.dumps(content, indent=2).encode() + b"\n"


def load(text: str, where: str) -> dict[str, dict[str, Any]]:
    """The services in a file.

    :raises KeyturnError: ``snapshot-invalid`` for what is no snapshot.
    """
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    services = content.get("services") if isinstance(content, dict) else None
    if not isinstance(services, dict) or not all(isinstance(entry, dict) for entry in services.values()):
        raise KeyturnError(
            "snapshot-invalid",
            "is no health snapshot",
            where=where,
            hint="Make one with the check playbook and keyturn_save",
        )
    return services


def outcome_of(entry: Mapping[str, Any], running_is_enough: bool = False) -> Outcome:
    """What an entry of a snapshot says. An error, or a word that is not known, is never healthy."""
    status, health = str(entry.get("status") or ""), str(entry.get("health") or "")
    state = str(entry.get("state") or status)
    if "error" in entry or status == "error":
        return Outcome(UNKNOWN, "it could not be seen")
    if status == "not_running":
        return Outcome(UNHEALTHY, "it did not run")
    if health == UNHEALTHY and state not in ("running", "exited", "restarting"):
        return Outcome(UNHEALTHY, "it was not well")
    return state_of(state, health, running_is_enough)


def compare(
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    running_is_enough: Collection[str] = (),
) -> list[dict[str, str]]:
    """The services that got worse: ``name``, ``host`` (empty for all), ``before``, ``after``, ``detail``.

    A service that is not there any more is ``unknown`` now.

    :param running_is_enough: the services for which it is.
    """
    found = []
    for name in sorted(before):
        now = after.get(name)
        then_hosts = before[name].get("hosts") or {}
        now_hosts = (now or {}).get("hosts") or {}
        pairs = (
            {host: (then_hosts[host], now_hosts.get(host)) for host in then_hosts} if then_hosts and now_hosts else {}
        )
        for host, (was, entry) in sorted((pairs or {"": (before[name], now)}).items()):
            old = outcome_of(was, name in running_is_enough)
            new = (
                Outcome(UNKNOWN, "not seen this time")
                if entry is None
                else outcome_of(entry, name in running_is_enough)
            )
            if RANK[new.status] < RANK[old.status]:
                found.append(
                    {"name": name, "host": host, "before": old.status, "after": new.status, "detail": new.detail}
                )
    return found
