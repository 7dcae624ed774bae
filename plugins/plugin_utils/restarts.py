# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services read what was restored. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.work_here import by_wave

__all__ = ["affected"]


def affected(
    plan: Mapping[str, Any],
    answers: Mapping[str, Mapping[str, Any]],
    catalog: Collection[str],
    *,
    everything: bool = False,
    restarts: bool = True,
    check: bool = False,
    overlaps: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The services of the backups' own lists, and those that read a secret of a restored file.

    The plan has the services that read these secrets, or all. One that only the backup names is left to people.

    :param answers: what ``secret_backup`` said on each host after a restore.
    :param catalog: the services of the catalog.
    :param everything: whether all services of the plan restart.
    :param restarts: whether any does.
    :param check: whether nothing was restored and nothing restarts, so that the lines say what would be.
    :param overlaps: by secret, the rotation that has turned it and may still be rolled back.
    :returns: ``services`` (those that the plan has), ``running`` (by host and wave, what restarts there), and
        ``lines`` for people.
    """
    readers = {secret["name"]: secret.get("consumers", ()) for secret in plan["secrets"]}
    named: set[str] = set()
    found: set[str] = set()
    astray: set[str] = set()
    lines = [""]
    for host, said in sorted(answers.items()):
        backup = said["backup"]
        named.update(backup["services"])
        files = set(backup["files"])
        for entry in plan["hosts"][host]["secrets"]:
            if files & {store["path"] for store in entry["stores"]}:
                found.update(readers[entry["name"]])
        changed = ", ".join(said["restored"]) or "every file is as it was in the backup"
        lines.append(_line("would restore" if check else "restored", f"{host}: {backup['name']}: {changed}"))
        if "differing" in said:
            values = f"the values of {', '.join(said['differing'])}" if said["differing"] else "no value of the catalog"
            lines.append(_line("would change" if check else "changed", f"{host}: {values}"))
            astray.update(said["astray"])
        if said["replaced"]:
            lines.append(f"  replaced    {host}: what was there is in {said['replaced']}")
        if backup["checksums"] == "none":
            lines.append(f"  note        {host}: another program made this backup, without checksums")
    planned = {service for wave in plan["waves"] for service in wave}
    unknown = ", ".join(sorted(named - planned - set(catalog)))
    if unknown:
        lines.append(f"  warning     the catalog does not know {unknown}, which the backup names: restart it yourself")
    known = ",".join(sorted((named - planned) & set(catalog)))
    if known:
        which = "names services that read none of these secrets now, so they are not restarted"
        command = f"ansible-playbook keyturn.rotation.restart -e keyturn_restart={known}"
        lines.append(f"  warning     the backup {which}. If they should be: {command}")
    services = (named | found) & planned
    running = {
        host: by_wave(plan, [each for each in work["services"] if everything or each["name"] in services])
        for host, work in plan["hosts"].items()
    }
    lines += _restarts(plan, running, restarts, check)
    lines += _astray(astray, overlaps or {}, check)
    return {"services": sorted(services), "running": running, "lines": lines}


def _line(label: str, text: str) -> str:
    return f"  {label:<11} {text}"


def _restarts(
    plan: Mapping[str, Any], running: Mapping[str, list[list[Mapping[str, Any]]]], restarts: bool, check: bool
) -> list[str]:
    """What restarts, in its order."""
    names = {service["name"] for waves in running.values() for wave in waves for service in wave}
    if not names:
        return []
    text = ", ".join(service for wave in plan["waves"] for service in wave if service in names)
    if not restarts:
        return [_line("note", f"not restarted, as asked: {text}")]
    return [_line("would restart" if check else "restarts", text)]


def _astray(names: Collection[str], overlaps: Mapping[str, str], check: bool) -> list[str]:
    """Rotations in overlap that the files do not match any more."""
    by_rotation: dict[str, list[str]] = {}
    for name in sorted(names):
        if name in overlaps:
            by_rotation.setdefault(overlaps[name], []).append(name)
    return [
        _line(
            "warning",
            f"{', '.join(found)}: rotation {rotation} is in overlap and {'would' if check else 'does'} not match these "
            f"files any more. End it: ansible-playbook keyturn.rotation.rollback -e keyturn_only={','.join(found)}",
        )
        for rotation, found in by_rotation.items()
    ]
