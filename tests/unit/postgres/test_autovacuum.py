# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Autovacuum comes when a table was just filled, holds the lock that a swap needs, and may take hours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig

_RUNS = "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 'creds'::regclass"
_SLOW = {
    "autovacuum": "on",
    "autovacuum_naptime": "1s",
    "autovacuum_vacuum_threshold": "10",
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_cost_delay": "100ms",
    "autovacuum_vacuum_cost_limit": "1",
}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server whose autovacuum never comes to its end."""
    with EmbeddedPostgres(settings=_SLOW) as running:
        yield running


@pytest.mark.parametrize("way", ["rows", "columns"])
def test_autovacuum_gives_way(server: EmbeddedPostgres, tmp_path: Path, way: str) -> None:
    with server.database("app_slow") as dsn:
        rig = Rig(dsn, tmp_path / "state")
        rig.fill(30)
        rig.sql.execute("ALTER TABLE creds ADD padding text")
        rig.sql.execute("ALTER TABLE creds ALTER padding SET STORAGE PLAIN")
        rig.sql.execute("UPDATE creds SET padding = repeat('x', 5000)")
        for state in ("prepared", "cut_over"):
            rig.sql.execute("UPDATE creds SET ver = ver + 1")
            while not rig.sql.execute(_RUNS).fetchone():
                pass
            result = rig.run(state, cut_over=way)
        assert result["facts"][0]["fact"] == "prev"
        rig.sql.close()
