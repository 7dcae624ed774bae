# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``secret_backup``: the catalog's policy as arguments, keys in boxes."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.backup_arguments import with_policy


class ActionModule(KeyturnAction):
    """Runs the module ``secret_backup``."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = with_policy(self._task.args, self._templar, self._loader, task_vars)
        if arguments.get("compare"):  # a plan says more of a secret
            arguments["compare"] = [
                {part: entry[part] for part in ("name", "stores")} for entry in arguments["compare"]
            ]
        return self.call("secret_backup", arguments, task_vars)
