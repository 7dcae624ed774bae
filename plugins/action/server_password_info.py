# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``server_password_info``: connection strings and an admin's password in boxes."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.server_arguments import with_server_references


class ActionModule(KeyturnAction):
    """Runs the module ``server_password_info``."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        return self.call(
            "server_password_info", with_server_references(self._task.args, self._templar, task_vars), task_vars
        )
