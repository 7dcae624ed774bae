# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all hosts said of their services, as one answer and as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.snapshot import Comparison

__all__ = ["beside", "collect", "lines", "problems", "report", "unwell"]

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


def beside(compared: Comparison | None, name: str, host: str) -> str:
    """What is added to the words for a service that is not well; nothing where it got worse, which is said apart."""
    if compared is None or _got_worse(compared, name, host):
        return ""
    if (name, host) not in compared.statuses:
        return ", not compared: nobody knows how it was"
    before, now = compared.statuses[name, host]
    return ", as before" if before == now else f", {before} before"


def _got_worse(compared: Comparison, name: str, host: str) -> bool:
    return any(entry["name"] == name and entry["host"] in ("", host) for entry in compared.worse)


def problems(
    seen: Mapping[str, Mapping[str, Mapping[str, Any]]], compared: Comparison | None, only_worse: bool
) -> list[str]:
    """Why it is a failure, in words; empty where it is none.

    :param only_worse: whether what was not well before may be so now. What was not compared may not.
    """
    bad = unwell(seen)
    if compared is None:
        return [f"{name} on {host} is {why}" for name, host, why in bad]
    found = [f"{entry['name']} was {entry['before']} and is {entry['after']}" for entry in compared.worse]
    return found + [
        f"{name} on {host} is {why}{beside(compared, name, host)}"
        for name, host, why in bad
        if not _got_worse(compared, name, host) and not (only_worse and (name, host) in compared.statuses)
    ]


def lines(
    seen: Mapping[str, Mapping[str, Mapping[str, Any]]], verbose: bool, compared: Comparison | None = None
) -> list[str]:
    """What is not well, and with ``verbose`` everything with its log."""
    shown = ["", "Services"]
    for name, hosts in sorted(seen.items()):
        for host, said in sorted(hosts.items()):
            well = said["status"] == "healthy"
            if verbose or not well:
                added = "" if well else beside(compared, name, host)
                shown.append(f"  {name} on {host}: {said['status']} ({said['detail']}){added}")
            if verbose:
                shown += [f"    | {line}" for line in said.get("log", ())]
    number = sum(len(hosts) for hosts in seen.values())
    bad = len(unwell(seen))
    shown.append(f"  {number - bad} of {number} healthy" if bad else f"  all {number} healthy")
    return shown


def _worse_line(entry: Mapping[str, Any], seen: Mapping[str, Mapping[str, Any]]) -> str:
    where = f" on {entry['host']}" if entry["host"] else ""
    # What was seen says more than the words of a file do
    detail = seen.get(entry["host"], {}).get("detail") or entry["detail"]
    return f"  {entry['name']}{where}: {entry['before']} before, {entry['after']} now ({detail})"


def report(
    seen: Mapping[str, Mapping[str, Mapping[str, Any]]],
    compared: Comparison | None,
    order: Iterable[str],
    verbose: bool = False,
) -> list[str]:
    """Everything that is shown.

    :param compared: None where nothing was compared.
    :param order: service names in the order in which they are restarted, only to sort what got worse.
    """
    shown = lines(seen, verbose, compared)
    if compared is None:
        return shown
    place = {name: number for number, name in enumerate(order)}
    shown += ["", "Compared with before"]
    for entry in sorted(compared.worse, key=lambda one: (place.get(one["name"], len(place)), one["name"], one["host"])):
        shown.append(_worse_line(entry, seen.get(entry["name"], {})))
        hosts = [entry["host"]] if entry["host"] else sorted(seen.get(entry["name"], {}))
        if not verbose:
            for host in hosts:
                log = seen.get(entry["name"], {}).get(host, {}).get("log", ())
                shown += [f"    | {line}" for line in log]
    new = [(name, host) for name in sorted(seen) for host in sorted(seen[name])]
    new = [place for place in new if place not in compared.statuses]
    for words, names in (
        ("not compared, nothing is known of before", [f"{name} on {host}" for name, host in new]),
        ("not in the catalog any more, and not well before", compared.gone),
        ("not looked at this time", compared.left_out),
    ):
        shown += [f"  {words}: {', '.join(names)}"] if names else []
    shown.append(f"  {len(compared.worse)} worse than before" if compared.worse else "  nothing is worse than before")
    return shown
