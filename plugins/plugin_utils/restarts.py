# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services read what was restored. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["affected"]


def affected(plan: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The services of the backups' own lists, and those that read a secret of a restored file.

    :param answers: what ``secret_backup`` said on each host after a restore.
    :returns: ``services`` (those that the catalog knows), and ``lines`` for people.
    """
    readers = {secret["name"]: secret.get("consumers", ()) for secret in plan["secrets"]}
    named: set[str] = set()
    found: set[str] = set()
    lines = [""]
    for host, said in sorted(answers.items()):
        backup = said["backup"]
        named.update(backup["services"])
        files = set(backup["files"])
        for entry in plan["hosts"][host]["secrets"]:
            if files & {store["path"] for store in entry["stores"]}:
                found.update(readers[entry["name"]])
        changed = ", ".join(said["restored"]) or "every file is as it was in the backup"
        lines.append(f"  restored    {host}: {backup['name']}: {changed}")
        if said["replaced"]:
            lines.append(f"  replaced    {host}: what was there is in {said['replaced']}")
        if backup["checksums"] == "none":
            lines.append(f"  note        {host}: another program made this backup, without checksums")
    known = {service for wave in plan["waves"] for service in wave}
    if named - known:
        unknown = ", ".join(sorted(named - known))
        lines.append(f"  warning     the catalog does not know {unknown}, which the backup names: restart it yourself")
    return {"services": sorted((named | found) & known), "lines": lines}
