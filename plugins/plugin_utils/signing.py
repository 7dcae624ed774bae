# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of signing keys, for plan and evidence: kids and counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.figures import thousands

__all__ = ["notes", "planned", "told"]

#: What the kinds registered: host, step and each result.
Results = Sequence[tuple[str, str, Mapping[str, Any]]]

_WORDS = (
    ("made", "made"),
    ("promoted", "sign now"),
    ("disabled", "of before disabled"),
    ("withdrawn", "taken out of use again and still accepted"),
    ("removed", "that never signed removed"),
)

#: The member with the turned tenants in what the steps say that look last, the latest first.
_LOOKED = (("retire", "keys"), ("verify", "turns"))
#: By stage: what the new and the former key of a tenant are.
_STATES = {
    "staged": ("staged", "primary"),
    "promoted": ("primary", "previous"),
    "disabled": ("primary", "retired"),
    "withdrawn": ("previous", "primary"),
}


def planned(work: Mapping[str, Any]) -> list[str]:
    """What a host does to signing keys and to the documents they sign, for the plan."""
    found = []
    for job in work.get("signing", ()):
        if "api" in job:
            found += _planned_at_issuer(job)
            continue
        found.append(f"signing keys in {job['table']} of {job['database']}")
        tables = [entry["table"] for entry in job.get("documents", {}).get("tables", ())]
        found += [f"signed documents in {table} of {job['database']}" for table in tables]
    return found


def _planned_at_issuer(job: Mapping[str, Any]) -> list[str]:
    restart = f", restarting {job['restart']} where it does not show a change at once" if job["restart"] else ""
    found = [f"signing keys of {job['secret']} by the API at {job['api']['base']}{restart}"]
    if "disable" not in job["api"]:
        found.append(f"the former key of {job['secret']} stays listed: this API disables none")
    return found


def _at_issuer(name: str, result: Mapping[str, Any]) -> list[str]:
    """What an issuer showed once it was changed: the kids that are listed, and that of a fresh token."""
    issuer = result["issuer"]
    head = f"signing keys of {name} at {issuer['at']}"
    new, former = result["new_kid"], result["former_kid"]
    if issuer["did"] in ("new", "old") and new:
        signs = (
            f"{former or 'none'} -> {new}" if issuer["did"] == "new" else f"{former} signs again, {new} stays listed"
        )
        token = f"; a token issued now has {issuer['issued']}" if issuer["issued"] else ""
        listed = ", ".join(issuer["listed"])
        before = ", ".join(issuer["before"]) or "none"
        return [f"{head}: {signs}; listed before: {before}; now: {listed} ({result['count']}){token}"]
    if issuer["did"] == "stays" and former:
        return [f"{head}: {former} stays listed and accepted: this API disables no keys"]
    if issuer["did"] == "replaced" and new and result["changed"]:
        return [f"{head}: {former or 'none'} -> {new} at once, without an overlap; {former or 'nothing'} is disabled"]
    if issuer["did"] == "disabled" and result["changed"]:
        listed = f"; listed now: {', '.join(issuer['listed'])} ({result['count']})" if result["seen"] else ""
        return [f"{head}: {former} is disabled{listed}"]
    return []


def notes(kinds: Results) -> list[str]:
    """One line for each step that changed keys; a single new key is named by its kid.

    :param kinds: what the kinds registered: host, step and each result.
    """
    found = []
    for _host, _step, result in kinds:
        if "signing_key_gone" in result:
            gone, asked = result["signing_key_gone"], len(result["endpoints"])
            where = "its address shows" if asked == 1 else f"all {asked} addresses show"
            found.append(f"signing keys of {gone['secret']}: {where} {gone['kid']} no more")
        if "documents" in result and (result.get("rows_written") or result.get("rows_restored")):
            written, restored = thousands(result["rows_written"]), thousands(result["rows_restored"])
            found.append(f"documents of {result['documents']['secret']}: {written} signed, {restored} as they were")
        if "issuer" in result:
            found += _at_issuer(result["signing"]["secret"], result)
            continue
        parts = [f"{thousands(result[field])} {words}" for field, words in _WORDS if result.get(field)]
        if "signing" in result and parts:
            kids = [f"{entry['old_kid'] or 'none'} -> {entry['new_kid']}" for entry in result.get("keys", ())]
            which = f" ({kids[0]})" if len(kids) == 1 else ""
            found.append(f"signing keys of {result['signing']['secret']}: {', '.join(parts)}{which}")
    return found


def told(kinds: Results, compromised: bool = False) -> dict[str, Any]:
    """The field ``signing_keys`` of the evidence: kids, states and digests of public keys.

    Nothing where no signing key turned; a key that is not published any more has its digest from when it was.

    :param compromised: whether former keys were disabled since they were exposed.
    """
    found: dict[str, dict[str, Any]] = {}
    digests: dict[tuple[str, str], str] = {}
    for step, member in _LOOKED:
        for _host, said_in, result in kinds:
            if said_in != step or "signing" not in result or not result.get(member):
                continue
            rows = [key for turn in result[member] for key in _keys(turn)]
            for key in rows:
                if key["public_sha256"]:
                    digests.setdefault((key["tenant"], key["kid"]), key["public_sha256"])
            name = str(result["signing"]["secret"])
            found.setdefault(name, {"name": name, "tenants": sum(result["stages"].values()), "keys": rows})
    for entry in found.values():
        for key in entry["keys"]:
            key["public_sha256"] = key["public_sha256"] or digests.get((key["tenant"], key["kid"]))
            if compromised and key["state"] == "retired":
                key["state"] = "compromised"
    return {"signing_keys": [entry for _name, entry in sorted(found.items())]} if found else {}


def _keys(turn: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The new and the former key of one tenant; none of a tenant that is gone."""
    states = _STATES.get(str(turn["stage"]), ())
    return [
        {
            "tenant": turn["tenant"],
            "kid": turn[f"{which}_kid"],
            "state": state,
            "public_sha256": turn.get(f"{which}_sha256"),
        }
        for which, state in zip(("new", "old"), states)
        if turn[f"{which}_kid"]
    ]
