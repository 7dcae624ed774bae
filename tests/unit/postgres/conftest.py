# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server for all tests here, and an empty database for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.faults import ROWS, STATES, Bed
from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig

_LOG_EVERYTHING = {
    "log_statement": "all",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_min_duration_statement": "0",
    "log_error_verbosity": "verbose",
}


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that logs every statement with every parameter."""
    with EmbeddedPostgres(settings=_LOG_EVERYTHING) as running:
        yield running


@pytest.fixture(scope="session")
def _database(server: EmbeddedPostgres) -> str:
    return server.create_database("app")


@pytest.fixture
def dsn(_database: str) -> Iterator[str]:
    """The connection string of an empty database."""
    yield _database
    with psycopg.connect(_database, autocommit=True) as link:
        others = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
        )
        link.execute(others, (link.info.backend_pid,))
        query = "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg!_%' ESCAPE '!' AND nspname <> %s"
        for (schema,) in link.execute(query.replace("%'", "%%'"), ("information_schema",)).fetchall():
            link.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
        link.execute("CREATE SCHEMA public")
        link.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")


@pytest.fixture
def rig(dsn: str, tmp_path: Path) -> Iterator[Rig]:
    """A database without tables, and the calls."""
    made = Rig(dsn, tmp_path / "state")
    yield made
    made.sql.close()


@pytest.fixture
def crewed(bed: Bed) -> Bed:
    """The same with three workers; the rows lie on pages of their own, so that each has some."""
    spread = """
        ALTER TABLE {table} SET (fillfactor = 10);
        CREATE TEMPORARY TABLE kept AS SELECT * FROM {table} ORDER BY id;
        TRUNCATE {table}; INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"""
    for table in ("creds", "more"):
        bed.rig.sql.execute(sql.SQL(spread).format(table=sql.Identifier(table)))
    bed.rig.defaults.update(workers=3, batch_rows=1)
    return bed


@pytest.fixture(params=sorted(STATES))
def bed(request: pytest.FixtureRequest, rig: Rig, server: EmbeddedPostgres) -> Bed:
    """A table, and another one that goes with it; each way to turn its key."""
    way = str(request.param)
    rig.fill(ROWS)
    rig.sql.execute("CREATE TABLE more (LIKE creds INCLUDING ALL)")
    rig.sql.execute("INSERT INTO more SELECT * FROM creds")
    rig.defaults = {"cut_over": "rows" if way == "in_place" else way}
    rig.columns.append(rig.column("more", "secret"))
    return Bed(rig, server, way, frozenset(rig.cells().values()))
