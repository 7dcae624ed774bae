# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all hosts said of their services, as one answer and as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["collect", "lines", "report", "unwell"]

Seen = dict[str, dict[str, dict[str, Any]]]


def collect(plan: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> Seen:
    """By service and host what was seen; a host that did not answer leaves its services unknown.

    :param plan: ``hosts`` to the services on each.
    :param answers: by host the result of ``service_health``.
    """
    found: Seen = {}
    for host, services in sorted(plan["hosts"].items()):
        said = answers.get(host, {}).get("services", {})
        missing = {"status": "unknown", "detail": "the host cannot be reached, or did not answer"}
        for service in services:
            found.setdefault(service["name"], {})[host] = dict(said.get(service["name"], missing))
    return found


def unwell(seen: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[tuple[str, str, str]]:
    """Service, host and why, for all that is not healthy."""
    return [
        (name, host, f"{said['status']} ({said['detail']})")
        for name, hosts in sorted(seen.items())
        for host, said in sorted(hosts.items())
        if said["status"] != "healthy"
    ]


def lines(seen: Mapping[str, Mapping[str, Mapping[str, Any]]], verbose: bool) -> list[str]:
    """What is not well, and with ``verbose`` everything with its log."""
    shown = ["", "Services"]
    for name, hosts in sorted(seen.items()):
        for host, said in sorted(hosts.items()):
            if verbose or said["status"] != "healthy":
                shown.append(f"  {name} on {host}: {said['status']} ({said['detail']})")
            if verbose:
                shown += [f"    | {line}" for line in said.get("log", ())]
    number = sum(len(hosts) for hosts in seen.values())
    bad = len(unwell(seen))
    shown.append(f"  {number - bad} of {number} healthy" if bad else f"  all {number} healthy")
    return shown


def _worse_line(entry: Mapping[str, Any]) -> str:
    where = f" on {entry['host']}" if entry.get("host") else ""
    return f"  {entry['name']}{where}: {entry['before']} before, {entry['after']} now ({entry['detail']})"


def report(
    seen: Mapping[str, Mapping[str, Mapping[str, Any]]],
    worse: Sequence[Mapping[str, Any]] | None,
    order: Iterable[str],
    verbose: bool = False,
) -> list[str]:
    """Everything that is shown.

    :param worse: what got worse; None where nothing was compared.
    :param order: service names in the order in which they are restarted, only to sort what got worse.
    """
    shown = lines(seen, verbose)
    if worse is None:
        return shown
    place = {name: number for number, name in enumerate(order)}
    shown += ["", "Compared with before"]
    for entry in sorted(worse, key=lambda one: (place.get(one["name"], len(place)), one["name"], one.get("host", ""))):
        shown.append(_worse_line(entry))
        hosts = [entry["host"]] if entry.get("host") else sorted(seen.get(entry["name"], {}))
        if not verbose:
            for host in hosts:
                log = seen.get(entry["name"], {}).get(host, {}).get("log", ())
                shown += [f"    | {line}" for line in log]
    shown.append(f"  {len(worse)} worse than before" if worse else "  nothing is worse than before")
    return shown
