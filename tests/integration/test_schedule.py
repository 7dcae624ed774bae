# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schedule on a real stack: the command of its unit turns what is due, retires in time, and tells of the rest."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo.stack import SECRET, Stack

from tests.integration.test_going_back import verify_impossible
from tests.integration.test_notify import events, taken, tell
from tests.integration.test_rotation import status_of
from tests.support.catalog_file import change_secret, edit, load
from tests.support.controller import Controller, Ended, registry
from tests.support.endpoint import Endpoint, endpoint
from tests.support.project import SECRET as TOKEN
from tests.support.project import Project

pytestmark = pytest.mark.one_instance


class Round:
    """The command of the unit that the role has installed for a stack, run as systemd would run it."""

    def __init__(self, stack: Stack, controller: Controller, folder: Path) -> None:
        self._controller = controller
        variables = {
            "schedule_enabled": False,
            "schedule_unit_dir": str(folder),
            "schedule_user": "root",
            "schedule_directory": str(stack.folder),
            "schedule_command": str(Path(sys.executable).parent / "ansible-playbook"),
            "schedule_inventory": ["inventory.yml"],
            "schedule_program": str(folder / "keyturn_schedule.py"),
            "schedule_environment_file": str(folder / "schedule.env"),
        }
        role = {"name": "S", "ansible.builtin.include_role": {"name": "keyturn.rotation.schedule"}, "vars": variables}
        play = folder / "install.yml"
        given = {"ansible_python_interpreter": sys.executable}
        content = {"name": "P", "hosts": "localhost", "gather_facts": False, "vars": given, "tasks": [role]}
        play.write_text(json.dumps([content]))
        installed = self._call(["ansible-playbook", "-i", "localhost,", "-c", "local", str(play)], folder)
        assert installed.code == 0, installed.output
        unit = dict(
            line.split("=", 1) for line in (folder / "keyturn-schedule.service").read_text().splitlines() if "=" in line
        )
        self._words, self._folder = shlex.split(unit["ExecStart"]), Path(unit["WorkingDirectory"])

    def _call(self, words: list[str], folder: Path) -> Ended:
        done = subprocess.run(
            words, cwd=folder, env=self._controller.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout)

    def run(self) -> Ended:
        """One round."""
        return self._call(self._words, self._folder)


@pytest.fixture
def schedule(stack: Stack, controller: Controller, tmp_path: Path) -> Round:
    folder = tmp_path / "units"
    folder.mkdir()
    return Round(stack, controller, folder)


def change_register(stack: Stack, **fields: Any) -> None:
    """Let time pass: change the one rotation, and its secret, in the register."""
    content = registry(stack.state_dir("db"))
    for rotation in content["rotations"].values():
        rotation.update({key: value for key, value in fields.items() if key in rotation})
    content["secrets"][SECRET].update(
        {key: value for key, value in fields.items() if key in content["secrets"][SECRET]}
    )
    (stack.state_dir("db") / "registry.json").write_text(json.dumps(content))


def told(hook: Endpoint) -> list[str]:
    return [event for event, _mode in events(hook)]


def test_a_schedule_turns_waits_retires_and_turns_again(stack: Stack, schedule: Round) -> None:
    change_secret(stack, overlap_min="24h")
    before = stack.key()
    with endpoint(taken) as hook:
        tell(stack, {"type": "webhook", "url": hook.url})
        ended = schedule.run()
        assert (ended.code, status_of(stack)) == (0, ["overlap"]), ended.output
        first = stack.key()
        assert first != before
        assert registry(stack.state_dir("db"))["rotations"].popitem()[1]["reason"] == "scheduled"

        ended = schedule.run()
        assert (ended.code, status_of(stack), stack.key()) == (0, ["overlap"], first), ended.output
        assert "To do\n  nothing" in ended.output

        change_register(stack, retire_after="2026-01-01T00:00:00.000Z")
        ended = schedule.run()
        assert (ended.code, status_of(stack), stack.key()) == (0, ["retired"], first), ended.output

        change_register(stack, primary_since="2026-01-01T00:00:00.000Z")
        ended = schedule.run()
        assert (ended.code, status_of(stack)) == (0, ["retired", "overlap"]), ended.output
    assert stack.verify().ok
    assert told(hook) == ["started", "succeeded", "succeeded", "started", "succeeded"]


def test_a_schedule_tells_of_what_it_could_not_do(stack: Stack, schedule: Round, controller: Controller) -> None:
    assert controller.run(stack.inventory, "rotate", only=SECRET).code == 0
    assert controller.run(stack.inventory, "retire", only=SECRET).code == 0
    change_register(stack, primary_since="2026-01-01T00:00:00.000Z")
    verify_impossible(stack)
    with endpoint(taken) as hook:
        tell(stack, {"type": "webhook", "url": hook.url})
        ended = schedule.run()
        assert ended.code == 1, ended.output
        assert told(hook) == ["started", "rolled_back", "overdue"], "it has told of its failure itself"
        assert json.loads(hook.asked[2].body)["secrets"] == [SECRET]

        hook.asked.clear()
        edit(stack, {**load(stack), "keyturn_state_host": "no-such-host"})
        ended = schedule.run()
        assert ended.code == 1, ended.output
        assert told(hook) == ["failed"]
        assert json.loads(hook.asked[0].body)["commands"] == ["see what is due"]


def test_a_rotation_that_waits_for_an_approval_is_left_alone(
    stack: Stack, schedule: Round, controller: Controller
) -> None:
    assert controller.run(stack.inventory, "rotate", only=SECRET, until="stage").code == 0
    ended = schedule.run()
    assert (ended.code, status_of(stack)) == (0, ["open"]), ended.output
    assert f"waits     {SECRET}: rotation" in ended.output


def test_what_is_due_is_said_of_the_secrets_that_are_named(tmp_path: Path) -> None:
    project = Project(tmp_path)
    inventory = yaml.safe_load(project.inventory.read_text())
    secrets = inventory["all"]["vars"]["keyturn_secrets"]
    secrets[TOKEN]["cryptoperiod"] = "30d"
    secrets["OTHER"] = {**secrets[TOKEN], "stores": [{**secrets[TOKEN]["stores"][0], "variable": "A"}]}
    project.inventory.write_text(yaml.safe_dump(inventory))
    assert f"  rotate    {TOKEN}, OTHER\n" in project.run("due").output
    path = tmp_path / "due.json"
    named = project.run("due", only="OTHER", due_to=str(path))
    assert "  rotate    OTHER\n" in named.output
    assert json.loads(path.read_text())["runs"] == [{"playbook": "rotate", "only": ["OTHER"]}]
    unknown = project.run("due", only="OTER")
    assert unknown.code != 0
    assert "no secret 'OTER'. Did you mean 'OTHER'?" in unknown.output
