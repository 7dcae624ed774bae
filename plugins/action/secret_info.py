# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``secret_info``: the hosts with the data get the present versions in boxes."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, plan_of
from ansible_collections.keyturn.rotation.plugins.plugin_utils.backup_arguments import from_backup
from ansible_collections.keyturn.rotation.plugins.plugin_utils.secret_arguments import (
    parents,
    recipients,
    sealed_for,
)


class ActionModule(KeyturnAction):
    """Runs the module ``secret_info``; with ``of_plan`` it works out whom to seal to."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = dict(self._task.args)
        of_plan = arguments.pop("of_plan", False)
        publics = arguments.pop("publics", None) or {}
        if "policy" in arguments:
            arguments["backup"] = from_backup(arguments, self._templar, self._loader, task_vars)
        if of_plan:
            plan = plan_of(task_vars)
            work = plan["hosts"][task_vars["inventory_hostname"]]
            arguments["secrets"] = [
                {**secret, "seal_to": recipients(plan, secret["name"], publics, stores=False)}
                for secret in work["secrets"]
            ]
            if not arguments.get(
                "backup"
            ):  # what a derived value is made from must be readable, and the same everywhere
                arguments["secrets"] = [*arguments["secrets"], *parents(work, publics)]
                arguments["search"] = work.get("search", [])
        return {**self.call("secret_info", arguments, task_vars), **sealed_for(arguments)}
