# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening and closing a run on hosts: what the tasks after it are told, also where it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.play import run_tasks

_NOTHING: dict[str, Any] = {"secrets": [], "jobs": [], "servers": [], "services": [], "probes": []}
_SERVICE = {"name": "api", "manager": "command", "wave": 0, "start": ["true"], "stop": ["true"]}
_PLAN = {
    "strategy": "overlap",
    "waves": [["api"]],
    "hosts": {"one": {**_NOTHING, "services": [_SERVICE]}},
    "helpers": {"helper": [{"secret": "KEY"}]},
}


def _write(out: Path, name: str) -> dict[str, Any]:
    content = "{{ " + name + " | to_json }}"
    return {"ansible.builtin.copy": {"content": content, "dest": f"{out}/{{{{ inventory_hostname }}}}", "mode": "0600"}}


def _opened(folder: Path, hosts: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What each host registered; a folder of its own for each is its ``state_dir``."""
    state = f"{folder}/state-{{{{ inventory_hostname }}}}"
    arguments = {"state_dir": state, "session_dir": f"{state}/s", "rotation_id": "r1", "epoch": 7}
    planned = {"name": "Plan", "ansible.builtin.set_fact": {"__rotation_planned": {"plan": _PLAN}}}
    task = {
        "name": "Open",
        "keyturn.rotation.rotation_host": {**arguments, "of_plan": True, **more},
        "register": "said",
        "ignore_errors": True,
        "ignore_unreachable": True,
    }
    (folder / "out").mkdir()
    ended = run_tasks(folder, hosts, [planned, task, _write(folder / "out", "said")])
    assert ended.code == 0, ended.output
    return {path.name: json.loads(path.read_text()) for path in (folder / "out").iterdir()}


def test_the_tasks_after_it_are_told_what_this_host_does(tmp_path: Path) -> None:
    said = _opened(tmp_path, {"one": {}, "helper": {}}, project_dir="/srv/app")
    here = said["one"]["here"]
    assert here["arguments"]["rotation_id"] == "r1"
    assert here["arguments"]["epoch"] == 7
    assert here["arguments"]["state_dir"] == str(tmp_path / "state-one")
    assert (here["running"], here["quiesced"], here["project_dir"]) == ([[_SERVICE]], [[]], "/srv/app")
    assert said["helper"]["here"]["work"] == _NOTHING
    assert said["one"]["public"] != said["helper"]["public"] != ""


def test_services_of_a_host_that_has_restarted_are_left_alone(tmp_path: Path) -> None:
    said = _opened(tmp_path, {"one": {}}, restarted=["one"])
    assert said["one"]["here"]["running"] == [[]]


def test_a_closing_tells_the_arguments_alone(tmp_path: Path) -> None:
    said = _opened(tmp_path, {"one": {}}, state="closed")
    assert set(said["one"]["here"]) == {"arguments"}


def test_where_it_fails_the_tasks_of_the_way_back_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "state-one").write_text("no folder")
    said = _opened(tmp_path, {"one": {}})
    assert said["one"]["failed"] is True
    assert said["one"]["here"]["arguments"]["epoch"] == 7
    assert said["one"]["here"]["running"] == [[_SERVICE]]


def test_a_helper_that_cannot_open_is_passed_over_and_a_host_with_work_is_not(tmp_path: Path) -> None:
    (tmp_path / "state-helper").write_text("no folder")
    said = _opened(tmp_path, {"one": {}, "helper": {}})
    assert (said["helper"].get("failed", False), said["helper"]["skipped"]) == (False, True)
    assert said["one"].get("failed", False) is False


def test_a_fact_of_the_callers_does_not_change_what_the_engine_restarts(tmp_path: Path) -> None:
    """The role ``restart`` documents these names, so a play before this one may have set them."""
    calls = tmp_path / "calls"
    mine = {**_SERVICE, **{verb: ["/bin/sh", "-c", f"echo mine {verb} >> {calls}"] for verb in ("start", "stop")}}
    engines = {**_SERVICE, **{verb: ["/bin/sh", "-c", f"echo engine {verb} >> {calls}"] for verb in ("start", "stop")}}
    engines["health"] = {"command": ["true"]}
    tasks = [
        {"name": "Mine", "ansible.builtin.set_fact": {"restart_services": [mine], "restart_action": "stopped"}},
        {
            "name": "The engine's",
            "ansible.builtin.include_role": {
                "name": "keyturn.rotation.rotation",
                "tasks_from": "restart",
                "rolespec_validate": False,
            },
            "vars": {"__rotation_session": {"here": {"running": [[engines]]}}, "rotation_step": {"wave": 0}},
        },
    ]
    ended = run_tasks(tmp_path, {"one": {}}, tasks)
    assert ended.code == 0, ended.output
    assert calls.read_text().splitlines() == ["engine stop", "engine start"]
    assert "Wait until the services are healthy" in ended.output
