# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``signing_key_info``: the connection string and the encryption key in boxes."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.signing_arguments import (
    signing_job,
    with_signing_references,
)


class ActionModule(KeyturnAction):
    """Runs the module ``signing_key_info``."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = with_signing_references(self._task.args, self._templar, task_vars)
        return {**self.call("signing_key_info", arguments, task_vars), **signing_job(self._task.args)}
