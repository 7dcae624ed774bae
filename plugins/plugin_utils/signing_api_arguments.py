# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a job of the plan to the arguments of ``signing_key_api`` and ``signing_key_api_info``, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.of_catalog import HELD_VALUES, SOURCES
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import bring, public_key

__all__ = ["api_call", "api_told", "is_behind_api"]

#: What is said of a table's keys at the same point: the stage of a turn after a step, or after what was found.
_STAGES = {
    "sound": "staged",
    "new": "promoted",
    "stays": "promoted",
    "replaced": "disabled",
    "old": "withdrawn",
    "rolled_back": "withdrawn",
}
_SESSION = ("state_dir", "session_dir", "rotation_id", "epoch")
_PLAIN = ("api", "ca_file", "timeout", "client_key", "initial", "shown_to")
#: The module's name of a field that the catalog calls otherwise.
_RENAMED = {"client_cert": "client_pem"}


def is_behind_api(args: Mapping[str, Any]) -> bool:
    """Whether a task of the kind is about a secret behind an API."""
    return "api" in (args.get("job") or {})


def api_call(args: Mapping[str, Any], templar: Any, task_vars: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The module to run and its arguments, with references in place of values.

    An API that disables nothing is only looked at where the former key would be disabled.

    :raises KeyturnError: those of ``owned_values``.
    """
    job = args["job"]
    arguments = {
        **{name: args[name] for name in _SESSION if name in args},
        "name": job["secret"],
        **{name: job[name] for name in _PLAIN if name in job},
        **_values(job, str(args["rotation_id"]), templar, task_vars),
    }
    if "state" not in args:
        return "signing_key_api_info", {**arguments, "expect": args["expect"]}
    if args["state"] == "disabled" and "disable" not in job["api"]:
        return "signing_key_api_info", {**arguments, "expect": "new"}
    arguments.update(
        state=args["state"],
        wait=job["wait"],
        defer=bool(job["restart"]) and not args.get("restarted"),
        overlap_s=job["overlap_s"],
        early=args.get("early", False),
        disable=args.get("disable", "previous"),
    )
    return "signing_key_api", arguments


def api_told(result: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """The result as that of a table's keys reads, with what only an API has in ``issuer``."""
    job, state = args["job"], str(args.get("state") or args.get("expect"))
    stays = state == "disabled" and "disable" not in job["api"]
    did = "stays" if stays else state
    stage = _STAGES.get(did, did)
    turned = {"tenant": "", "new_kid": result["new_kid"], "old_kid": result["former_kid"], "stage": stage}
    turns = [turned] if result["new_kid"] else []
    return {
        **{name: value for name, value in result.items() if name != "keys"},
        "keys": turns,
        "turns": turns,
        "stages": {stage: 1} if turns else {},
        "signing": {"secret": job["secret"]},
        "issuer": {
            "at": job["api"]["base"],
            "did": did,
            "before": result["before_kids"],
            "listed": [key["kid"] for key in result["keys"] if key["state"] != "disabled"],
            "issued": result["issued_kid"],
            "restart": "" if result.get("seen", True) else job["restart"],
        },
    }


def _values(job: Mapping[str, Any], rotation_id: str, templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """References to everything that is no part of the plan."""
    name = job["secret"]
    where = f"keyturn_secrets.{name}.key_api"

    def reference(source: Mapping[str, Any], field: str, what: str) -> dict[str, str]:
        if "env_file" in source:
            return {"env_file": source["env_file"], "variable": source["variable"]}
        if "host_file" in source:
            return {"file": source["host_file"]}
        value = bring(source, templar, task_vars, f"{where}.{field}")
        return {"sealed": sealed.seal(value, public_key(task_vars), f"{rotation_id}/{name}/{what}")}

    found: dict[str, Any] = {
        _RENAMED.get(field, field): reference(job[field], field, what)
        for field, what in HELD_VALUES.items()
        if field in job
    }
    if "host_file" in job.get("client_cert", {}):  # TLS reads it where it lies
        found["client_cert"] = found.pop("client_pem")["file"]
    found["headers"] = [
        {"name": header["name"], "text": header["text"]}
        if "text" in header
        else {
            "name": header["name"],
            **reference(
                {key: header[key] for key in SOURCES if key in header}, f"headers[{index}]", f"header {header['name']}"
            ),
        }
        for index, header in enumerate(job.get("headers", ()))
    ]
    return found
