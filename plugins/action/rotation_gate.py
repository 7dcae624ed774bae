# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gate over all hosts: what they said is compared on the controller; nobody goes on unless all may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import gates
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp
from ansible_collections.keyturn.rotation.plugins.plugin_utils import restarts
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import (
    KeyturnAction,
    answers_of,
    display,
    names_in,
)
from ansible_collections.keyturn.rotation.plugins.plugin_utils.catalog_variables import catalog_services
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
            can_wait = args.get("mode") != "emergency"
            problems = gates.preflight(plan, answers, bool(args.get("check_health", True)), can_wait)
            for text in [] if can_wait else gates.clocks(plan, sessions):
                display.warning(f"{text} This goes on: a compromised key does not wait for that")
            result["boxes"] = _boxes(answers["found"], sessions)
            result["publics"] = {host: said["public"] for host, said in sessions.items() if said.get("public")}
            if not problems:
                result["origins"] = origins_of(plan, str(args.get("rotation_id")), answers["found"])
        elif gate == "made":
            problems = []
            result["boxes"] = _with_parents(plan, _made(task_vars, sessions), task_vars, sessions)
        elif gate == "staged":
            problems = gates.agreement(plan, answers_of(task_vars, "__rotation_staged"), ("staged", "promoted"))
            result["kids"] = _kids(answers_of(task_vars, "__rotation_staged"))
            result["boxes"] = _with_parents(plan, _made(task_vars, sessions), task_vars, sessions)
        elif gate == "promoted":
            problems = gates.agreement(plan, answers_of(task_vars, "__rotation_promoted"), ("promoted",))
        elif gate == "found":
            found = answers_of(task_vars, "__rotation_found")
            mode = args.get("mode")
            later = gates.joined_later(plan, found, str(args.get("rotation_id")), mode == "retire")
            problems = [text for _host, text in sorted(later.items())] if mode in ("rollback", "retire") else []
            if args.get("timed"):
                problems += [
                    f"{text} Until then nobody knows whether the window is over."
                    for text in gates.clocks(plan, sessions)
                ]
            result["later"] = later
            result["boxes"] = _boxes(found, sessions)
            signs = any(work.get("signing") for work in plan["hosts"].values())
            result["staged"] = (signs and "stage" in (args.get("entered") or ())) or any(
                str(args.get("rotation_id")) in (secret.get("versions") or {})
                for said in found.values()
                for secret in said.get("secrets", {}).values()
            )
        elif gate == "scanned":
            results = kind_results(plan, task_vars)
            problems = gates.scanned(results) + gates.locked_out(plan, results)
            problems += gates.windows(plan, answers_of(task_vars, "__rotation_jwks"))
        elif gate == "readable":
            confirmed = names_in(args.get("confirmed"))
            found = answers_of(task_vars, "__rotation_found")
            problems = gates.not_replaceable(found) + gates.same_in_backups(found, confirmed)
            problems += gates.readable(kind_results(plan, task_vars), confirmed)
        elif gate == "backups":
            known = answers_of(task_vars, "__rotation_backups")
            wanted = str(args.get("backup") or "")
            problems = gates.backups(plan, known, wanted, parse_stamp(task_vars["__rotation_planned"]["now"]))
            mine = known.get(task_vars["inventory_hostname"], {}).get("backups", ())
            result["backup"] = gates.chosen_backup(mine, wanted)
        elif gate == "affected":
            problems = []
            result.update(
                restarts.affected(
                    plan,
                    answers_of(task_vars, "__rotation_restored"),
                    catalog_services(self._templar, task_vars),
                    everything=bool(args.get("everything")),
                    restarts=bool(args.get("restarts", True)),
                    check=bool(self._task.check_mode),
                    overlaps={
                        row["name"]: row["rotation_id"]
                        for row in task_vars["__rotation_planned"]["secrets"]
                        if row["status"] == "overlap"
                    },
                )
            )
            for line in result["lines"]:
                display.display(line)
        elif gate == "keysets":
            problems = gates.keysets(plan, answers_of(task_vars, "__keyset_info"))
        elif gate == "answers":
            asking = [kind["role"].rpartition(".")[2] for kind in plan["kinds"] if "before_rollback" in kind["phases"]]
            problems = gates.unanswered(plan, _asked(asking, task_vars)) if asking else []
        elif gate == "data_back":
            problems = gates.swapped_back(plan, _by_host(kind_results(plan, task_vars)))
        else:
            raise KeyturnError("gate-unknown", f"no gate {gate!r}", hint="This is an error of the role")
        if "boxes" in result:
            found = answers_of(task_vars, "__rotation_found")
            result["forgotten"] = gates.forgotten(plan, found, result["boxes"], str(args.get("rotation_id")))
        if problems:
            raise KeyturnError(f"gate-{gate}", " ".join(problems), where="")
        return result


def _kids(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The kids of the versions of each secret; hosts that got this far hold the same ones."""
    found: dict[str, dict[str, str]] = {}
    for said in answers.values():
        for name, secret in said.get("secrets", {}).items():
            found.setdefault(name, {}).update(secret.get("kids") or {})
    return found


def _by_host(results: list[tuple[str, str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for host, step, result in results:
        if step == "rollback":
            found.setdefault(host, []).append(result)
    return found


def _asked(roles: Iterable[str], task_vars: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What each host said when these asked whether its data can go back, failures too."""
    found: dict[str, list[dict[str, Any]]] = {}
    for host in task_vars.get("ansible_play_hosts_all", ()):
        for role in roles:
            said = task_vars["hostvars"][host].get(f"__{role}_before_rollback")
            if isinstance(said, Mapping) and not said.get("unreachable"):
                found.setdefault(host, []).extend(dict(result) for result in said.get("results", [said]))
    return found


_Boxes = dict[str, dict[str, dict[str, str]]]


def _made(task_vars: Mapping[str, Any], sessions: Mapping[str, Mapping[str, Any]]) -> _Boxes:
    return _boxes(answers_of(task_vars, "__rotation_made"), sessions)


def _with_parents(
    plan: Mapping[str, Any], boxes: _Boxes, task_vars: Mapping[str, Any], sessions: Mapping[str, Mapping[str, Any]]
) -> _Boxes:
    """Also what does not turn and is read all the same, such as the key that signing keys are encrypted with."""
    names = {entry["name"] for work in plan["hosts"].values() for entry in work.get("parents", ()) if "for" in entry}
    for host, secrets in _boxes(answers_of(task_vars, "__rotation_found"), sessions).items():
        for name in sorted(names & set(secrets)):
            boxes.setdefault(host, {}).setdefault(name, secrets[name])
    return boxes


def _boxes(answers: Mapping[str, Mapping[str, Any]], sessions: Mapping[str, Mapping[str, Any]]) -> _Boxes:
    """Sealed values by recipient, secret and version; only boxes for the keys of the present run are of use."""
    found: _Boxes = {}
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
