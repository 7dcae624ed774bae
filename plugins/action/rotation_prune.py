# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of pruning: what was removed, and which versions that has closed."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.closing_time import close_versions, removal_lines
from ansible_collections.keyturn.rotation.plugins.plugin_utils.controller import whoami


class ActionModule(KeyturnAction):
    """Runs on the state host."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Say what was removed; close what no backup holds any more."""
        plan = self._task.args["plan"]
        lines = removal_lines(task_vars) or ["  removed     nothing has had its time"]
        closed: list[str] = []
        if not self._task.check_mode:
            closed = close_versions(self.call, self._task.args["state_dir"], plan, whoami(), task_vars)
        lines = ["", "Backups", *lines, *closed]
        for line in lines:
            display.display(line)
        return {"changed": bool(closed), "lines": lines}
