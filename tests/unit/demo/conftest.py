# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One database server and a few RSA keys for all tests; a small stack for each test that asks for one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.postgres import PostgresServer
from demo.schema import generate_jwks
from demo.stack import Stack

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def jwks() -> list[dict[str, str]]:
    """A few RSA key pairs."""
    return generate_jwks(2)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A running database server."""
    server = PostgresServer.create(
        tmp_path_factory.mktemp("server"), durable=False, settings={"log_statement": "'all'"}
    )
    server.start()
    yield server
    server.remove()


def _stack(folder: Path, server: PostgresServer, jwks: list[dict[str, str]]) -> Stack:
    """A stack of 40 rows, 4 of them in clear, and 30 tokens."""
    return Stack(folder, rows=40, plain=4, tokens=30, server=server, database=f"app{next(_NUMBERS)}", jwks=jwks)


@pytest.fixture
def stack(tmp_path: Path, server: PostgresServer, jwks: list[dict[str, str]]) -> Iterator[Stack]:
    """A stack for one test, with both services running."""
    with _stack(tmp_path, server, jwks) as stack:
        yield stack


@pytest.fixture(scope="session")
def common_stack(
    tmp_path_factory: pytest.TempPathFactory, server: PostgresServer, jwks: list[dict[str, str]]
) -> Iterator[Stack]:
    """A stack for tests that leave its rows and its services as they found them."""
    with _stack(tmp_path_factory.mktemp("stack"), server, jwks) as stack:
        yield stack
