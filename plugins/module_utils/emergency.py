# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an emergency asks of the probes of the catalog: the new version is accepted, the compromised one is not. Pure.

The catalog says what holds in an ordinary rotation, where both versions are accepted for a while. Here nothing may take
the old one from the moment it is disabled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["split_probes"]

#: What makes two probes ask the same, but for the version.
_SAME = ("secret", "type", "url", "method", "headers", "body", "token", "ca_file")
_Probe = dict[str, Any]


def split_probes(probes: Iterable[Mapping[str, Any]]) -> dict[str, list[_Probe]]:
    """The probes of one host by when they are asked.

    :returns: ``probes`` (once services have the new version), ``refusals`` (tokens of the old version, which may take
        as long as caches last; one for each address that takes tokens, declared or not) and ``watched`` (log lines
        that must not be many, over the time after the turn).
    """
    found: dict[str, list[_Probe]] = {"probes": [], "refusals": [], "watched": []}
    tokens: list[_Probe] = []
    for probe in map(dict, probes):
        if probe["type"] == "token":
            tokens.append(probe)
        elif probe["type"] == "log" and probe.get("pattern") and "at_most" in probe:
            found["watched"].append(probe)
        elif probe.get("version") != "old":
            found["probes"].append(probe)
    for probe in tokens:
        if probe.get("version") == "new":
            found["probes"].append(probe)
    found["refusals"] = [probe for probe in tokens if probe.get("refused")]
    for probe in tokens:
        if not any(_asks_the_same(probe, known) for known in found["refusals"]):
            found["refusals"].append(_refused(probe, tokens))
    return found


def _asks_the_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all((one.get(key) or None) == (other.get(key) or None) for key in _SAME)


def _refused(probe: Mapping[str, Any], tokens: Iterable[Mapping[str, Any]]) -> _Probe:
    """The refusal of the old version where a probe shows what is accepted."""
    accepted = next((one for one in tokens if one.get("version") == "new" and _asks_the_same(one, probe)), probe)
    plain = {key: value for key, value in probe.items() if key not in ("expect", "expect_body", "version", "name")}
    named = {"name": f"{accepted['name']}, refused for the old version"} if "name" in accepted else {}
    took = {"accept": _codes(accepted["expect"])} if "expect" in accepted else {}
    return {**plain, **named, **took, "version": "old", "refused": True}


def _codes(expect: Any) -> list[int]:
    return list(expect) if isinstance(expect, list) else [int(expect)]
