# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the record of a restore: what every host said, and who asked."""

from __future__ import annotations

import secrets
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import new_rotation_id
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, answers_of, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.controller import on_record, whoami
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import evidence_choice
from ansible_collections.keyturn.rotation.plugins.plugin_utils.restored import restored_record


class ActionModule(KeyturnAction):
    """Runs on the state host."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Seal what was restored, and say where."""
        args, planned = self._task.args, task_vars["__rotation_planned"]
        state = {"state_dir": args["state_dir"]}
        now = self.call("rotation_state", {"action": "read", **state}, task_vars)["now"]
        failures = {
            host: str(task_vars["hostvars"][host]["__rotation_refused"])
            for host in task_vars["ansible_play_hosts_all"]
            if "__rotation_refused" in task_vars["hostvars"][host]
        }
        about = {
            "rotation_id": new_rotation_id(parse_stamp(planned["now"]), secrets.token_hex),
            "who": on_record(whoami()),
            "why": args.get("reason", ""),
            "started_at": planned["now"],
            "now": now,
        }
        record = restored_record(args["plan"], answers_of(task_vars, "__rotation_restored"), failures, about)
        if not record:
            return {"changed": False, "path": ""}
        sealing = evidence_choice(self._templar, task_vars)
        sealed = self.call("evidence", {**state, **sealing, "record": record}, task_vars)
        for problem in sealed.get("problems", ()):
            display.warning(problem)
        display.display(f"  evidence    {sealed['path']}")
        return {"changed": True, "path": sealed["path"]}
