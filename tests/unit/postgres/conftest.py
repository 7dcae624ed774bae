# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server for all tests here, and a database for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig

_LOG_EVERYTHING = {
    "log_statement": "all",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_min_duration_statement": "0",
    "log_error_verbosity": "verbose",
}
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that logs every statement with every parameter."""
    with EmbeddedPostgres(settings=_LOG_EVERYTHING) as running:
        yield running


@pytest.fixture
def dsn(server: EmbeddedPostgres) -> Iterator[str]:
    """The connection string of a fresh database."""
    with server.database(f"app{next(_NUMBERS)}") as text:
        yield text


@pytest.fixture
def rig(dsn: str, tmp_path: Path) -> Iterator[Rig]:
    """A database without tables, and the calls."""
    made = Rig(dsn, tmp_path / "state")
    yield made
    made.sql.close()
