# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a job of the plan to the arguments of ``signing_key`` and ``signing_key_info``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import bring, public_key, sealed_dsn

__all__ = ["signing_job", "with_signing_references"]

#: What makes or opens private parts: no other step needs the key for that, so none fails for want of it.
_WITH_KEY = ("staged", "replaced", "sound", "new")


def signing_job(args: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a result is about."""
    job = args.get("job")
    return {"signing": {"secret": job["secret"], "database": job["database"]}} if job else {}


def with_signing_references(args: Mapping[str, Any], templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """The module's arguments, with references in place of ``job`` and ``boxes``.

    Without ``job`` the arguments are the module's own and stay as they are.

    :raises KeyturnError: ``key-missing``, those of ``owned_values``.
    """
    arguments = dict(args)
    job, boxes = arguments.pop("job", None), arguments.pop("boxes", None) or {}
    if job is None:
        return arguments
    rotation_id, name, database = arguments["rotation_id"], job["secret"], job["database"]
    dsn = (
        {"file": job["dsn_file"]}
        if job["dsn_file"]
        else {"sealed": sealed_dsn(database, rotation_id, templar, task_vars)}
    )
    arguments.update(
        name=name,
        database=database,
        dsn=dsn,
        under=job.get("under", ""),
        key_table=job["key_table"],
        initial=job["initial"],
    )
    if arguments.get("state") in _WITH_KEY or arguments.get("expect") in _WITH_KEY:
        arguments["key"] = _key(job, boxes, rotation_id, templar, task_vars)
    if "state" in arguments:
        arguments.update(generate=job["generate"], workers=job["workers"], overlap_s=job["overlap_s"])
        if job["max_wait"]:
            arguments["max_wait_s"] = job["max_wait"]
    return arguments


def _key(
    job: Mapping[str, Any], boxes: Mapping[str, Any], rotation_id: str, templar: Any, task_vars: Mapping[str, Any]
) -> dict[str, str]:
    """The key that the private parts are encrypted with: as another host sealed it, or from the controller."""
    name = job["secret"]
    if "key_from" in job:
        value = bring(job["key_from"], templar, task_vars, f"keyturn_secrets.{name}.key_table.key_from")
        return {"sealed": sealed.seal(value, public_key(task_vars), f"{rotation_id}/{name}/old")}
    box = (boxes.get(job["under"]) or {}).get("old")
    if not box:
        message, hint = f"{job['under']} is not set where the catalog says", "Check the stores of that secret"
        raise KeyturnError("key-missing", message, where=f"keyturn_secrets.{name}.key_table.under", hint=hint)
    return {"sealed": box}
