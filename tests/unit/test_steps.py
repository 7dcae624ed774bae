# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run does step by step: nothing that the plan does not need, and nothing less."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils import steps as module
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import EMERGENCY, PHASES

from tests.unit.test_house import ROOT

_TASKS = ROOT / "roles/rotation/tasks"
_EVERYWHERE = ["preflight", "stage", "migrate", "promote", "replace", "verify"]
_WORK: dict[str, list[dict[str, Any]]] = {"secrets": [], "jobs": [], "servers": [], "services": [], "probes": []}


def _plan(phases: list[str], **more: Any) -> dict[str, Any]:
    """A plan for one host with nothing in it, but for ``more``."""
    plan: dict[str, Any] = {"phases": phases, "kinds": [], "waves": [], "strategy": "overlap", "helpers": {}}
    plan.update(escrow={"hosts": []}, hosts={"h1": {**_WORK, **more.pop("work", {})}})
    return {**plan, **more}


def _done(plan: dict[str, Any]) -> list[str]:
    return [step["label"] for step in module.steps(plan)]


def _all_needed(strategy: str, phases: list[str], **more: Any) -> dict[str, Any]:
    services = [
        {"name": "api", "wave": 0, "manager": "compose", "quiesce": "stop"},
        {"name": "web", "wave": 0, "manager": "compose"},
        {"name": "job", "wave": 1, "manager": "systemd"},
        {"name": "own", "wave": 2, "manager": "command", "reloads": True},
    ]
    work = {
        "services": services,
        "jwks": [{"purge": [{"url": "http://cache"}]}],
        "gateways": [{"name": "gateway"}],
        "probes": [{"type": "token"}],
        "refusals": [{"type": "token"}],
        "watched": [{"type": "log"}],
    }
    kinds = [{"kind": "k", "role": "a.b.k", "phases": _EVERYWHERE}]
    waves = [["api", "web"], ["job"], ["own"]]
    return _plan(phases, work=work, kinds=kinds, waves=waves, strategy=strategy, escrow={"hosts": ["h1"]}, **more)


def test_what_nothing_needs_is_left_out() -> None:
    assert _done(_plan(list(PHASES["overlap"]))) == [
        "preflight: enter",
        "preflight: look",
        "preflight: judge",
        "backup: enter",
        "backup: backup",
        "stage: enter",
        "stage: stage",
        "reload: enter",
        "promote: enter",
        "promote: promote",
        "restart: enter",
        "migrate: enter",
        "verify: enter",
    ]


def test_with_everything_in_it_every_step_is_there() -> None:
    cutover = _done(_all_needed("cutover", list(PHASES["cutover"])))
    overlap = _done(_all_needed("overlap", list(PHASES["overlap"])))
    emergency = _done(_all_needed("overlap", list(EMERGENCY), emergency={}))
    wanted = {f"{phase}: {name.replace(':', ' ')}" for phase, names in module._STEPS.items() for name in names} - {
        "reload: services",
        "restart: services",
        "promote: quiesce",
    }
    assert wanted - {*cutover, *overlap, *emergency} == set()
    assert "promote: quiesce" in cutover
    assert "promote: quiesce" not in overlap
    assert "preflight: judge" not in emergency


def test_what_is_stopped_is_started_and_the_rest_restarted_wave_by_wave() -> None:
    plan = _all_needed("cutover", ["restart"])
    assert _done(plan) == ["restart: enter", "restart: start 1", "restart: restart 1", "restart: restart 2"]
    assert [step.get("wave") for step in module.steps(plan)] == [None, 0, 0, 1]
    assert _done({**plan, "strategy": "overlap"}) == [
        "restart: enter",
        "restart: restart 1",
        "restart: restart 2",
    ]


def test_services_that_all_have_commands_need_no_step_that_looks_what_they_are() -> None:
    services = [
        {"name": "api", "wave": 0, "manager": "command", "quiesce": "stop"},
        {"name": "web", "wave": 0, "manager": "command"},
        {"name": "job", "wave": 1, "manager": "command"},
        {"name": "box", "wave": 1, "manager": "compose"},
    ]
    more = {"strategy": "cutover", "waves": [["api", "web"], ["job", "box"]]}
    plan = _plan(["promote", "restart"], work={"services": services}, **more)
    assert [(step["label"], step["do"], step.get("action"), step.get("wave")) for step in module.steps(plan)] == [
        ("promote: enter", "enter", None, None),
        ("promote: quiesce", "commands", "stopped", None),
        ("promote: promote", "promote", None, None),
        ("restart: enter", "enter", None, None),
        ("restart: start 1", "commands", "started", 0),
        ("restart: healthy 1", "healthy", "started", 0),
        ("restart: restart 1", "commands", "restarted", 0),
        ("restart: healthy 1", "healthy", "restarted", 0),
        ("restart: restart 2", "restart", None, 1),
    ]


@pytest.mark.parametrize("name", ["commands", "healthy"])
def test_what_is_done_by_commands_is_a_file_of_tasks_too(name: str) -> None:
    assert len(yaml.safe_load((_TASKS / f"{name}.yml").read_text(encoding="utf-8"))) == 1


def test_hosts_are_asked_to_help_where_some_can() -> None:
    phases = ["preflight", "migrate", "help", "helped"]
    kinds = [{"kind": "k", "role": "a.b.k", "phases": phases}, {"kind": "l", "role": "a.b.l", "phases": ["migrate"]}]
    alone, together = (_plan(["migrate"], kinds=kinds, helpers=helpers) for helpers in ({}, {"h2": [{}]}))
    assert _done(alone) == ["migrate: enter", "migrate: kinds migrate"]
    assert _done(together) == [
        "migrate: enter",
        "migrate: kinds help",
        "migrate: kinds migrate",
        "migrate: kinds helped",
    ]


@pytest.mark.parametrize("until", PHASES["cutover"])
def test_a_run_stops_after_the_phase_that_was_asked_for(until: str) -> None:
    phases = list(PHASES["cutover"])
    plan = _plan(phases)
    said = [step["phase"] for step in module.steps(plan, until)]
    assert list(dict.fromkeys(said)) == phases[: phases.index(until) + 1]
    assert said == [step["phase"] for step in module.steps(plan) if step["phase"] in said]


def test_an_emergency_stops_after_no_phase() -> None:
    plan = _plan(list(EMERGENCY))
    assert module.steps(plan, "preflight") == module.steps(plan)


def test_of_the_kinds_only_the_parts_that_one_has_are_asked() -> None:
    kinds = [{"kind": "a", "role": "x.y.a", "phases": ["stage"]}, {"kind": "b", "role": "x.y.b", "phases": []}]
    assert _done(_plan(["stage", "migrate"], kinds=kinds)) == [
        "stage: enter",
        "stage: stage",
        "stage: kinds stage",
        "migrate: enter",
    ]


@pytest.mark.parametrize("name", sorted({name for names in module._STEPS.values() for name in names} - {"services"}))
def test_each_step_is_a_file_of_tasks(name: str) -> None:
    tasks = yaml.safe_load((_TASKS / f"{name.partition(':')[0]}.yml").read_text(encoding="utf-8"))
    assert len(tasks) > 0


@pytest.mark.parametrize("phase", sorted({phase for phases in (*PHASES.values(), EMERGENCY) for phase in phases}))
def test_each_phase_is_written_down_before_it_changes_anything(phase: str) -> None:
    names = list(module._STEPS[phase])
    assert next(name for name in names if name != "announce") == "enter"
