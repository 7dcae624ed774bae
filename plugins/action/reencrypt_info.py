# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the coverage count: the connection string in a box."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.reencrypt_arguments import job_of, with_references


class ActionModule(KeyturnAction):
    """Runs the module ``reencrypt_info``."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = with_references(self._task.args, self._templar, task_vars)
        return {**self.call("reencrypt_info", arguments, task_vars), **job_of(self._task.args)}
