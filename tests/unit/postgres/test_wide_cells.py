# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells of 1 MB: all of them turn, in each way, and a process holds only a few at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig, opens, seal

_CALL = Path(__file__).resolve().parents[2] / "bench" / "call.py"
_ROWS = 80
_SIZE = 2**20
_BATCH_BYTES = 128 * 1024  # a window, 16 times that, holds two cells
#: MB. A process without rows takes 50, the calls here at most 85; all cells at once would be 80 to 110 more.
_MOST = 115
_WAYS = {
    "in_place": ("in_place",),
    "rows": ("prepared", "cut_over", "swept"),
    "columns": ("prepared", "cut_over", "swept"),
}


class _Kind(NamedTuple):
    """A type of column and the envelope of its cells."""

    column: str
    envelope: str


_KINDS = {"text": _Kind("text", "aes256gcm-b64"), "bytea": _Kind("bytea", "aesgcm-raw")}


def _plaintext(number: int) -> bytes:
    """Of each row its own."""
    return b"%08d" % number * (_SIZE // 8)


@pytest.fixture(scope="module")
def wide(server: EmbeddedPostgres) -> str:
    """A database whose statements are not logged: their parameters are whole cells."""
    dsn = server.create_database("wide")
    with psycopg.connect(dsn, autocommit=True) as link:
        for setting, value in (("log_statement", "none"), ("log_min_duration_statement", "-1")):
            alter = sql.SQL("ALTER DATABASE wide SET {} = {}")
            link.execute(alter.format(sql.Identifier(setting), sql.Literal(value)))
    return dsn


@pytest.fixture(params=sorted(_KINDS))
def kind(request: pytest.FixtureRequest) -> _Kind:
    """Each type of column."""
    return _KINDS[request.param]


@pytest.fixture
def rig(wide: str, kind: _Kind, tmp_path: Path) -> Iterator[Rig]:
    """Its rows under the old key."""
    made = Rig(wide, tmp_path / "state")
    create = sql.SQL("CREATE TABLE creds (id bigint PRIMARY KEY, secret {} NOT NULL)")
    made.sql.execute(create.format(sql.SQL(kind.column)))
    for number in range(1, _ROWS + 1):
        cell = seal("old", _plaintext(number), kind.envelope)
        made.insert([(number, cell.decode() if kind.column == "text" else cell)])
    made.columns = [made.column("creds", "secret", envelope=kind.envelope)]
    made.defaults.update(batch_rows=500, batch_bytes=_BATCH_BYTES)
    yield made
    made.sql.execute("DROP SCHEMA IF EXISTS keyturn CASCADE; DROP TABLE creds CASCADE")
    made.sql.close()


def _run(rig: Rig, state: str) -> dict[str, Any]:
    """The call in a process of its own; no process of it may have held much."""
    ran = subprocess.run(
        [sys.executable, str(_CALL)],
        input=json.dumps(rig.params(state)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    assert told["rss_mb"] < _MOST, state
    result: dict[str, Any] = told["result"]
    return result


def _assert_all(rig: Rig, kind: _Kind) -> None:
    """One at a time, as the client of such a table would read them."""
    for number in range(1, _ROWS + 1):
        row = rig.sql.execute("SELECT secret FROM creds WHERE id = %s", (number,)).fetchone()
        assert row is not None
        assert opens("new", row[0], kind.envelope) == _plaintext(number), number


@pytest.mark.parametrize("way", sorted(_WAYS))
def test_wide_cells_turn_and_a_process_holds_a_few_of_them(rig: Rig, kind: _Kind, way: str) -> None:
    rig.defaults["cut_over"] = "rows" if way == "in_place" else way
    for state in _WAYS[way]:
        result = _run(rig, state)
    assert [(entry["total"], entry["new"]) for entry in result["coverage"]] == [(_ROWS, _ROWS)]
    _assert_all(rig, kind)
