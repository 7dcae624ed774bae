# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that does not get past its opening, and one that another look in the same call came before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.controller import Ended
from tests.support.project import FIRST, SECRET, Project


def _together(project: Project, *playbooks: str) -> Ended:
    """Several of the collection's playbooks in one call of ``ansible-playbook``."""
    play = project.folder / "together.yml"
    play.write_text(yaml.safe_dump([{"ansible.builtin.import_playbook": f"keyturn.rotation.{p}"} for p in playbooks]))
    (project.folder / "keyset.json").touch(0o600)
    (project.folder / "keyset.json").write_text(
        json.dumps({"active_kid": "k1", "keys": {"k1": "of-a-keyset-0123456789"}})
    )
    about = {"event_id": "look", "keyset": "JWT", "keyset_file": str(project.folder / "keyset.json"), "only": SECRET}
    command = project.controller.command(project.inventory, "evidence", **about)
    command[command.index("keyturn.rotation.evidence")] = str(play)
    return project.controller.run_command(command)


@pytest.mark.parametrize("first", ["the host that fails", "the state host"])
def test_a_host_that_ansible_itself_fails_on_brings_everything_back(tmp_path: Path, first: str) -> None:
    """Such an error leaves no result: a host that has not opened anything must not count as turned."""
    project = Project(tmp_path)
    state_host, fails = project.hosts
    inventory = yaml.safe_load(project.inventory.read_text())
    inventory["all"]["hosts"][fails] |= {
        "ansible_become": True,
        "ansible_become_user": "nobody",
        "ansible_become_exe": "/bin/false",
    }
    project.inventory.write_text(yaml.safe_dump(inventory))
    order = [fails, state_host] if first == "the host that fails" else [state_host, fails]
    ended = project.run("rotate", only=SECRET, hosts=",".join(order))
    assert ended.code == 2, ended.output
    assert "turned" not in ended.output.lower()
    assert "everything is back" in ended.output
    assert project.statuses() == ["rolled_back"]
    assert project.values() == {FIRST}


def test_evidence_and_a_way_back_in_one_call(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.run("rotate", only=SECRET).code == 0
    ended = _together(project, "evidence", "rollback")
    assert ended.code == 0, ended.output
    assert project.statuses() == ["rolled_back"]
    assert project.values() == {FIRST}


def test_evidence_and_a_rotation_in_one_call(tmp_path: Path) -> None:
    project = Project(tmp_path)
    ended = _together(project, "evidence", "rotate", "rollback", "rotate")
    assert ended.code == 0, ended.output
    assert project.statuses() == ["rolled_back", "overlap"]
    (value,) = project.values()
    assert value != FIRST


def test_a_service_that_is_not_concerned_holds_a_rotation_up_where_that_is_asked(tmp_path: Path) -> None:
    """On a host that has nothing to do with the secret, too."""
    project = Project(tmp_path)
    inventory = yaml.safe_load(project.inventory.read_text())
    elsewhere, mended = f"three-{project.mark}", tmp_path / "mended"
    inventory["all"]["hosts"][elsewhere] = {"keyturn_state_dir": str(project.state(elsewhere))}
    service = {"manager": "command", "start": ["true"], "stop": ["true"], "hosts": elsewhere}
    inventory["all"]["vars"]["keyturn_services"]["far"] = {
        **service,
        "health": {"command": ["test", "-e", str(mended)]},
    }
    inventory["all"]["vars"]["keyturn_gate"] = "all"
    project.inventory.write_text(yaml.safe_dump(inventory))
    for playbook in ("plan", "rotate"):
        ended = project.run(playbook, only=SECRET)
        assert ended.code == 2, ended.output
        assert f"far on {elsewhere} is unhealthy" in ended.output
        assert not (project.state(project.hosts[0]) / "registry.json").exists()
    assert project.values() == {FIRST}
    concerned = project.run("plan", only=SECRET, gate="concerned")
    assert concerned.code == 0, concerned.output

    mended.touch()
    ended = project.run("rotate", only=SECRET, until="stage")
    assert ended.code == 0, ended.output
    assert not project.state(elsewhere).exists(), "the other host takes no part in the rotation"
    mended.unlink()
    ended = project.run("rotate", only=SECRET)
    assert ended.code == 0, ended.output
    assert project.statuses() == ["overlap"], "one that goes on is not held up"
    waived = project.run("plan", only=SECRET, waive=[{"host": elsewhere, "reason": "gone", "until": "2999-12-31"}])
    assert waived.code == 0, waived.output
