# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``secret``: who seals to whom, and a person's own values in boxes."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, answers_of
from ansible_collections.keyturn.rotation.plugins.plugin_utils.secret_arguments import (
    for_staging,
    sealed_for,
    with_own_values,
)


class ActionModule(KeyturnAction):
    """Runs the module ``secret``; with ``plan`` it works out what this host does."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = dict(self._task.args)
        plan = arguments.pop("plan", None)
        origin = arguments.pop("origin", False)
        if plan is not None:
            arguments["secrets"] = for_staging(
                plan,
                task_vars["inventory_hostname"],
                arguments["rotation_id"],
                sessions=answers_of(task_vars, "__rotation_session"),
                found=answers_of(task_vars, "__rotation_found"),
                made=None if origin else answers_of(task_vars, "__rotation_made"),
            )
            if not arguments["secrets"]:
                return {"skipped": True, "skip_reason": "nothing to do on this host"}
        rotation_id = arguments.get("rotation_id") or ""
        arguments["secrets"] = with_own_values(arguments.get("secrets") or [], rotation_id, self._templar, task_vars)
        return {**self.call("secret", arguments, task_vars), **sealed_for(arguments)}
