# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a run: evidence sealed, register written, and a few lines for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ansible.release import __version__ as ansible_version
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp, tied
from ansible_collections.keyturn.rotation.plugins.module_utils.registry import find
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import stamp_of
from ansible_collections.keyturn.rotation.plugins.module_utils.window import closing_seconds, measured_by
from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import (
    evidence_record,
    outcome,
    stopped_on,
    summary_lines,
)
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.closing_time import close_versions, removal_lines
from ansible_collections.keyturn.rotation.plugins.plugin_utils.controller import whoami
from ansible_collections.keyturn.rotation.plugins.plugin_utils.gather import gather
from ansible_collections.keyturn.rotation.plugins.plugin_utils.notices import event_of
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import evidence_choice, syslog_choice
from ansible_collections.keyturn.rotation.plugins.plugin_utils.verdict import verdict

_WANTED = {"rotate": "overlap", "rollback": "rolled_back", "retire": "retired", "emergency": "replaced"}
_COMMON = ("state_dir", "session_dir", "rotation_id", "epoch")


class ActionModule(KeyturnAction):
    """Runs on the state host."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Decide how the run ended, seal the evidence, end the run in the register."""
        args = self._task.args
        common = {key: args[key] for key in _COMMON if key in args}
        logged = {**common, **syslog_choice(self._templar, task_vars)}
        read = self.call("rotation_state", {"action": "read", **common}, task_vars)
        rotation = find(read["register"], args["rotation_id"])
        who = {**rotation.get("who", {}), **whoami(), "software": {"ansible-core": ansible_version}}
        run = replace(gather(args, rotation, who, task_vars), register=read["register"])
        status, lost = outcome(run)
        if status == "open":
            self.call("rotation_state", {"action": "release", **logged}, task_vars)
            for line in summary_lines(run, status, lost, {"hosts": _hosts(run)}, {}):
                display.display(line)
            stopped = sorted(run.answers.get("stopped", {}).items())
            failure: dict[str, Any] = {}
            if stopped:
                where = "; ".join(f"{host}: {said['task']}: {said['msg']}" for host, said in stopped)
                failure = {"failed": True, "code": "stopped", "msg": where}
            return {"changed": True, "status": status, "event": event_of(status), "lost": lost, **failure}
        record = evidence_record(run, status, lost, read["journal"], read["now"])
        sealing = evidence_choice(self._templar, task_vars)
        evidence = self.call("evidence", {**common, **sealing, "record": record}, task_vars)
        facts: dict[str, Any] = {"lost": lost}
        if status == "replaced":
            facts["exposed_until"] = max((one["until"] or "" for one in record["exposed"]), default="")
        if status == "overlap":
            facts["retire_after"] = self._retire_after(run, [read["now"], *(entry["at"] for entry in read["journal"])])
            facts["waived"] = list(run.plan["waived"])
            facts["tied"] = tied(run.plan)
        # As it was before somebody asked
        kept = {"kept": "overlap", "refused": "rolled_back"}.get(status, status)
        ending = {"action": "stay"} if status == "stayed" else {"action": "finish", "status": kept, "facts": facts}
        self.call("rotation_state", {**ending, **logged}, task_vars)
        lines = summary_lines(run, status, lost, record, evidence) + removal_lines(task_vars)
        if status in ("overlap", "retired", "replaced"):
            lines += close_versions(self.call, args["state_dir"], run.plan, who, task_vars, sealing)
        for line in lines:
            display.display(line)
        result: dict[str, Any] = {
            "changed": True,
            "status": status,
            "event": event_of(status),
            "stopped_at": _stopped_at(run),
            "retire_after": facts.get("retire_after", ""),
            "lost": lost,
            "evidence": evidence["path"],
            "report": evidence["report"],
        }
        if status != _WANTED[run.mode]:
            result.update(failed=True, code=status.replace("_", "-"), msg=verdict(run, status, lost))
        return result

    @staticmethod
    def _retire_after(run: Any, stamps: Iterable[str]) -> str:
        """When the window is over: it begins at the latest time of the rotation, also where a clock was set back."""
        measured = measured_by(run.answers.get("jwks", {}))
        seconds = (closing_seconds(secret, measured.get(secret["name"], {})) for secret in run.plan["secrets"])
        return stamp_of(max(map(parse_stamp, stamps)) + max(seconds))


def _hosts(run: Any) -> dict[str, Any]:
    return {"expected": sorted(run.plan["hosts"]), "done": sorted(run.plan["hosts"]), "waived": run.plan["waived"]}


def _stopped_at(run: Any) -> list[str]:
    """Where it failed, by host and task: no text of an error, which goes to machines of others."""
    found = [*sorted(run.answers.get("cause", {}).items()), *stopped_on(run)]
    return [f"{host}: {said['task']}" for host, said in found if said.get("task")]
