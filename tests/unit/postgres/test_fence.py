# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch that is one statement holds the fence while it writes, and writes nothing once somebody else has it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import states
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Limits, connect
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import SAME, Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import Writer

from tests.support.reencryption import Rig

_ROWS, _BATCH = 60, 7
_HELD = "SELECT FROM keyturn.fence FOR UPDATE NOWAIT"


def test_nothing_is_written_once_somebody_else_has_the_fence(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fill(_ROWS)
    batches = []
    replace = Writer.replace_fenced

    def overtaken(self: Writer, *given: Any) -> int:
        if len(batches) == 2:  # what every later run does, after the check of this one and before its statement
            with connect(rig.dsn.encode(), "database app", Limits()) as link:
                Fence("keyturn", "KEY", "r1", 2).take(link, SAME, Pace("test", max_wait_s=10), in_place=True)
        batches.append(replace(self, *given))
        return batches[-1]

    monkeypatch.setattr(Writer, "replace_fenced", overtaken)
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place", batch_rows=_BATCH)
    assert refused.value.code == "fenced"
    assert batches[0] > 0
    assert batches[2:] == [0]
    under_new = [text for text in rig.plaintexts("new").values() if text]
    assert len(under_new) == sum(batches) < _ROWS
    monkeypatch.undo()
    assert rig.run("in_place", epoch=2)["coverage"][0]["new"] == _ROWS


def _until_it_waits(watcher: psycopg.Connection) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'keyturn'"
    until = time.monotonic() + 20
    while watcher.execute(waiting).fetchone() != (1,):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def patient(rig: Rig) -> Iterator[threading.Thread]:
    """A pass that waits long for a row that somebody holds; it has succeeded at the end."""
    rig.fill(_ROWS)
    failed: list[BaseException] = []

    def re_encrypt() -> None:
        try:
            rig.run("in_place", lock_timeout_ms=20_000)
        except BaseException as error:
            failed.append(error)

    run = threading.Thread(target=re_encrypt)
    yield run
    run.join(30)
    assert not failed
    assert rig.info()["coverage"][0]["new"] == _ROWS


def test_the_fence_is_held_while_a_batch_waits_for_a_row(rig: Rig, patient: threading.Thread) -> None:
    with psycopg.connect(rig.dsn) as other, psycopg.connect(rig.dsn, autocommit=True) as watcher:
        other.execute("SELECT FROM creds WHERE id = 1 FOR UPDATE")
        patient.start()
        _until_it_waits(watcher)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            watcher.execute(_HELD)
        other.rollback()
        patient.join(30)
        watcher.execute(_HELD)


def test_what_somebody_wrote_while_a_batch_waited_is_kept(rig: Rig, patient: threading.Thread) -> None:
    with psycopg.connect(rig.dsn) as other, psycopg.connect(rig.dsn, autocommit=True) as watcher:
        other.execute("UPDATE creds SET secret = (SELECT secret FROM creds WHERE id = 2) WHERE id = 1")
        patient.start()
        _until_it_waits(watcher)
        other.commit()
        patient.join(30)
    found = rig.plaintexts("new")
    assert found[1] == found[2] != ""
    assert found[3] == "3:0"


@pytest.mark.parametrize(
    "does",
    [
        "ALSO INSERT INTO audit VALUES (NEW.id)",
        "ALSO (INSERT INTO audit VALUES (OLD.id); UPDATE audit SET id = id WHERE id = NEW.id)",
    ],
)
def test_a_rule_that_does_more_for_each_update_is_no_obstacle(rig: Rig, does: str) -> None:
    """PostgreSQL refuses such a table in a statement with parts (``WITH``)."""
    rig.fill(_ROWS)
    rig.sql.execute("CREATE TABLE audit (id bigint)")
    rig.sql.execute(f"CREATE RULE seen AS ON UPDATE TO creds DO {does}")
    assert rig.run("in_place")["coverage"][0]["new"] == _ROWS
    assert rig.sql.execute("SELECT count(*), count(DISTINCT id) FROM audit").fetchone() == (_ROWS, _ROWS)


@pytest.mark.parametrize(("is_overtaken", "code"), [(True, "fenced"), (False, "connection-lost")])
def test_a_run_whose_connections_a_later_one_ends_says_so(
    rig: Rig, is_overtaken: bool, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.fill(_ROWS)

    def overtake(work: Any, *_arguments: Any) -> None:
        if is_overtaken:
            rig.sql.execute("UPDATE keyturn.fence SET token = token + 1, epoch = epoch + 1")
        rig.sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keyturn'")
        work.link.execute("SELECT 1")

    monkeypatch.setattr(states, "re_encrypt", overtake)
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert refused.value.code == code


def test_a_worker_that_is_frozen_while_it_sends_rows_holds_nobody_up(rig: Rig) -> None:
    """Its session waits for the rest of a COPY, which no timeout of the server ends, and has the fence."""
    rig.fill(_ROWS)
    rig.run("prepared")
    with contextlib.closing(psycopg.connect(rig.dsn, application_name="keyturn")) as frozen:
        frozen.execute("SELECT FROM keyturn.fence FOR SHARE")
        frozen.execute("CREATE TEMPORARY TABLE kept (cell text)")
        frozen.pgconn.exec_(b"COPY kept FROM STDIN")
        assert rig.run("rolled_back", epoch=2)["changed"]
        still_there = "SELECT FROM pg_stat_activity WHERE pid = %s"
        assert rig.sql.execute(still_there, (frozen.info.backend_pid,)).fetchone() is None
    assert rig.shadows() == []
    assert rig.plaintexts("old") == {row: f"{row}:0" for row in range(1, _ROWS + 1)}
