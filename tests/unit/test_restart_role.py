# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role ``restart`` as a playbook runs it, with real daemons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import registry

from tests.support import daemon
from tests.support.endpoint import closed_port
from tests.support.modules import ROOT

CANARY = "canary-5be0c1f97a2d"


class Daemons:
    """Two daemons in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        for name in ("db", "api"):
            (folder / name).mkdir()
            self.ports[name] = closed_port()
            (folder / name / "port").write_text(str(self.ports[name]))
            self.load(name, CANARY)

    def load(self, name: str, value: str) -> None:
        """Change what the daemon finds when it starts."""
        (self.folder / name / "value").write_text(value)

    def service(self, name: str, **more: Any) -> dict[str, Any]:
        """Its entry as the catalog has it."""
        program = [sys.executable, daemon.__file__]
        return {
            "name": name,
            "wave": 0,
            "quiesce": "stop",
            "manager": "command",
            "start": [*program, "start", str(self.folder / name)],
            "stop": [*program, "stop", str(self.folder / name)],
            "health": {"url": f"http://127.0.0.1:{self.ports[name]}/"},
            **more,
        }

    def loaded(self, name: str) -> int | None:
        """The length of the value that it runs with; None when it does not run."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/") as answer:
                return int(answer.read())
        except OSError:
            return None

    def calls(self) -> list[str]:
        """What was called since the last time this was asked."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return lines


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    made = Daemons(tmp_path)
    yield made
    for name in made.ports:
        (tmp_path / name / "stubborn").unlink(missing_ok=True)
        daemon.main("stop", tmp_path / name)


def play(folder: Path, *arguments: str, **variables: Any) -> tuple[int, str]:
    """Run the role with these variables at the highest verbosity; exit code and everything printed."""
    task = {"name": "Restart", "ansible.builtin.include_role": {"name": "keyturn.rotation.restart"}, "vars": variables}
    return _run(folder, {"name": "P", "hosts": "localhost", "gather_facts": False, "tasks": [task]}, *arguments)


def restart(daemons: Daemons, *names: str, **variables: Any) -> tuple[int, str]:
    """Run the playbook ``restart`` over a catalog of these services; exit code and everything printed."""
    unsaid = ("name", "wave")
    services = {
        name: {"hosts": "localhost", **{k: v for k, v in daemons.service(name).items() if k not in unsaid}}
        for name in names
    }
    store = {"hosts": "localhost", "type": "env_file", "path": str(daemons.folder / ".env")}
    secrets = {
        f"{name.upper()}_TOKEN": {"kind": "env_secret", "stores": [store], "consumers": [name]} for name in services
    }
    catalog = {"keyturn_state_host": "localhost", "keyturn_services": services, "keyturn_secrets": secrets}
    said = daemons.folder / "catalog.json"
    said.write_text(json.dumps({**catalog, "keyturn_state_dir": str(daemons.folder / "state"), **variables}))
    return _run(daemons.folder, {"import_playbook": "keyturn.rotation.restart"}, "-e", f"@{said}")


def _run(folder: Path, content: dict[str, Any], *arguments: str) -> tuple[int, str]:
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([content]))
    program = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "-vvvv", "--diff"]
    done = subprocess.run(
        [*program, "-e", f"ansible_python_interpreter={sys.executable}", str(playbook), *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "ANSIBLE_NOCOLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_check_real_and_again_and_nothing_that_a_service_prints_is_shown(daemons: Daemons) -> None:
    services = [daemons.service("db"), daemons.service("api")]
    for action in ("started", "restarted", "stopped"):
        code, output = play(daemons.folder, "--check", restart_services=services, restart_action=action)
        assert (code, daemons.calls(), CANARY in output) == (0, [], False), output
    for _again in range(2):
        code, output = play(daemons.folder, restart_services=services, restart_action="started")
        assert (code, CANARY in output) == (0, False), output
        assert daemons.calls() == ["db start", "api start"]
        assert (daemons.loaded("db"), daemons.loaded("api")) == (len(CANARY), len(CANARY))
    daemons.load("api", CANARY + "-2")
    code, output = play(daemons.folder, restart_services=services)
    assert (code, CANARY in output) == (0, False), output
    assert daemons.calls() == ["db stop", "db start", "api stop", "api start"]
    assert daemons.loaded("api") == len(CANARY) + 2, "it has loaded the new value"
    for _again in range(2):
        code, output = play(daemons.folder, restart_services=services, restart_action="stopped")
        assert (code, CANARY in output) == (0, False), output
        assert (daemons.loaded("db"), daemons.loaded("api")) == (None, None)


def test_a_restart_command_is_used_where_there_is_one(daemons: Daemons) -> None:
    restart = [sys.executable, daemon.__file__, "restart", str(daemons.folder / "api")]
    code, output = play(daemons.folder, restart_services=[daemons.service("api", restart=restart)])
    assert code == 0, output
    assert daemons.calls() == ["api restart"]
    assert daemons.loaded("api") == len(CANARY)


def test_trap_16_a_service_that_runs_and_is_not_well_fails_and_is_named(daemons: Daemons) -> None:
    (daemons.folder / "api" / "sick").touch()
    services = [daemons.service("db"), daemons.service("api")]
    code, output = play(daemons.folder, restart_services=services, restart_wait=1)
    assert code == 2
    assert "api is unhealthy (HTTP 503, expected 200)" in output
    assert "db is" not in output
    assert CANARY not in output


def test_trap_16_a_service_without_a_check_is_not_healthy(daemons: Daemons) -> None:
    code, output = play(daemons.folder, restart_services=[daemons.service("api", health={})])
    assert code == 2
    assert "api is unknown (no health check is declared)" in output


def test_trap_15_a_command_that_fails_is_an_error_and_nothing_after_it_is_done(daemons: Daemons) -> None:
    services = [daemons.service("db"), daemons.service("api")]
    (daemons.folder / "db" / "stubborn").touch()
    code, output = play(daemons.folder, restart_services=services)
    assert code == 2
    assert "db: its stop command ended with exit code 7" in output
    assert CANARY not in output
    assert daemons.calls() == ["db stop"]


def test_trap_15_a_program_that_does_not_exist_is_an_error(daemons: Daemons) -> None:
    service = daemons.service("api", start=["/no/such/program"])
    code, output = play(daemons.folder, restart_services=[service], restart_action="started")
    assert code == 2
    assert "api: its start command cannot be started (No such file or directory)" in output


def test_a_restart_says_who_got_worse_and_who_was_not_well_before(daemons: Daemons) -> None:
    for name in ("db", "api"):
        daemon.main("start", daemons.folder / name)
    asked = {"keyturn_restart": "all", "keyturn_wait": 1}
    code, output = restart(daemons, "db", "api", **asked)
    assert (code, "nothing is worse than before" in output) == (0, True), output
    (daemons.folder / "db/sick").touch()
    code, output = restart(daemons, "db", "api", **asked)
    assert code == 2, output
    assert "db on localhost: healthy before, unhealthy now (HTTP 503, expected 200)" in output
    assert "db was healthy and is unhealthy" in output
    code, output = restart(daemons, "db", "api", **asked)
    assert code == 2, "what is not well after a restart fails, also where it was not well before"
    assert "db on localhost is unhealthy (HTTP 503, expected 200), as before" in output
    assert "nothing is worse than before" in output
    assert "api is" not in output
    assert "api on" not in output
    (daemons.folder / "db/sick").unlink()
    code, output = restart(daemons, "db", "api", **asked)
    assert (code, "all 2 healthy" in output, CANARY in output) == (0, True, False), output


@pytest.mark.parametrize("fault", ["unhealthy", "cannot start", "cannot start, and nobody looks after it"])
def test_what_a_restart_that_stopped_has_left_is_said_with_the_command_for_it(daemons: Daemons, fault: str) -> None:
    for name in ("db", "api"):
        daemon.main("start", daemons.folder / name)
    daemons.calls()
    asked: dict[str, Any] = {"keyturn_restart": "all", "keyturn_wait": 1}
    services: dict[str, Any] = {name: {"hosts": "localhost", **daemons.service(name)} for name in ("db", "api")}
    services = {name: {k: v for k, v in entry.items() if k not in ("name", "wave")} for name, entry in services.items()}
    services["api"]["depends_on"] = ["db"]
    if fault == "unhealthy":
        (daemons.folder / "db/sick").touch()
    else:
        services["db"]["start"] = ["false"]
        asked["keyturn_health"] = fault == "cannot start"
    code, output = restart(daemons, "db", "api", keyturn_services=services, **asked)
    assert (code, "api stop" in daemons.calls()) == (2, False), output
    half, names = ("", "api") if fault == "unhealthy" else ("Stopped half way: db. ", "db,api")
    words = "When what failed is mended: ansible-playbook keyturn.rotation.restart -e keyturn_restart="
    place = (
        '"msg": "Nobody has looked whether the services are healthy.'
        if fault.endswith("after it")
        else '"hint": "Look at these services.'
    )
    assert f'{place} {half}Not restarted: api. {words}{names}"' in output, output


def test_without_a_name_the_services_of_the_last_rotation_are_restarted(daemons: Daemons) -> None:
    register = registry.empty()
    for day, name in (("01", "DB_TOKEN"), ("02", "API_TOKEN")):
        started = f"2026-05-{day}T00:00:00.000Z"
        register["rotations"][f"r{day}"] = {"started_at": started, "secrets": [name], "status": "overlap"}
    (daemons.folder / "state").mkdir(mode=0o700)
    path = daemons.folder / "state/registry.json"
    path.write_text(json.dumps(register))
    path.chmod(0o600)
    code, output = restart(daemons, "db", "api")
    assert (code, daemons.calls()) == (0, ["api stop", "api start"]), output


def test_no_service_is_nothing_to_do(daemons: Daemons) -> None:
    code, output = play(daemons.folder, restart_services=[])
    assert code == 0, output
    assert daemons.calls() == []


def test_an_action_that_does_not_exist_is_refused(daemons: Daemons) -> None:
    code, output = play(daemons.folder, restart_services=[daemons.service("api")], restart_action="reloaded")
    assert code == 2
    assert "value of restart_action must be one of: stopped, started, restarted" in output
    assert daemons.calls() == []


SYSTEMCTL = """#!/bin/sh
# What systemctl(1) says of one unit that stops and starts; every change is noted.
cd {folder}
case "$1" in
  show) printf 'LoadState=loaded\\nActiveState=%s\\nSubState=running\\nId=api.service\\n' "$(cat state)" ;;
  stop) echo inactive > state; echo "$@" >> calls ;;
  start|restart) echo active > state; echo "$@" >> calls ;;
esac
"""


def test_a_unit_is_restarted_and_running_is_enough_where_it_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "systemctl"
    program.write_text(SYSTEMCTL.format(folder=tmp_path))
    program.chmod(0o755)
    (tmp_path / "state").write_text("active\n")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    unit = {"name": "api", "manager": "systemd", "unit": "api.service", "health": {"running_is_enough": True}}
    calls = tmp_path / "calls"
    code, output = play(tmp_path, "--check", restart_services=[unit])
    assert (code, calls.exists()) == (0, False), output
    for action in ("restarted", "stopped", "stopped", "started"):
        code, output = play(tmp_path, restart_services=[unit], restart_action=action)
        assert code == 0, output
    assert calls.read_text().split("\n") == ["restart api.service", "stop api.service", "start api.service", ""]
