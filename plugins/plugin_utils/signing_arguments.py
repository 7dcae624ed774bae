# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a job of the plan to the arguments of ``signing_key``, ``signing_key_info`` and ``jws_resign``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.steering import progress_path
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import answers_of
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import bring, public_key, sealed_dsn

__all__ = ["documents_told", "signing_job", "with_document_references", "with_signing_references"]

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
    rotation_id = arguments["rotation_id"]
    arguments.update(
        _where(job, rotation_id, templar, task_vars),
        under=job.get("under", ""),
        key_table=job["key_table"],
        initial=job["initial"],
    )
    if arguments.get("state") in _WITH_KEY or arguments.get("expect") in _WITH_KEY:
        arguments["key"] = _key(job, boxes, rotation_id, templar, task_vars)
        arguments["seal_to"] = _probing(job, task_vars)
    if "state" in arguments:
        arguments.update(generate=job["generate"], workers=job["workers"], overlap_s=job["overlap_s"])
        if job["max_wait"]:
            arguments["max_wait_s"] = job["max_wait"]
    return arguments


def _probing(job: Mapping[str, Any], task_vars: Mapping[str, Any]) -> list[dict[str, str]]:
    """The hosts that show tokens of both versions, each with the public key of its session in this run."""
    if not job.get("probed_on"):
        return []
    sessions = answers_of(task_vars, "__rotation_session")
    return [
        {"host": host, "public": sessions[host]["public"]}
        for host in job["probed_on"]
        if sessions.get(host, {}).get("public")
    ]


def with_document_references(args: Mapping[str, Any], templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``jws_resign`` for the documents of a ``job``; without one they stay as they are.

    :raises KeyturnError: ``key-missing``, but not for the way back, which can mostly do without; those of
        ``owned_values``.
    """
    arguments = dict(args)
    job, boxes = arguments.pop("job", None), arguments.pop("boxes", None) or {}
    if job is None:
        return arguments
    rotation_id, name, documents = arguments["rotation_id"], job["secret"], job["documents"]
    arguments.update(
        _where(job, rotation_id, templar, task_vars),
        turns_of=name,
        documents=documents["tables"],
        workers=job["workers"],
        **({"jwks": documents["jwks"]} if "jwks" in documents else {}),
        **({"max_wait_s": job["max_wait"]} if job["max_wait"] else {}),
    )
    try:
        key = _key(job, boxes, rotation_id, templar, task_vars)
    except KeyturnError as error:
        if error.code != "key-missing" or arguments["state"] not in ("rolled_back", "cleaned"):
            raise
    else:
        arguments["key_table"] = {**documents["key_table"], "key": key, "under": job.get("under") or name}
    if arguments["state"] in ("resigned", "replaced"):
        arguments["progress_path"] = progress_path(arguments["session_dir"], name, job["database"])
    return arguments


def documents_told(result: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """What the account reads of a job's result: rows that are meant, in the classes that all data has."""
    job = args.get("job")
    if not job:
        return {}
    coverage = [
        {
            "table": row["table"],
            "column": row["column"],
            "total": row["total"] - row["skipped"],
            "new": row["new"],
            "old": row["old"],
            "plaintext": 0,
            "null": row["unsigned"],
            "unknown": row["other"] + row["broken"] + row["refused"],
            "skipped": row["skipped"],
        }
        for row in result["coverage"]
    ]
    return {"coverage": coverage, "documents": {"secret": job["secret"], "database": job["database"]}}


def _where(job: Mapping[str, Any], rotation_id: str, templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """The secret, its database, and the connection string: a file of that host, or in a box."""
    name, database, path = job["secret"], job["database"], job["dsn_file"]
    dsn = {"file": path} if path else {"sealed": sealed_dsn(database, rotation_id, templar, task_vars)}
    return {"name": name, "database": database, "dsn": dsn}


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
