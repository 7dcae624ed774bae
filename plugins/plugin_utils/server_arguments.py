# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the servers of the plan to the arguments of ``server_password`` and ``server_password_info``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import bring, public_key, sealed_dsn

__all__ = ["with_server_references"]

_OF_THE_PLAN = ("secret", "kind", "dsn_file")


def with_server_references(args: Mapping[str, Any], templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """The module's arguments, with references in place of what only the controller knows.

    Without ``boxes`` the arguments are the module's own and stay as they are.
    """
    arguments = dict(args)
    boxes = arguments.pop("boxes", None)
    if boxes is None:
        return arguments
    rotation_id = arguments["rotation_id"]
    done = []
    for server in arguments["servers"]:
        name = server["secret"]
        values = boxes.get(name) or {}
        if not values and arguments.get("state") in ("verified", "retired"):
            continue  # no host has a value of this rotation any more: it was retired before
        entry = {key: value for key, value in server.items() if key not in _OF_THE_PLAN}
        entry.update(name=name, **{version: {"sealed": box} for version, box in values.items()})
        if server["type"] == "postgres":
            path = server.get("dsn_file")
            dsn = (
                {"file": path} if path else {"sealed": sealed_dsn(server["database"], rotation_id, templar, task_vars)}
            )
            entry["dsn"] = dsn
        if "admin_password" in server:
            where = f"keyturn_secrets.{name}.server.admin_password"
            value = bring(server["admin_password"], templar, task_vars, where)
            box = sealed.seal(value, public_key(task_vars), f"{rotation_id}/server/{name}/admin")
            entry["admin_password"] = {"sealed": box}
        done.append(entry)
    arguments["servers"] = done
    return arguments
