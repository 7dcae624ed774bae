# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server for all tests here, and a table of keys in a database of its own for each."""

from __future__ import annotations

import uuid
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
}
KeysMaker = Callable[[str], Keys]


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that logs every statement with every parameter."""
    with EmbeddedPostgres(settings=_LOG_EVERYTHING) as running:
        yield running


@pytest.fixture
def make_keys(server: EmbeddedPostgres, tmp_path: Path) -> Iterator[KeysMaker]:
    """Make tables of a shape that are gone after the test."""
    with ExitStack() as stack:

        def make(shape: str) -> Keys:
            dsn = stack.enter_context(server.database(f"t{uuid.uuid4().hex[:12]}"))
            made = Keys(dsn, tmp_path / "state", shape)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(params=sorted(SHAPES))
def keys(request: pytest.FixtureRequest, make_keys: KeysMaker) -> Keys:
    """An empty table of each shape."""
    return make_keys(str(request.param))
