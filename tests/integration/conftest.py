# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all whole rotations share: one database server, some key pairs, a stack for each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from demo.postgres import PostgresServer
from demo.schema import generate_jwks
from demo.stack import APIS, Stack

from tests.support.compose import Project
from tests.support.controller import Controller

_SETTINGS = {
    "max_connections": "100",
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_min_error_statement": "debug5",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One server that logs every statement with its parameters."""
    made = PostgresServer.create(tmp_path_factory.mktemp("server"), settings=_SETTINGS)
    made.start()
    yield made
    made.remove()


@pytest.fixture(scope="session")
def jwks() -> list[dict[str, str]]:
    """A few RSA key pairs."""
    return generate_jwks(3)


StackMaker = Callable[..., Stack]


@pytest.fixture
def make_stack(
    tmp_path: Path, server: PostgresServer, jwks: list[dict[str, str]], request: pytest.FixtureRequest
) -> Iterator[StackMaker]:
    """Make stacks that are gone after the test; see the marker ``one_instance``."""
    apis = APIS[:1] if request.node.get_closest_marker("one_instance") else APIS
    with ExitStack() as stacks:

        def make(**options: Any) -> Stack:
            options = {"rows": 120, "tokens": 12, "apis": apis, **options}
            name = f"t{uuid.uuid4().hex[:12]}"
            return stacks.enter_context(Stack(tmp_path / name, server=server, database=name, jwks=jwks, **options))

        yield make


@pytest.fixture
def stack(make_stack: StackMaker) -> Stack:
    """A small stack."""
    return make_stack()


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """A controller."""
    return Controller(tmp_path / "controller")


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
