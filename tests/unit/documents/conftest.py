# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server for all tests here, and a database with an empty table of policies for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.documents import PolicyRig
from tests.support.postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that logs every statement with every parameter."""
    with EmbeddedPostgres(settings={"log_statement": "all", "log_parameter_max_length": "-1"}) as running:
        yield running


@pytest.fixture(scope="session")
def _database(server: EmbeddedPostgres) -> str:
    return server.create_database("policies")


@pytest.fixture
def rig(_database: str, tmp_path: Path) -> Iterator[PolicyRig]:
    """A database without policies, and the calls."""
    with psycopg.connect(_database, autocommit=True) as link:
        link.execute("DROP SCHEMA IF EXISTS keyturn CASCADE")
        link.execute("DROP SCHEMA public CASCADE")
        link.execute("CREATE SCHEMA public")
    made = PolicyRig(_database, tmp_path)
    yield made
    made.sql.close()
