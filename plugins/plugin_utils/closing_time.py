# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After backups were removed: which retired versions are closed by that, written into evidence and register."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils import closing
from ansible_collections.keyturn.rotation.plugins.module_utils.registry import turned_in
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import answers_of

__all__ = ["close_versions", "closed_record", "removal_lines"]

#: Where hosts registered what is left of their backups; the first that has it counts.
_ANSWERS = ("__rotation_pruned", "__rotation_backup")


def _answers(task_vars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in _ANSWERS:
        for host, said in answers_of(task_vars, name).items():
            if "removed" in said:
                found.setdefault(host, said)
    return found


def removal_lines(task_vars: Mapping[str, Any]) -> list[str]:
    """What was removed, one line for each backup."""
    return [
        f"  removed     {host}: {entry['name']} ({entry['why']})"
        for host, said in sorted(_answers(task_vars).items())
        for entry in said["removed"]
    ]


def closed_record(
    rotation_id: str, rotation: Mapping[str, Any], kinds: Mapping[str, str], who: Mapping[str, Any], now: str
) -> dict[str, Any]:
    """The evidence that no backup holds a version any more."""
    return {
        "schema_version": 1,
        "rotation_id": rotation_id,
        "event": "closed",
        "secrets": [
            {"name": name, "kind": kinds[name], "versions": [{"version": "old", "state": "closed", "at": now}]}
            for name in turned_in(rotation)
        ],
        "who": {"user": who.get("user", "unknown"), "controller": who.get("controller")},
        "when": {"started_at": rotation["started_at"], "ended_at": now},
        "why": "the last backup that held the version before is gone",
        "backups": [],
    }


def close_versions(
    call: Callable[[str, Mapping[str, Any], dict[str, Any]], dict[str, Any]],
    state_dir: str,
    plan: Mapping[str, Any],
    who: Mapping[str, Any],
    task_vars: dict[str, Any],
    sealing: Mapping[str, Any],
) -> list[str]:
    """Close what can be closed and note what still holds the rest. Returns lines for people.

    :param call: runs a module on the state host.
    :param state_dir: the state host's folder.
    :param sealing: who signs the evidence, and where copies of it go.
    """
    if plan["waived"]:
        return []  # nobody knows what the missing host has
    state = {"state_dir": state_dir}
    read = call("rotation_state", {"action": "read", **state}, task_vars)
    register, now = read["register"], read["now"]
    backups = {host: said["backups"] for host, said in _answers(task_vars).items()}
    escrow = {host: said["left"] for host, said in answers_of(task_vars, "__rotation_escrow_left").items()}
    kinds = {secret["name"]: secret["kind"] for secret in plan["secrets"]}
    lines = []
    for rotation_id, retired_at in sorted(closing.over(register).items()):
        found = closing.held_by(register, rotation_id, retired_at, plan["hosts"], backups)
        elsewhere = closing.held_in_escrow(register, rotation_id, plan["escrow"], escrow)
        rotation = register["rotations"][rotation_id]
        if found is None or elsewhere is None:
            continue
        held = [*(f"{host}: {backup['name']}" for host, backup in found), *elsewhere]
        if held == rotation.get("held"):
            continue
        if not held:
            record = closed_record(rotation_id, rotation, kinds, who, now)
            sealed = call("evidence", {**state, **sealing, "record": record}, task_vars)
            lines += [f"  WARNING     {text}" for text in sealed.get("problems", ())]
            lines.append(f"  closed      {', '.join(rotation['secrets'])}: nothing holds what {rotation_id} retired")
        facts = {"held": held}
        call("rotation_state", {"action": "close", **state, "rotation_id": rotation_id, "facts": facts}, task_vars)
    return lines
