# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the plan to the arguments of ``secret`` and ``secret_info`` on one host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import bring, public_key

__all__ = ["accepting", "for_making", "origins_of", "recipients", "sealed_for", "with_own_values"]

_DEFAULT_GENERATE = {"type": "bytes", "length": 32, "encoding": "base64url"}
#: A host's answer by name: ``answers("__rotation_session")`` is a mapping from host to result.
Answers = Mapping[str, Mapping[str, Any]]


def recipients(plan: Mapping[str, Any], name: str, publics: Mapping[str, str], *, stores: bool) -> list[dict[str, Any]]:
    """Hosts that need versions of a secret: those that work on its data or servers.

    :param publics: by host, the public half that it offered in this run.
    :param stores: also those with its stores.
    """
    found = []
    for host in sorted({*plan["hosts"], *plan["helpers"]}):
        work = plan["hosts"].get(host, {"jobs": [], "servers": [], "secrets": []})
        mine = [*work["jobs"], *work["servers"], *plan["helpers"].get(host, ())]
        data = any(job["secret"] == name for job in mine)
        store = stores and any(secret["name"] == name for secret in work["secrets"])
        public = publics.get(host)
        if public and (data or store):
            found.append({"host": host, "public": public, "versions": ["new", "old"]})
    return found


def sealed_for(arguments: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Which public key of each host a result's boxes are for: a host that is lost later keeps its old result."""
    entries = [entry for secret in arguments["secrets"] for entry in secret.get("seal_to") or ()]
    return {"sealed_for": {entry["host"]: entry["public"] for entry in entries}}


def origins_of(plan: Mapping[str, Any], rotation_id: str, found: Answers) -> dict[str, str]:
    """By secret, the host whose version counts: one that already holds this rotation's, else the plan's choice.

    :param found: what the hosts answered to ``secret_info``.
    """
    return {secret["name"]: _origin(plan, secret["name"], rotation_id, found) for secret in plan["secrets"]}


def _origin(plan: Mapping[str, Any], name: str, rotation_id: str, found: Answers) -> str:
    for host in sorted(found):
        versions = found[host].get("secrets", {}).get(name, {}).get("versions") or {}
        if versions.get(rotation_id, {}).get("state") in ("staged", "promoted"):
            return host
    return str(plan["origins"][name])


def for_making(
    plan: Mapping[str, Any], host: str, origins: Mapping[str, str], publics: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Entries of the option ``secrets`` for making new versions on one host: those whose origin it is."""
    summaries = {summary["name"]: summary for summary in plan["secrets"]}
    entries = []
    for secret in plan["hosts"].get(host, {"secrets": []})["secrets"]:
        name = secret["name"]
        if origins[name] != host:
            continue
        summary = summaries[name]
        how = {key: summary[key] for key in ("derive", "value_from") if key in summary}
        if "derive" not in how:
            how["generate"] = summary.get("generate") or _DEFAULT_GENERATE
        seal_to = recipients(plan, name, publics, stores=True)
        entries.append({"name": name, "stores": secret["stores"], "origin": True, "seal_to": seal_to, **how})
    return entries


def accepting(secrets: Iterable[Mapping[str, Any]], boxes: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Entries of the option ``secrets`` for staging what others made.

    :param boxes: by secret and version, what was sealed to this host.
    """
    return [{**secret, "accept": {"new": boxes[secret["name"]]["new"]}} for secret in secrets]


def with_own_values(
    entries: list[dict[str, Any]], rotation_id: str, templar: Any, task_vars: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Put a box in place of ``value_from``. ``old_from`` concerns the data alone: stores go back to what they held."""
    done = []
    for entry in entries:
        secret = dict(entry)
        source = secret.pop("value_from", None)
        if source:
            name = secret["name"]
            value = bring(source, templar, task_vars, f"keyturn_secrets.{name}.value_from")
            secret["new"] = {"sealed": sealed.seal(value, public_key(task_vars), f"{rotation_id}/{name}/new")}
        done.append(secret)
    return done
