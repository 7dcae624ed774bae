# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From Ansible's host variables to the run's account."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.steps import left_out
from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import Run
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import answers_of

__all__ = ["gather", "kind_results"]

_ANSWERS = (
    "session",
    "found",
    "baseline",
    "backup",
    "probes",
    "health",
    "closed",
    "stuck",
    "cause",
    "turn",
    "stopped",
    "escrow",
    "escrow_left",
    "pruned",
    "jwks",
    "refusals",
    "watched",
)
#: The step that registers it, where some plans do without that step: what is there then is of another rotation in the
#: same call of ``ansible-playbook``.
_OF_STEP = {
    "probes": "probe",
    "health": "compare",
    "escrow": "escrow",
    "jwks": "caches",
    "refusals": "refused",
    "watched": "observe",
}
#: The task files of a kind whose results the account reads: it registers ``__<role>_<step>``; and what may come behind,
#: of a step with several parts. ``restarted`` is the last step that somebody's restart has finished.
_PARTS = ("", "_documents", "_published")
_STEPS = ("preflight", "stage", "migrate", "promote", "replace", "verify", "rollback", "retire", "restarted")


def kind_results(plan: Mapping[str, Any], task_vars: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Host, step and result of everything that the kinds registered, loop items one by one."""
    found = []
    for kind in plan["kinds"]:
        if not kind["phases"]:
            continue
        role = kind["role"].rpartition(".")[2]
        for step, part in product(_STEPS, _PARTS):
            for host, said in answers_of(task_vars, f"__{role}_{step}{part}").items():
                for result in said.get("results", [said]):
                    if not (result.get("failed") or result.get("skipped")):
                        found.append((host, step, dict(result)))
    return found


def gather(
    args: Mapping[str, Any], rotation: Mapping[str, Any], who: Mapping[str, Any], task_vars: Mapping[str, Any]
) -> Run:
    """Collect what every host registered in this run."""
    # A host's variables are put together anew each time they are asked for: once is enough for all the names below
    hostvars = {host: task_vars["hostvars"][host] for host in task_vars["ansible_play_hosts_all"]}
    task_vars = {**task_vars, "hostvars": hostvars}
    plan = args["plan"]
    unneeded = left_out(plan)
    if args.get("mode") == "retire" and any(
        probe.get("refused") for work in plan["hosts"].values() for probe in work["probes"]
    ):
        unneeded.discard("refused")  # retire asks these in its own order
    answers: dict[str, dict[str, dict[str, Any]]] = {
        name: {} if _OF_STEP.get(name) in unneeded else answers_of(task_vars, f"__rotation_{name}") for name in _ANSWERS
    }
    # Epochs only grow: another one is of an earlier rotation
    answers["turn"] = {host: said for host, said in answers["turn"].items() if said.get("epoch") == rotation["epoch"]}
    answers["is_back"] = {
        host: {"value": hostvars[host]["__rotation_is_back"]}
        for host in task_vars["ansible_play_hosts_all"]
        if "__rotation_is_back" in hostvars[host]
    }
    return Run(
        plan=plan,
        mode=str(args.get("mode", "rotate")),
        rotation_id=str(args.get("rotation_id", "")),
        rotation=rotation,
        answers=answers,
        kinds=kind_results(plan, task_vars),
        until=str(args.get("until") or ""),
        who=who,
    )
