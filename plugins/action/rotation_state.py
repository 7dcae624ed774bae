# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the register: who runs this, and a line for people when a phase begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.material import mask_texts
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, answers_of, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.controller import identity, whoami
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import evidence_choice, syslog_choice


class ActionModule(KeyturnAction):
    """Runs ``rotation_state`` on the state host."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Add the run's identity, run the module, say where the run is."""
        args = {**syslog_choice(self._templar, task_vars), **self._task.args}
        line = args.pop("say", "")
        if args.get("action") == "acquire":
            args["run"] = {**identity(), "sees_alive": (args.get("run") or {}).get("sees_alive", {})}
            args["details"] = {**_kept(args.get("details") or {}), "who": whoami()}
            args["sealing"] = evidence_choice(self._templar, task_vars)
        if args.get("action") == "seal":
            sessions = answers_of(task_vars, "__rotation_session")
            args["recipients"] = {host: said["public"] for host, said in sessions.items() if said.get("public")}
        if args.get("action") == "turn_back":
            args["facts"] = {"cause": mask_texts(_cause(task_vars, args["rotation_id"]))}
        result = self.call("rotation_state", args, task_vars)
        result.pop("invocation", None)
        if args.get("action") == "seal":
            result["publics"] = args["recipients"]  # so that no host has to ask all the others for it
        if line:
            display.display(line, color="bright blue" if display.verbosity == 0 else None)
        return result


def _kept(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the register keeps of a run's details: a reason is in people's own words, and is told to many."""
    kept: Mapping[str, Any] = mask_texts(details)
    if kept != details:
        display.warning(
            "keyturn_reason, or the reason of a waiver, holds what looks like a secret: that part is masked"
        )
    return kept


def _cause(task_vars: Mapping[str, Any], rotation_id: str) -> str:
    """Why the run goes back: what failed, on which host; a host that was lost leaves no result.

    Empty for a run that was to go back from its start: it has no cause of its own.
    """
    begun = (task_vars.get("__rotation_run") or {}).get("rotation") or {}
    if begun.get("status", "open") != "open":
        return ""
    said = answers_of(task_vars, "__rotation_cause")
    causes = {host: cause for host, cause in said.items() if cause.get("rotation") == rotation_id}
    if not causes:
        lost = _lost(task_vars)
        return f"{', '.join(lost)} could not be reached" if lost else "a host was lost"
    return "; ".join(f"{host}: {cause['task']}: {cause['msg']}" for host, cause in sorted(causes.items()))


def _lost(task_vars: Mapping[str, Any]) -> list[str]:
    """Hosts on which a task of this run found nobody."""
    lost = []
    for host in task_vars.get("ansible_play_hosts_all", ()):
        said = task_vars["hostvars"][host]
        results = (said[name] for name in said if name.startswith("__"))
        if any(isinstance(result, Mapping) and result.get("unreachable") for result in results):
            lost.append(host)
    return lost
