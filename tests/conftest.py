# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker daemon of the tests that need one: that of DOCKER_HOST, or one of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.dockerd import Dockerd
from xdist.scheduler import LoadFileScheduling

from tests.support.controller import COMPILED

_TESTS = Path(__file__).resolve().parent
_CACHE = _TESTS.parent / ".cache" / "molecule"
os.environ["KEYTURN_COMPILED"] = COMPILED  # for all that tests start


_DAEMON = "docker"


def _scope(nodeid: str) -> str:
    """What one worker runs as a whole: what needs the daemon, a part of the campaign, a file."""
    path, test = nodeid.split("::", 1)
    file = Path(path)
    if file.name.startswith("test_compose") or (file.parent.name == "molecule" and "without_containers" not in test):
        return _DAEMON
    return nodeid if file.name == "test_campaign.py" else path


class _ByFileAndDaemon(LoadFileScheduling):
    """A file is run by one worker; one worker has the daemon, and runs every test that needs it."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no worker is left alone with it: the daemon's, then the campaign."""
    items.sort(key=lambda item: (_scope(item.nodeid) != _DAEMON, "test_campaign" not in item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFileAndDaemon:
    """Who runs what with ``-n``."""
    return _ByFileAndDaemon(config, log)


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """What ``DOCKER_HOST`` has to be."""
    given = os.environ.get("DOCKER_HOST")
    if given:
        yield given
        return
    with Dockerd(_CACHE) as daemon:
        yield daemon.host
