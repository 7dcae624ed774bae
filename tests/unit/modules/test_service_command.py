# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that start and stop services: in order, none after a failure, nothing of their output shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.health.look import check

from tests.support.modules import Ran, run_module_process
from tests.support.peers import until

_CANARY = "canary-71c2e90ab3"


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    path = tmp_path / "calls"
    path.touch()
    return path


def _service(calls: Path, name: str, *more: str, code: int = 0) -> dict[str, Any]:
    def command(verb: str) -> list[str]:
        return ["/bin/sh", "-c", f"echo {name} {verb} >> {calls}; exit {code}"]

    return {"name": name, "manager": "command", **{verb: command(verb) for verb in ("start", "stop", *more)}}


def _run(services: list[dict[str, Any]], action: str = "restarted", check: bool = False) -> Ran:
    return run_module_process("service_command", {"services": services, "action": action}, check)


@pytest.mark.parametrize(
    ("action", "called"),
    [
        ("started", ["a start", "b start"]),
        ("stopped", ["a stop", "b stop"]),
        ("restarted", ["a stop", "a start", "b restart"]),
    ],
)
def test_services_in_order_and_a_restart_of_their_own_where_there_is_one(
    calls: Path, action: str, called: list[str]
) -> None:
    services = [_service(calls, "a"), _service(calls, "b", "restart")]
    said = _run(services, action, check=True)
    assert (said["changed"], calls.read_text()) == (True, "")
    said = _run(services, action)
    assert (said["changed"], calls.read_text().splitlines()) == (True, called)


def test_trap_15_nothing_is_done_after_a_command_that_failed(calls: Path) -> None:
    said = _run([_service(calls, "a"), _service(calls, "b", code=7), _service(calls, "c")])
    assert (said["code"], said["where"]) == ("service-command-failed", "b")
    assert said["msg"].startswith("b: its stop command ended with exit code 7.")
    assert calls.read_text().splitlines() == ["a stop", "a start", "b stop"]


def test_what_a_command_prints_is_shown_nowhere(calls: Path) -> None:
    words = calls.with_name("words")
    words.write_text(_CANARY)
    for code in (0, 1):
        command = ["/bin/sh", "-c", f"cat {words}; cat {words} >&2; exit {code}"]
        said = _run([{"name": "a", "start": command, "stop": command}])
        assert said.get("failed", False) == bool(code)
        assert _CANARY not in said.printed


def test_a_program_that_is_not_there_is_named_and_is_no_success(calls: Path) -> None:
    said = _run([{**_service(calls, "a"), "start": ["/no/such/program"]}], "started")
    assert said["code"] == "service-command-failed"
    assert "a: its start command cannot be started (No such file or directory)" in said["msg"]


@pytest.mark.parametrize("line", ["systemctl stop b", [], None, {"stop": "b"}])
def test_a_command_that_is_no_list_of_words_is_refused_before_any_runs(calls: Path, line: Any) -> None:
    said = _run([_service(calls, "a"), {**_service(calls, "b"), "stop": line}])
    assert (said["code"], said["where"], calls.read_text()) == ("service-invalid", "b", "")


def test_home_and_variables_are_filled_in_as_in_commands_of_ansible(calls: Path) -> None:
    home = calls.parent
    program = home / "say"
    program.write_text(f"#!/bin/sh\necho $1 >> {calls}\n")
    program.chmod(0o700)
    services = [{"name": "a", "start": ["~/say", "--dir=$PLACE"]}]
    arguments = {"services": services, "action": "started"}
    said = run_module_process("service_command", arguments, HOME=str(home), PLACE="/srv/a")
    assert said["changed"], said
    assert calls.read_text() == "--dir=/srv/a\n"


def test_a_program_that_a_command_leaves_behind_is_not_waited_for_and_not_ended(calls: Path) -> None:
    gate = calls.with_name("gate")
    left = f"while [ ! -e {gate} ]; do sleep 0.1; done; echo late >> {calls}"
    said = _run([{"name": "a", "start": ["/bin/sh", "-c", f"({left}) & exit 0"]}], "started")
    assert (said["changed"], calls.read_text()) == (True, "")
    gate.touch()
    deadline = time.monotonic() + 60
    while calls.read_text() != "late\n" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert calls.read_text() == "late\n"


def test_a_command_that_a_signal_ends_is_no_success(calls: Path) -> None:
    said = _run([{**_service(calls, "a"), "start": ["/bin/sh", "-c", "kill -9 $$"]}], "started")
    assert "a: its start command ended by signal 9" in said["msg"]


def test_a_command_that_hangs_is_killed_with_what_it_started_and_nothing_is_done_after_it(calls: Path) -> None:
    child = calls.with_name("child")
    hanging = ["/bin/sh", "-c", f"sleep 600 & echo $! > {child}; echo a stop >> {calls}; wait"]
    said = _run([{**_service(calls, "a"), "stop": hanging, "command_timeout": 1}, _service(calls, "b")])
    assert (said["code"], said["where"]) == ("service-command-failed", "a")
    assert said["msg"].startswith("a: its stop command had not ended after 1 s and was killed.")
    assert "command_timeout" in said["msg"]
    assert calls.read_text().splitlines() == ["a stop"]
    ended = {"name": "child", "health": {"process": {"pid_file": str(child)}}}
    until(lambda: check(ended).detail.endswith("has ended"), "what the command started has not ended")


@pytest.mark.parametrize("seconds", ["soon", -1, [5]])
def test_a_time_that_is_none_is_refused_before_any_command(calls: Path, seconds: object) -> None:
    said = _run([_service(calls, "a"), {**_service(calls, "b"), "command_timeout": seconds}])
    assert (said["code"], said["where"]) == ("service-invalid", "b")
    assert calls.read_text() == ""
