# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL that checks passwords over TCP and logs every statement, and logins on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from demo.postgres import PostgresServer

from tests.support.logins import Desk, new_role

_SETTINGS = {
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_min_error_statement": "debug5",
    "log_error_verbosity": "verbose",
    "log_connections": "on",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The server."""
    made = PostgresServer.create(tmp_path_factory.mktemp("server"), durable=False, settings=_SETTINGS)
    made.start()
    yield made
    made.remove()


@pytest.fixture
def desk(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A role whose password turns, and the calls."""
    made = Desk(server, tmp_path_factory.mktemp("desk"), *new_role(server))
    yield made
    made.drop()
