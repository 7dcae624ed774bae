# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines for people: the plan, or how every secret stands."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import plan_lines, status_lines
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.gather import gather


class ActionModule(KeyturnAction):
    """Runs on the controller alone."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Show what was asked for."""
        args = self._task.args
        planned = args["planned"]
        if args.get("what") == "status":
            lines = status_lines(planned)
        else:
            run = gather({"plan": planned["plan"]}, {}, {}, task_vars)
            lines = plan_lines(run, planned["secrets"])
        for line in lines:
            display.display(line)
        return {"changed": False, "lines": lines}
