# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gate over all hosts: what they said is compared on the controller; nobody goes on unless all may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import gates
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils import restarts
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, answers_of, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.gather import kind_results
from ansible_collections.keyturn.rotation.plugins.plugin_utils.secret_arguments import origins_of


class ActionModule(KeyturnAction):
    """Runs on the controller alone."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Look at the answers that the gate needs."""
        args = self._task.args
        gate = args["gate"]
        plan = args["plan"]
        result: dict[str, Any] = {"changed": False}
        sessions = answers_of(task_vars, "__rotation_session")
        if gate == "preflight":
            answers = {step: answers_of(task_vars, f"__rotation_{step}") for step in ("session", "found", "baseline")}
            problems = gates.preflight(plan, answers, bool(args.get("check_health", True)))
            result["boxes"] = _boxes(answers["found"], sessions)
            result["publics"] = {host: said["public"] for host, said in sessions.items() if said.get("public")}
            if not problems:
                result["origins"] = origins_of(plan, str(args.get("rotation_id")), answers["found"])
        elif gate == "made":
            problems = []
            result["boxes"] = _boxes(answers_of(task_vars, "__rotation_made"), sessions)
        elif gate == "staged":
            problems = gates.agreement(plan, answers_of(task_vars, "__rotation_staged"), ("staged", "promoted"))
            result["boxes"] = _boxes(answers_of(task_vars, "__rotation_made"), sessions)
        elif gate == "promoted":
            problems = gates.agreement(plan, answers_of(task_vars, "__rotation_promoted"), ("promoted",))
        elif gate == "found":
            found = answers_of(task_vars, "__rotation_found")
            problems = []
            result["boxes"] = _boxes(found, sessions)
            result["staged"] = any(
                str(args.get("rotation_id")) in (secret.get("versions") or {})
                for said in found.values()
                for secret in said.get("secrets", {}).values()
            )
        elif gate == "scanned":
            problems = gates.scanned(kind_results(plan, task_vars))
        elif gate == "readable":
            confirmed = _names(args.get("confirmed"))
            problems = gates.same_in_backups(answers_of(task_vars, "__rotation_found"), confirmed)
            problems += gates.readable(kind_results(plan, task_vars), confirmed)
        elif gate == "backups":
            known = answers_of(task_vars, "__rotation_backups")
            wanted = str(args.get("backup") or "")
            problems = gates.backups(plan, known, wanted)
            mine = known.get(task_vars["inventory_hostname"], {}).get("backups", ())
            result["backup"] = gates.chosen_backup(mine, wanted)
        elif gate == "affected":
            problems = []
            result.update(restarts.affected(plan, answers_of(task_vars, "__rotation_restored")))
            for line in result["lines"]:
                display.display(line)
        elif gate == "data_back":
            problems = gates.swapped_back(plan, _by_host(kind_results(plan, task_vars)))
        else:
            raise KeyturnError("gate-unknown", f"no gate {gate!r}", hint="This is an error of the role")
        if problems:
            raise KeyturnError(f"gate-{gate}", " ".join(problems), where="")
        return result


def _names(text: Any) -> list[str]:
    return [name.strip() for name in str(text or "").split(",") if name.strip()]


def _by_host(results: list[tuple[str, str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for host, step, result in results:
        if step == "rollback":
            found.setdefault(host, []).append(result)
    return found


def _boxes(
    answers: Mapping[str, Mapping[str, Any]], sessions: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, str]]]:
    """Sealed values by recipient, secret and version; only boxes for the keys of the present run are of use."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for said in answers.values():
        fresh = {
            host
            for host, public in said.get("sealed_for", {}).items()
            if sessions.get(host, {}).get("public") == public
        }
        for name, secret in said.get("secrets", {}).items():
            for host, boxes in (secret.get("boxes") or {}).items():
                if host in fresh:
                    found.setdefault(host, {}).setdefault(name, {}).update(boxes)
    return found
