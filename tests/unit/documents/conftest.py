# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server for all tests here, and a database with an empty table of policies for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import PolicyRig
from tests.support.postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that logs every statement with every parameter."""
    with EmbeddedPostgres(settings={"log_statement": "all", "log_parameter_max_length": "-1"}) as running:
        yield running


@pytest.fixture
def rig(server: EmbeddedPostgres, tmp_path: Path) -> Iterator[PolicyRig]:
    """A database without policies, and the calls."""
    with server.database("policies") as dsn:
        made = PolicyRig(dsn, tmp_path)
        yield made
        made.sql.close()
