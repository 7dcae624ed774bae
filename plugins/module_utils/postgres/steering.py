# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A person's hand on re-encryptions that run on this host: how far each is, and pause, resume, stop or another rate.

Neither takes a lock, nor the mutex of the host: files of the jobs are read, and one file beside each is written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import remove_file, write_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import control_path
from ansible_collections.keyturn.rotation.plugins.module_utils.processes import start_time
from ansible_collections.keyturn.rotation.plugins.module_utils.session import check_name

__all__ = ["progress_path", "run"]

#: Work that can be left where it is: the service runs, and the same call goes on.
_CAN_BE_LEFT = ("in_place", "prepared", "swept")
#: After so many seconds a job whose process cannot be seen counts as gone.
_SILENT_SECONDS = 30


def progress_path(folder: str, secret: str, database: str) -> str:
    """Where the job of a secret in a database says how far it is."""
    return os.path.join(folder, f"progress-{secret}-{database}.json")


def _running(path: str) -> dict[str, Any] | None:
    """What a job says of itself; None where there is none, or it is over."""
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
        silent = time.time() - float(said["t"])
        pid, started = int(said["pid"]), said["started"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    lives = start_time(pid) == started if started is not None else silent <= _SILENT_SECONDS
    if not lives:
        return None
    shown = ("state", "table", "column", "done", "total", "rate", "left_s", "paused", "behind")
    return {**{key: said.get(key) for key in shown}, "silent_s": round(max(0.0, silent), 1)}


def _order(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the control file is to say; None for no file."""
    orders: dict[str, dict[str, Any] | None] = {
        "pause": {"do": "pause"},
        "stop": {"do": "stop"},
        "limit": {"do": "run", "rate": params["rate"]},
        "resume": None,
    }
    return orders[params["action"]]


def _obeyed(path: str, order: Mapping[str, Any] | None) -> bool:
    """Write the control file, or remove it; whether that changed anything."""
    control = control_path(path)
    if order is None:
        return remove_file(control)
    content = json.dumps(order).encode()
    try:
        with open(control, "rb") as file:
            if file.read() == content:
                return False
    except FileNotFoundError:
        pass
    write_file(control, content, 0o600)
    return True


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The work of the module ``rotation_pace``.

    :raises KeyturnError: ``stop-refused`` where half of the work would be worse than all of it.
    """
    folder, changed = os.path.join(params["state_dir"], "host"), False
    found: list[dict[str, Any]] = []
    for job in params["jobs"]:
        names = {key: check_name(job[key], key) for key in ("secret", "database")}
        path = progress_path(folder, **names)
        said = _running(path)
        if said is not None and params["action"] != "read":
            if params["action"] == "stop" and said["state"] not in _CAN_BE_LEFT:
                hint = "Let it finish, or pause it"
                raise KeyturnError("stop-refused", "the swap cannot be left half way", where=path, hint=hint)
            if not check_mode:
                changed |= _obeyed(path, _order(params))
                if _running(path) is None:  # it ended meanwhile: the next one must not find this
                    _obeyed(path, None)
                    said = None
        if said is not None:
            found.append({**names, **said})
    return {"changed": changed or bool(check_mode and found and params["action"] != "read"), "jobs": found}
