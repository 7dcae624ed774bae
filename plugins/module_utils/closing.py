# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a retired version is closed: no backup holds it any more. Pure; times are UTC.

Nothing is read from inside a backup. One that holds a file in which the version lay, and that was made while it still
lay there, is taken to hold it; so is one of which that cannot be told. So a version may be closed late, never early.
A clock may have been ahead for a while: one that an earlier rotation made was made before, whatever its time says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.gates import CLOCK_SECONDS
from ansible_collections.keyturn.rotation.plugins.module_utils.registry import turned_in

__all__ = ["held_by", "held_in_escrow", "over"]


def _time(stamp: str) -> datetime:
    """A stamp of the register; to the second, as backups have theirs."""
    return datetime.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)


def over(register: Mapping[str, Any]) -> dict[str, str]:
    """The rotations whose previous version is retired, each with the time at which that was.

    One that another followed without a retire of its own is retired with that one, and so is a part of one.
    """
    found: dict[str, str] = {}
    rotations = register["rotations"]
    for rotation_id, rotation in rotations.items():
        if rotation["status"] not in ("retired", "superseded"):
            continue
        is_retired = rotation["status"] == "retired"
        names = rotation.get("followed", ()) if is_retired else turned_in(rotation)
        later = [rotations.get(register["secrets"].get(name, {}).get("current"), {}) for name in names]
        if all(each.get("status") in ("retired", "closed", "replaced") for each in later):
            found[rotation_id] = max(each["ended_at"] for each in [*later, *([rotation] if is_retired else ())])
    return found


def _last_time(rotation: Mapping[str, Any], retired_at: str, entries: Iterable[Mapping[str, Any]]) -> datetime:
    """When the version was last in a store: a store of several versions has it until it is retired."""
    several = any(store.get("layout", "single") != "single" for entry in entries for store in entry["stores"])
    return _time(retired_at if several else rotation.get("turned_at", retired_at))


def _before(register: Mapping[str, Any], rotation_id: str) -> set[str]:
    """The rotations that began before this one: by their epochs, which only grow, and by time where they have none."""
    rotations = register["rotations"]

    def began(rotation: Mapping[str, Any]) -> int | None:
        return next((int(run["epoch"]) for run in rotation.get("runs", ())), None)

    def is_before(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        first, second = began(one), began(other)
        if first is None or second is None:
            return bool(one.get("started_at", "") < other["started_at"])
        return first < second

    return {found for found, rotation in rotations.items() if is_before(rotation, rotations[rotation_id])}


def held_by(
    register: Mapping[str, Any],
    rotation_id: str,
    retired_at: str,
    hosts: Mapping[str, Mapping[str, Any]],
    answers: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[tuple[str, Mapping[str, Any]]] | None:
    """The backups that may hold what this rotation retired, each with its host; None where that cannot be told.

    :param hosts: the plan's hosts with their secrets and stores.
    :param answers: by host, its backups as ``secret_backup`` tells them.
    """
    rotation, earlier = register["rotations"][rotation_id], _before(register, rotation_id)
    names = turned_in(rotation)
    planned = {entry["name"] for work in hosts.values() for entry in work["secrets"]}
    if not planned.issuperset(names):
        return None
    found: list[tuple[str, Mapping[str, Any]]] = []
    for host, work in sorted(hosts.items()):
        entries = [entry for entry in work["secrets"] if entry["name"] in names]
        if not entries:
            continue
        if host not in answers:
            return None
        until = _last_time(rotation, retired_at, entries)
        paths = {store["path"] for entry in entries for store in entry["stores"]}
        found += [
            (host, backup)
            for backup in answers[host]
            if backup["rotation_id"] == rotation_id or _may_hold(backup, paths, until, earlier)
        ]
    return found


def _may_hold(backup: Mapping[str, Any], paths: set[str], until: datetime, earlier: Collection[str]) -> bool:
    if not backup["complete"] or backup["foreign"]:
        return True
    if not paths & set(backup["files"]):
        return False
    if backup["rotation_id"] in earlier:
        return True
    # Backups have the time of their host, the register that of the state host
    latest = until + timedelta(seconds=CLOCK_SECONDS)
    return bool(backup["reason"]) or datetime.fromisoformat(backup["time"]) <= latest


def held_in_escrow(
    register: Mapping[str, Any],
    rotation_id: str,
    escrow: Mapping[str, Any],
    answers: Mapping[str, Mapping[str, Iterable[str]]],
) -> list[str] | None:
    """The copies elsewhere that may hold what this rotation retired, as ``host: NAME/rotation``; None: cannot be told.

    :param escrow: the plan's ``escrow``.
    :param answers: by host and secret, the rotations of which it has copies.
    """
    names = set(turned_in(register["rotations"][rotation_id])) & set(escrow["secrets"])
    if not names:
        return []
    if not set(escrow["hosts"]) <= set(answers):
        return None
    earlier = _before(register, rotation_id)
    return [
        f"{host}: {name}/{other}"
        for host in sorted(escrow["hosts"])
        for name in sorted(names)
        for other in answers[host].get(name, ())
        if other != rotation_id and (other in earlier or other not in register["rotations"])
    ]
