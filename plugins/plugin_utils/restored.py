# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a restore: which files hold again what a backup holds, and whose values changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.material import mask_texts

__all__ = ["restored_record"]


def restored_record(
    plan: Mapping[str, Any],
    answers: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """What is sealed, or nothing where no file changed.

    :param answers: what ``secret_backup`` said on each host after the restore.
    :param failures: by host, what failed there: a host that could not go on, a service that is not well.
    :param about: ``rotation_id`` (a name for this restore), ``who``, ``why``, ``started_at`` and ``now``.
    """
    changed = {host: said for host, said in answers.items() if said["restored"]}
    if not changed:
        return {}
    secrets = {secret["name"]: secret for secret in plan["secrets"]}
    held = {
        entry["name"]
        for host, said in changed.items()
        for entry in plan["hosts"][host]["secrets"]
        if set(said["backup"]["files"]) & {store["path"] for store in entry["stores"]}
    }
    other = {name for said in changed.values() for name in said.get("differing", ())}
    names = sorted(name for name in held | other if name in secrets) or sorted(secrets)
    expected = {host for host, work in plan["hosts"].items() if work["secrets"]}
    record = {
        "schema_version": 1,
        "rotation_id": about["rotation_id"],
        "event": "restored",
        "secrets": [
            {"name": name, "kind": secrets[name]["kind"], "fingerprint_changed": name in other} for name in names
        ],
        "who": dict(about["who"]),
        "when": {"started_at": about["started_at"], "ended_at": about["now"]},
        "why": about["why"] or "no reason given",
        "hosts": {
            "expected": sorted(expected),
            "done": sorted(answers),
            "waived": list(plan["waived"]),
            "lost": sorted(expected - set(answers) - set(failures)),
        },
        "messages": [
            *(_message(host, said) for host, said in sorted(changed.items())),
            *(f"{host}: {text}" for host, text in sorted(failures.items())),
        ],
    }
    masked: dict[str, Any] = mask_texts(record)
    return masked


def _message(host: str, said: Mapping[str, Any]) -> str:
    where = f"; what was there is in {said['replaced']}" if said["replaced"] else ""
    return f"{host}: {', '.join(said['restored'])} as in {said['backup']['name']}{where}"
