# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back where a file is not what it should be: lost, changed by somebody, or never usable."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.controller import registry
from tests.support.project import FIRST, SECRET, Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_that_preflight_refuses_leaves_nothing_stuck(project: Project, is_link: bool) -> None:
    one, two = project.hosts
    moved = project.env(two).rename(project.folder / "moved")
    if is_link:
        project.env(two).symlink_to(moved)
    words = "is a symbolic link" if is_link else "does not exist"
    ended = project.run("rotate", only=SECRET)
    assert ended.code == 2, ended.output
    assert f"{project.env(two)}: {words}" in ended.output
    assert "both versions are kept" not in ended.output
    assert project.statuses() == ["rolled_back"]
    assert project.env(one).read_text() == f"A=1\n{SECRET}={FIRST}\n"
    if is_link:
        project.env(two).unlink()
    moved.rename(project.env(two))
    again = project.run("rotate", only=SECRET)
    assert (again.code, project.statuses()) == (0, ["rolled_back", "overlap"]), again.output


def _turned(project: Project) -> str:
    ended = project.run("rotate", only=SECRET)
    assert ended.code == 0, ended.output
    (value,) = project.values()
    return value


@pytest.mark.parametrize("loss", ["changed", "gone"])
def test_a_rollback_that_one_host_cannot_do_changes_none(project: Project, loss: str) -> None:
    second = _turned(project)
    one, two = project.hosts
    kept = project.env(two).read_text()
    if loss == "gone":
        project.env(two).unlink()
    else:
        project.env(two).write_text(f"A=1\n{SECRET}=by-hand\n")
    restarts = project.restarts()
    ended = project.run("rollback", only=SECRET)
    assert ended.code == 2, ended.output
    assert (project.env(one).read_text(), project.restarts()) == (f"A=1\n{SECRET}={second}\n", restarts)
    (rotation_id,) = registry(project.state(one))["rotations"]
    folder = project.state(two) / "secrets" / SECRET / rotation_id
    assert f"(here: {folder}/old, {folder}/new)" in ended.output
    assert "changed nothing on this host" in ended.output
    assert "The way back was refused. Nothing was changed, and the rotation is as it was." in ended.output
    assert project.statuses() == ["overlap"]
    if loss == "gone":
        assert f"The newest backup of it on this host: {project.backups(two)[-1]}" in ended.output
        assert "if_missing" not in ended.output
    project.env(two).write_text(kept)
    again = project.run("rollback", only=SECRET)
    assert (again.code, project.values(), project.statuses()) == (0, {FIRST}, ["rolled_back"]), again.output


def test_a_rotation_whose_way_back_was_refused_can_go_on(project: Project) -> None:
    begun = project.run("rotate", only=SECRET, until="stage")
    assert (begun.code, project.statuses()) == (0, ["open"]), begun.output
    _one, two = project.hosts
    kept = project.env(two).read_text()
    project.env(two).unlink()
    refused = project.run("rollback", only=SECRET)
    assert (refused.code, project.statuses()) == (2, ["open"]), refused.output
    project.env(two).write_text(kept)
    ended = project.run("rotate", only=SECRET)
    assert (ended.code, project.statuses()) == (0, ["overlap"]), ended.output
    assert project.values() != {FIRST}


@pytest.mark.parametrize("changed", [FIRST, "by-hand"])
def test_a_retire_that_finds_another_value_in_a_store_begins_nothing(project: Project, changed: str) -> None:
    """A deploy has written the former value back on one host, or a person another one."""
    second = _turned(project)
    one, two = project.hosts
    project.env(two).write_text(f"A=1\n{SECRET}={changed}\n")
    ended = project.run("retire", only=SECRET, confirm=SECRET)
    assert ended.code == 2, ended.output
    assert f"Nothing was retired or removed, and the way back is open. {two}: " in ended.output
    (rotation_id,) = registry(project.state(one))["rotations"]
    folders = [project.state(host) / "secrets" / SECRET / rotation_id for host in project.hosts]
    assert f"Put the new value of {SECRET} (here: {folders[1]}/new) there; this step changed nothing" in ended.output
    assert (project.statuses(), project.env(one).read_text()) == (["overlap"], f"A=1\n{SECRET}={second}\n")
    assert [(folder / "old").read_text() for folder in folders] == [FIRST, FIRST]
    project.env(two).write_text(f"A=1\n{SECRET}={second}\n")
    again = project.run("retire", only=SECRET, confirm=SECRET)
    assert (again.code, project.values(), project.statuses()) == (0, {second}, ["retired"]), again.output


def _leave_out_the_second(project: Project) -> str:
    """What the inventory was before."""
    everywhere = project.inventory.read_text()
    inventory = yaml.safe_load(everywhere)
    secret = inventory["all"]["vars"]["keyturn_secrets"][SECRET]
    secret["stores"] = secret["stores"][:1]
    project.inventory.write_text(yaml.safe_dump(inventory))
    return everywhere


def test_a_host_that_joined_after_the_turn_is_named_and_nothing_is_said_to_be_back_there(project: Project) -> None:
    """It was set up with the value of the others, and has no version of its own."""
    one, two = project.hosts
    everywhere = _leave_out_the_second(project)
    assert project.run("rotate", only=SECRET).code == 0
    turned = project.env(one).read_text()
    project.env(two).write_text(turned)
    project.inventory.write_text(everywhere)
    retired = project.run("retire", only=SECRET, confirm=SECRET)
    assert retired.code == 2, retired.output
    assert f"the way back is open. {one}: {two} was not there when {SECRET} turned" in retired.output
    assert project.statuses() == ["overlap"]
    (rotation_id,) = registry(project.state(one))["rotations"]
    restarts = project.restarts()
    ended = project.run("rollback", only=SECRET)
    assert ended.code == 2, ended.output
    assert f"{two} holds the new version of {SECRET} and was not there when it turned" in ended.output
    assert "everything is back" not in ended.output
    assert (project.env(one).read_text(), project.restarts()) == (turned, restarts)
    value = (project.state(one) / "secrets" / SECRET / rotation_id / "old").read_text()
    project.env(two).write_text(f"A=1\n{SECRET}={value}\n")
    again = project.run("rollback", only=SECRET)
    assert (again.code, project.values(), project.statuses()) == (0, {FIRST}, ["rolled_back"]), again.output


def test_a_host_that_joined_in_the_middle_is_named_when_a_run_goes_back_by_itself(project: Project) -> None:
    """The others are back; it holds the new version, and nobody says that it does not."""
    one, two = project.hosts
    everywhere = _leave_out_the_second(project)
    assert project.run("rotate", only=SECRET, until="restart").code == 0
    project.env(two).write_text(project.env(one).read_text())
    project.inventory.write_text(everywhere)
    ended = project.run("rotate", only=SECRET)
    assert ended.code == 2, ended.output
    assert f"{two} holds the new version of {SECRET} and was not there when it turned" in ended.output
    assert "1 of 2 are back" in ended.output
    assert (project.env(one).read_text(), project.statuses()) == (f"A=1\n{SECRET}={FIRST}\n", ["stuck"])
    project.env(two).write_text(project.env(one).read_text())
    again = project.run("rollback", only=SECRET)
    assert (again.code, project.values(), project.statuses()) == (0, {FIRST}, ["rolled_back"]), again.output
