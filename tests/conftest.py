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

_TESTS = Path(__file__).resolve().parent
_CACHE = _TESTS.parent / ".cache" / "molecule"
os.environ["KEYTURN_COMPILED"] = str(_TESTS / "support" / "compiled.py")  # for all that tests start


class _ByFileAndDaemon(LoadFileScheduling):
    """A file is run by one worker; one worker has the daemon, and runs every file that needs it."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "docker" if Path(file).name.startswith("test_compose") else file


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
