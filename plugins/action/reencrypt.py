# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of re-encryption: the connection string in a box, progress in plain sight."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.long_job import LongJobAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.reencrypt_arguments import job_of, with_references

_LONG = ("in_place", "prepared", "swept")


class ActionModule(LongJobAction):
    """Runs the module ``reencrypt``, the long states as a job that is watched."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = with_references(self._task.args, self._templar, task_vars)
        state = arguments.get("state")
        is_long = state in _LONG or (state == "cleaned" and arguments.get("sanitize"))
        if is_long and not self._task.check_mode and "job" in self._task.args:
            result = self.watch("reencrypt", arguments, arguments["progress_path"], task_vars)
        else:
            result = self.call("reencrypt", arguments, task_vars)
        return {**result, **job_of(self._task.args)}
