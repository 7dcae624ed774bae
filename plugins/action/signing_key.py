# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``signing_key``: values in boxes, and the way to a table or to an issuer's API."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.signing_api_arguments import (
    api_call,
    api_told,
    is_behind_api,
)
from ansible_collections.keyturn.rotation.plugins.plugin_utils.signing_arguments import (
    signing_job,
    with_signing_references,
)


class ActionModule(KeyturnAction):
    """Runs the module ``signing_key``, or for a job behind an API the one that asks it."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        if is_behind_api(self._task.args):
            module, asked = api_call(self._task.args, self._templar, task_vars)
            return api_told(self.call(module, asked, task_vars), self._task.args)
        arguments = with_signing_references(self._task.args, self._templar, task_vars)
        return {**self.call("signing_key", arguments, task_vars), **signing_job(self._task.args)}
