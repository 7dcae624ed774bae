# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a job of the plan to the arguments of ``reencrypt`` and ``reencrypt_info``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.steering import progress_path
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import bring, public_key, sealed_dsn

__all__ = ["job_of", "with_references"]


def job_of(args: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a result is about, so that the account can tell results of several databases apart."""
    job = args.get("job")
    return {"job": {"secret": job["secret"], "database": job["database"]}} if job else {}


def with_references(args: Mapping[str, Any], templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """The module's arguments, with references in place of ``job`` and ``boxes``.

    Without ``job`` the arguments are the module's own and stay as they are.
    """
    arguments = dict(args)
    job, helps = arguments.pop("job", None), arguments.pop("help", None)
    if job is None:
        return arguments
    boxes = arguments.pop("boxes", None) or {}
    rotation_id, name, database = arguments["rotation_id"], job["secret"], job["database"]
    keys = {version: {"sealed": box} for version, box in boxes.items()}
    sources = {"old": "old_from"}
    if "new" not in keys and "state" not in arguments:  # counting before the new version was staged
        sources["new"] = "value_from"
    for version, source in sources.items():
        if source in job:
            value = bring(job[source], templar, task_vars, f"keyturn_secrets.{name}.{source}")
            keys[version] = {"sealed": sealed.seal(value, public_key(task_vars), f"{rotation_id}/{name}/{version}")}
    if job["dsn_file"]:
        dsn = {"file": job["dsn_file"]}
    else:
        dsn = {"sealed": sealed_dsn(database, rotation_id, templar, task_vars)}
    arguments.update(name=name, database=database, dsn=dsn, columns=job["columns"], keys=keys)
    arguments.update(cut_over=job["cut_over"], max_writer_wait_ms=job["max_writer_wait"] * 1000, quiesce=job["quiesce"])
    arguments.update(sanitize=job["sanitize"])
    if "state" not in arguments:
        pace = {key: job["pace"][key] for key in ("workers", "batch_rows")}
        arguments.update(pace, search=job["search"])
    else:
        if helps and job.get("hosts"):
            share = {"lead": helps == "lead", "host": task_vars["inventory_hostname"], "hosts": job["hosts"]}
            arguments["share"] = share
        if job.get("max_wait"):
            arguments["max_wait_s"] = job["max_wait"]
        arguments.update(
            job["pace"],
            clear=job["clear"],
            indexes=job["indexes"],
            progress_path=progress_path(arguments["session_dir"], name, database),
        )
    return arguments
