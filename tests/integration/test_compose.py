# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of Docker Compose on a real engine: restarted in order, made anew, watched."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import Project, sleeper
from tests.unit.test_restart_role import play

OLD, NEW = "canary-old-4f9d2c7a11e0", "canary-new-b83e6650c2fd"
ProjectMaker = Callable[..., Project]


@pytest.fixture
def project(tmp_path: Path, docker_host: str) -> Iterator[ProjectMaker]:
    """Start projects that are gone after the test."""
    with ExitStack() as projects:

        def make(services: dict[str, Any], environment: dict[str, str] | None = None, **files: Any) -> Project:
            contents = {"compose.yml": {"services": services}, **{f"{name}.yml": body for name, body in files.items()}}
            folder = tmp_path / f"p{uuid.uuid4().hex[:8]}"
            return projects.enter_context(Project(folder, docker_host, contents, environment))

        yield make


def _named(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, **entry}


def test_trap_13_containers_are_made_anew_and_have_the_new_environment(project: ProjectMaker, tmp_path: Path) -> None:
    shop = project(
        {"api": sleeper(environment={"TOKEN": "${TOKEN}"}), "db": sleeper()},
        {"TOKEN": OLD},
        override={"services": {"api": {"deploy": {"replicas": 2}}}},
    )
    other = project({"worker": sleeper(environment={"TOKEN": "${TOKEN}"})}, {"TOKEN": OLD})
    before = {name: shop.ids(name) for name in ("api", "db")}
    services = [
        _named("api", shop.entry("api", wave=0)),
        _named("db", shop.entry("db", wave=0)),
        _named("worker", other.entry("worker", wave=0)),
    ]
    shop.set(TOKEN=NEW)
    other.set(TOKEN=NEW)
    code, output = play(tmp_path, "--check", restart_services=services)
    assert (code, NEW in output, OLD in output) == (0, False, False), output
    assert {name: shop.ids(name) for name in ("api", "db")} == before
    code, output = play(tmp_path, restart_services=services)
    assert (code, NEW in output, OLD in output) == (0, False, False), output
    assert [found["TOKEN"] for found in shop.environment("api")] == [NEW, NEW], "as many as before, all of them new"
    assert [found["TOKEN"] for found in other.environment("worker")] == [NEW]
    assert not before["db"] & shop.ids("db")
    assert output.count("Bring the containers to the wanted state") == 2, "one call for each project"
