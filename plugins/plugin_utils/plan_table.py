# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would turn, as a table for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.figures import table

__all__ = ["plan_table"]

_HEAD = ("SECRET", "KIND", "TURNED", "NEXT DUE", "HOSTS", "FILES", "SERVICES")
_EMPTY = ("", "", "", "")
_WIDE = 40


def _when(row: Mapping[str, Any]) -> tuple[str, str]:
    """When it was turned last, and when it is due."""
    turned = (row.get("primary_since") or "never")[:10]
    return turned, "now" if row.get("due") == "due" else (row.get("next_due") or "-")[:10]


def _places(plan: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """Hosts and file of each place, one line for each; a variable of another name behind the file."""
    found: dict[str, list[str]] = {}
    for host, work in plan["hosts"].items():
        for entry in work["secrets"]:
            for store in entry["stores"] if entry["name"] == name else ():
                found.setdefault(_place(store, name), []).append(host)
    return [(", ".join(sorted(set(hosts))), place) for place, hosts in sorted(found.items())]


def _place(store: Mapping[str, Any], name: str) -> str:
    variable = str(store.get("variable", name)) if store.get("type") == "env_file" else name
    inside = store.get("inside")
    words = [variable] if variable != name else []
    words += [f"inside {inside if isinstance(inside, str) else 'a pattern'}"] if inside else []
    return f"{store['path']} ({', '.join(words)})" if words else str(store["path"])


def _wrapped(names: Iterable[str]) -> list[str]:
    """Names joined by commas, in lines that are not too wide."""
    lines: list[str] = []
    for name in names:
        if lines and len(lines[-1]) + len(name) + 2 <= _WIDE:
            lines[-1] += f", {name}"
        else:
            lines.append(name)
    return [f"{line}," for line in lines[:-1]] + lines[-1:]


def plan_table(plan: Mapping[str, Any], overview: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each secret with its files, hosts and services, when it was turned last, and when it is due.

    :param overview: how every secret stands, as ``rotation_plan`` returns it.
    """
    known = {row["name"]: row for row in overview}
    rows: list[tuple[str, ...]] = [_HEAD]
    for secret in plan["secrets"]:
        name = secret["name"]
        first = (name, str(secret["kind"]), *_when(known.get(name, {})))
        places = _places(plan, name)
        services = _wrapped(secret.get("consumers", ()))
        lines = list(zip_longest(places, services)) or [(None, None)]
        for number, (place, service) in enumerate(lines):
            rows.append((*(_EMPTY if number else first), *(place or ("", "")), service or ""))
    return table(rows)
