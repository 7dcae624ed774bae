# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What servers said to passwords, for plan, evidence and the summary. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["login_rows", "no_gap", "planned", "restart_notes", "server_lines"]

#: What the kinds registered: host, step and each result.
Results = Sequence[tuple[str, str, Mapping[str, Any]]]
_STEPS = ("promote", "rollback", "verify", "retire")


def _servers(kinds: Results, steps: Iterable[str] = _STEPS) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for step in steps:
        for host, said_in, result in kinds:
            if said_in == step:
                for server in result.get("servers", ()):
                    yield host, server


def _latest(kinds: Results) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """By host, secret and place, what the last step that tried logins showed."""
    return {
        (host, server["secret"], server["place"]): server for host, server in _servers(kinds) if server.get("logins")
    }


def login_rows(kinds: Results) -> list[dict[str, Any]]:
    """The logins that were tried, as the probes of the evidence."""
    return [
        {
            "name": f"{secret}: {place}",
            "type": server["type"],
            "version": login["version"],
            "expected": login["expected"],
            "result": login["result"],
            "host": host,
        }
        for (host, secret, place), server in sorted(_latest(kinds).items())
        for login in server["logins"]
    ]


def no_gap(plan: Mapping[str, Any]) -> bool:
    """Whether both versions are accepted all the time: each secret is checked by Redis servers and nothing else."""
    work = list(plan["hosts"].values())
    checked: dict[str, set[str]] = {}
    for host in work:
        for server in host.get("servers", ()):
            checked.setdefault(server["secret"], set()).add(server["type"])
    data = any(host["jobs"] for host in work)
    return not data and bool(plan["secrets"]) and all(checked.get(s["name"]) == {"redis"} for s in plan["secrets"])


def planned(work: Mapping[str, Any]) -> list[str]:
    """What a host does at its servers, for the plan."""
    return [
        f"role {server['role']} of {server['database']}"
        if server["type"] == "postgres"
        else f"user {server.get('user') or 'default'} on Redis {server['address']}"
        for server in work.get("servers", ())
    ]


def server_lines(kinds: Results) -> list[str]:
    """One line for each server: what was accepted and refused, and how long the change took."""
    took = {
        (host, server["secret"], server["place"]): server["took_ms"]
        for host, server in _servers(kinds, ("promote", "rollback"))
        if server["changed"]
    }
    lines = []
    for key, server in sorted(_latest(kinds).items()):
        said = ", ".join(f"{login['version']} {login['result']}" for login in server["logins"])
        done = f"; changed in {took[key]} ms" if key in took else ""
        lines.append(f"  server      {server['place']}: {said}{done}")
    return lines


def restart_notes(kinds: Results) -> list[str]:
    """Servers that forget the new password when they restart, unless they are started with it."""
    forgetful = {server["place"] for _host, server in _servers(kinds, ("promote",)) if server.get("kept_in") == "none"}
    return [
        f"{place} has no configuration file: start it with the new password from now on" for place in sorted(forgetful)
    ]
