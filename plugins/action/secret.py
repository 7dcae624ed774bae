# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``secret``: who seals to whom, and a person's own values in boxes."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.secret_arguments import (
    accepting,
    for_making,
    sealed_for,
    with_own_values,
)


class ActionModule(KeyturnAction):
    """Runs the module ``secret``; with ``plan`` it works out what this host makes, with ``boxes`` what it accepts."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = dict(self._task.args)
        plan = arguments.pop("plan", None)
        origins, publics = (arguments.pop(name, None) or {} for name in ("origins", "publics"))
        boxes = arguments.pop("boxes", None)
        if plan is not None:
            arguments["secrets"] = for_making(plan, task_vars["inventory_hostname"], origins, publics)
        elif boxes is not None:
            arguments["secrets"] = accepting(arguments["secrets"], boxes)
        rotation_id = arguments.get("rotation_id") or ""
        arguments["secrets"] = with_own_values(arguments.get("secrets") or [], rotation_id, self._templar, task_vars)
        return {**self.call("secret", arguments, task_vars), **sealed_for(arguments)}
