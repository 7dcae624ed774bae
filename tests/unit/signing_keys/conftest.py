# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server for all tests here, and a table of keys for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.postgres import EmbeddedPostgres
from tests.support.signing import SHAPES, Keys

_LOG_EVERYTHING = {
    "log_statement": "all",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_min_duration_statement": "0",
    "log_error_verbosity": "verbose",
    "fsync": "off",  # no test here is about the server's own crash
}
KeysMaker = Callable[[str], Keys]


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that logs every statement with every parameter."""
    with EmbeddedPostgres(settings=_LOG_EVERYTHING) as running:
        yield running


@pytest.fixture(scope="session")
def _database(server: EmbeddedPostgres) -> str:
    return server.create_database("app")


@pytest.fixture
def make_keys(_database: str, tmp_path: Path) -> Iterator[KeysMaker]:
    """Make a table of a shape that is gone after the test."""
    with ExitStack() as stack:

        def make(shape: str) -> Keys:
            made = Keys(_database, tmp_path / "state", shape)
            stack.callback(made.clear)
            return made

        yield make


@pytest.fixture(params=sorted(SHAPES))
def keys(request: pytest.FixtureRequest, make_keys: KeysMaker) -> Keys:
    """An empty table of each shape."""
    return make_keys(str(request.param))
