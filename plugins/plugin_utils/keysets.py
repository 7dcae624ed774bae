# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keysets held and what readers took, for the evidence and the summary. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["lines", "no_gap", "probe_rows", "told", "waited"]

#: What the kinds registered: host, step and each result.
Results = Sequence[tuple[str, str, Mapping[str, Any]]]
_ROLES_STEPS = ("retire", "verify")
_SOURCES = {"file": "file", "keyset_command": "command", "env_file": "inline"}


def _latest(kinds: Results) -> dict[str, Mapping[str, Any]]:
    """By name, what the last step that looked saw, on one of the hosts: a gate has compared them."""
    found: dict[str, Mapping[str, Any]] = {}
    for step in _ROLES_STEPS:
        for _host, said_in, result in kinds:
            if said_in == step:
                for name, keyset in result.get("keysets", {}).items():
                    if keyset.get("active_kid"):
                        found.setdefault(name, keyset)
    return found


def _stamp(made_at: str) -> str | None:
    """A time as the evidence writes it."""
    return made_at.replace("+00:00", "Z") or None


def told(kinds: Results) -> dict[str, Any]:
    """The field ``keysets`` of the evidence: kids, states and dates. Nothing where no keyset was turned."""
    keysets = [
        {
            "name": name,
            "active_kid": keyset["active_kid"],
            "previous_active_kid": keyset.get("previous_active_kid") or None,
            "source_mode": _SOURCES.get(str(keyset.get("source")), "file"),
            "keys": [
                {
                    "kid": key["kid"],
                    "state": key["state"],
                    "since": _stamp(key.get("since") or ""),
                    "changed": key["kid"] in keyset["change"].get("changed", ()),
                }
                for key in keyset["keys"]
            ],
        }
        for name, keyset in sorted(_latest(kinds).items())
    ]
    return {"keysets": keysets} if keysets else {}


def _probes(kinds: Results) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for host, _step, result in kinds:
        if "keysets" in result or "passed" in result:
            for probe in result.get("probes", ()):
                yield host, probe


def probe_rows(kinds: Results) -> list[dict[str, Any]]:
    """What readers took before, while and after both keys were in, as the probes of the evidence."""
    return [
        {
            "name": probe["name"],
            "type": probe["type"],
            "version": probe["version"],
            "expected": probe["expected"],
            "result": probe["result"],
            "host": host,
        }
        for host, probe in _probes(kinds)
        if probe.get("version") in ("new", "old")
    ]


def waited(plan: Mapping[str, Any]) -> list[str]:
    """Keysets of which nobody was asked whether readers have loaded them."""
    return [
        f"{secret['name']}: nobody was asked whether readers have loaded it; {secret['keyset']['wait']} s were waited, "
        "as the catalog says (reload_proof: wait)"
        for secret in plan["secrets"]
        if secret.get("keyset", {}).get("proof") == "wait"
    ]


def no_gap(plan: Mapping[str, Any]) -> bool:
    """Whether both versions are accepted all the time, since nothing but keysets turns."""
    return bool(plan["secrets"]) and all(secret["kind"] == "keyset" for secret in plan["secrets"])


def lines(kinds: Results) -> list[str]:
    """One line for each keyset."""
    return [
        f"  keyset      {name}: kid {keyset['active_kid']} is active; "
        + ", ".join(f"{key['kid']} {key['state']}" for key in keyset["keys"])
        for name, keyset in sorted(_latest(kinds).items())
    ]
