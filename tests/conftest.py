# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker daemon of the tests that need one: that of DOCKER_HOST, or one of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.dockerd import Dockerd

_CACHE = Path(__file__).resolve().parents[1] / ".cache" / "molecule"


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker has the daemon, and runs every test that needs it; otherwise a file is run by one worker."""
    for item in items:
        needs_docker = "docker_host" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("docker" if needs_docker else item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """What ``DOCKER_HOST`` has to be."""
    given = os.environ.get("DOCKER_HOST")
    if given:
        yield given
        return
    with Dockerd(_CACHE) as daemon:
        yield daemon.host
