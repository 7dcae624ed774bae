# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file with the health of all services at one moment, to compare with later. Pure; time is passed in.

The format is one that other tools write too: ``{"timestamp": …, "services": {name: {"status", "health", "service",
"name", "state"}}}`` with Docker Compose's words. A service on several hosts has ``hosts`` besides, one entry each.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
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

__all__ = ["Comparison", "compare", "contrast", "load", "outcome_of", "snapshot", "text_of"]

_HINT = "Make one with the check playbook and keyturn_save"
_NOT_FOUND = {"status": "not_running", "health": "unknown", "state": "not found"}
_WORDS = {HEALTHY: "running", STARTING: "running", UNHEALTHY: "unhealthy", UNKNOWN: "unknown"}

#: By service, by host: what was seen.
Seen = Mapping[str, Mapping[str, Mapping[str, Any]]]
#: By service: an entry of a file.
Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """How services are, beside how they were.

    :param worse: as :func:`compare` gives it.
    :param statuses: by service and host the status before and now; what is not in it was not compared.
    :param gone: services of before that are not there any more, and were not well then either.
    :param left_out: services of before that nobody looked at this time.
    """

    worse: list[dict[str, str]]
    statuses: dict[tuple[str, str], tuple[str, str]]
    gone: list[str]
    left_out: list[str]


def _entry(name: str, seen: Mapping[str, Any], running_is_enough: bool) -> dict[str, Any]:
    """One service on one host; the words of its worst container where Docker Compose runs it."""
    status, parts = str(seen.get("status") or UNKNOWN), seen.get("containers")
    if parts is None:
        word = _WORDS.get(status, "unknown")
        return {"status": word, "health": status, "service": name, "name": name, "state": word}
    if not parts:
        return dict(_NOT_FOUND)
    outcomes = [state_of(str(part["state"]), str(part["health"])) for part in parts]
    part = parts[outcomes.index(worst(outcomes))]
    # Without a check the word is the engine's: there is none. Where running is enough, another check has not answered
    bare = status == UNKNOWN and part["health"] in ("", "none") and not running_is_enough
    health = part["health"] if bare or part["state"] != "running" else status
    return {"status": part["state"], "health": health, "service": name, "name": part["name"], "state": part["state"]}


def snapshot(seen: Seen, now: datetime, running_is_enough: Collection[str] = ()) -> dict[str, Any]:
    """The content of a file.

    :param seen: by service, by host, what ``service_health`` said: ``status``, and ``containers`` of Docker Compose.
    :param now: local time without a zone, as the format has it.
    :param running_is_enough: the services for which it is.
    """
    services = {}
    for name, hosts in sorted(seen.items()):
        entries = {host: _entry(name, said, name in running_is_enough) for host, said in sorted(hosts.items())}
        lowest = min(entries, key=lambda host: RANK.get(entries[host]["health"], 0)) if entries else ""
        services[name] = {**(entries[lowest] if entries else _NOT_FOUND), "hosts": entries}
    return {"timestamp": now.replace(tzinfo=None).isoformat(), "services": services}


def text_of(content: Mapping[str, Any]) -> bytes:
    """A snapshot as it lies on the disk."""
    return json.dumps(content, indent=2).encode() + b"\n"


def load(text: str, where: str) -> dict[str, dict[str, Any]]:
    """The services in a file; there is at least one.

    :raises KeyturnError: ``snapshot-invalid`` for what is no snapshot, and for one without a service.
    """
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    services = content.get("services") if isinstance(content, dict) else None
    if not isinstance(services, dict) or not all(map(_is_entry, services.values())):
        raise KeyturnError("snapshot-invalid", "is no health snapshot", where=where, hint=_HINT)
    if not services:
        raise KeyturnError("snapshot-invalid", "names no service, so nothing can be compared", where=where, hint=_HINT)
    return services


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    hosts = entry.get("hosts") or {}
    return isinstance(hosts, dict) and all(isinstance(one, dict) for one in hosts.values())


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


def _pairs(then: Mapping[str, Any], now: Mapping[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    """By host the entries of before and now; under an empty name those of all hosts, where one side knows no hosts."""
    hosts, here = then.get("hosts") or {}, (now or {}).get("hosts") or {}
    return {host: (hosts[host], here.get(host)) for host in sorted(hosts)} if hosts and here else {"": (then, now)}


def compare(before: Entries, after: Entries, running_is_enough: Collection[str] = ()) -> list[dict[str, str]]:
    """The services that got worse: ``name``, ``host`` (empty for all), ``before``, ``after``, ``detail``.

    A service that is not there any more is ``unknown`` now.

    :param running_is_enough: the services for which it is.
    """
    found = []
    for name in sorted(before):
        enough = name in running_is_enough
        for host, (was, entry) in _pairs(before[name], after.get(name)).items():
            old = outcome_of(was, enough)
            new = Outcome(UNKNOWN, "it is not there any more") if entry is None else outcome_of(entry, enough)
            if RANK[new.status] < RANK[old.status]:
                found.append(
                    {"name": name, "host": host, "before": old.status, "after": new.status, "detail": new.detail}
                )
    return found


def contrast(
    before: Entries, after: Entries, running_is_enough: Collection[str] = (), *, whole: bool = False
) -> Comparison:
    """What got worse, what is as it was, and what cannot be compared.

    :param after: a snapshot of what was looked at now, with ``hosts``.
    :param whole: whether everything was looked at that there is; then a service that is in ``before`` alone is gone.
    """
    missing = sorted(set(before) - set(after))
    worse = compare({name: before[name] for name in before if whole or name in after}, after, running_is_enough)
    statuses = {}
    for name in set(before) & set(after):
        enough = name in running_is_enough
        pairs = _pairs(before[name], after[name])
        for host, entry in (after[name].get("hosts") or {}).items():
            was = (pairs.get(host) or pairs.get("") or (None,))[0]
            if was is not None:
                statuses[name, host] = outcome_of(was, enough).status, outcome_of(entry, enough).status
    lost = {entry["name"] for entry in worse}
    gone = [name for name in missing if whole and name not in lost]
    return Comparison(worse, statuses, gone, [] if whole else missing)
