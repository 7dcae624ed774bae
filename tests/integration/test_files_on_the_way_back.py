# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back where a file is not what it should be: lost, changed by somebody, or never usable."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    if loss == "gone":
        assert f"The newest backup of it on this host: {project.backups(two)[-1]}" in ended.output
        assert "if_missing" not in ended.output
    project.env(two).write_text(kept)
    again = project.run("rollback", only=SECRET)
    assert (again.code, project.values(), project.statuses()) == (0, {FIRST}, ["rolled_back"]), again.output
