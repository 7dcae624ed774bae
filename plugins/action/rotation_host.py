# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of opening and closing a run on a host: one that only helps may be missing."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, plan_of
from ansible_collections.keyturn.rotation.plugins.plugin_utils.helping_host import tolerated
from ansible_collections.keyturn.rotation.plugins.plugin_utils.work_here import libraries, work_here

_SESSION = ("state_dir", "session_dir", "rotation_id", "epoch")
_BESIDE = ("of_plan", "restarted", "project_dir")


class ActionModule(KeyturnAction):
    """Runs the module ``rotation_host``; with ``of_plan`` it says what the tasks after it need to know: ``here``."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """A failure of the module has ``here`` too; an error of Ansible's own has nothing."""
        args = self._task.args
        self._here: dict[str, Any] = {"arguments": {name: args[name] for name in _SESSION if name in args}}
        return {**super().run(tmp, task_vars), "here": self._here}

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """A host of the plan that only helps and cannot be reached is passed over."""
        args = self._task.args
        arguments = {name: value for name, value in args.items() if name not in _BESIDE}
        if not args.get("of_plan"):
            return self.call("rotation_host", arguments, task_vars)
        plan, host = plan_of(task_vars), task_vars["inventory_hostname"]
        if arguments.get("state") != "closed":
            self._here.update(work_here(plan, host, args.get("restarted") or ()))
            self._here["project_dir"] = args.get("project_dir") or ""
            arguments["libraries"] = libraries(plan, host)
        call = partial(self._timed, arguments, task_vars)
        return call() if host in plan["hosts"] else tolerated(host, call)

    def _timed(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """With ``asked``: between which times of the controller's clock the host read its own."""
        before = time.time()
        result = self.call("rotation_host", arguments, task_vars)
        return {**result, "asked": [before, time.time()]}
