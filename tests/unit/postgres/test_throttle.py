# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rate, a pause, a stop, and a real standby that falls behind."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import Throttle, control_path

from tests.support.postgres import EmbeddedPostgres


class _Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)
        self.sleeps.append(seconds)
        assert len(self.sleeps) < 1000

    def throttle(self, **more: Any) -> Throttle:
        return Throttle(clock=lambda: self.now, sleep=self.sleep, **more)


class _NoLink:
    """A connection that must not be used."""


_LINK: Any = _NoLink()


def test_the_rate_is_shared_by_the_workers() -> None:
    clock = _Clock()
    throttle = clock.throttle(rate=100, workers=4)
    for _batch in range(10):
        throttle.hold(_LINK, 50)
    assert clock.now == pytest.approx(10 * 50 / 25)


def test_without_a_limit_nobody_waits() -> None:
    clock = _Clock()
    clock.throttle().hold(_LINK, 1_000_000)
    assert clock.sleeps == []


def test_a_pause_lasts_until_it_is_taken_back(tmp_path: Path) -> None:
    control = tmp_path / "pace-KEY-app.json"
    control.write_text(json.dumps({"do": "pause"}))
    clock = _Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > 30:
            control.write_text(json.dumps({"do": "run", "rate": 10}))

    throttle = Throttle(control=str(control), clock=lambda: clock.now, sleep=sleep)
    assert throttle.is_paused
    throttle.hold(_LINK, 100)
    assert not throttle.is_paused
    assert 40 <= clock.now < 41  # thirty seconds of pause, then 100 rows at 10 a second


def test_a_stop_is_one_clear_error_and_is_asked_for_once(tmp_path: Path) -> None:
    control = tmp_path / "pace-KEY-app.json"
    control.write_text(json.dumps({"do": "stop"}))
    with pytest.raises(KeyturnError) as raised:
        _Clock().throttle(control=str(control)).hold(_LINK, 1)
    assert raised.value.code == "stopped"
    assert "goes on where it stopped" in str(raised.value)
    assert not control.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rate": "fast"}'])
def test_a_broken_control_file_changes_nothing(tmp_path: Path, content: str) -> None:
    control = tmp_path / "pace-KEY-app.json"
    control.write_text(content)
    clock = _Clock()
    clock.throttle(rate=10, control=str(control)).hold(_LINK, 10)
    assert clock.now == pytest.approx(1)


def test_the_control_file_lies_beside_the_progress_file() -> None:
    assert control_path("/var/lib/keyturn/host/progress-KEY-app.json") == "/var/lib/keyturn/host/pace-KEY-app.json"


def _holds(throttle: Throttle, dsn: str) -> None:
    """What a worker does between two batches."""
    with psycopg.connect(dsn, autocommit=True) as link:
        throttle.hold(link, 1)


def test_a_standby_that_falls_behind_is_waited_for() -> None:
    with EmbeddedPostgres(settings={"wal_level": "replica", "max_wal_senders": "4"}) as primary:
        dsn = primary.create_database("app")
        with primary.standby() as standby, psycopg.connect(dsn, autocommit=True) as link:
            link.execute("CREATE TABLE filler (t text)")
            Throttle(max_lag=1_000_000).hold(link, 1)
            throttle = Throttle(max_lag=1_000_000)
            with psycopg.connect(standby.dsn("app"), autocommit=True) as other:
                other.execute("SELECT pg_wal_replay_pause()")
                link.execute("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
                worker = multiprocessing.get_context("fork").Process(target=_holds, args=(throttle, dsn))
                assert not throttle.waits_for_standby
                worker.start()
                worker.join(1.5)
                assert worker.exitcode is None
                assert throttle.waits_for_standby, "the process that it left sees it"
                other.execute("SELECT pg_wal_replay_resume()")
                worker.join(60)
                assert worker.exitcode == 0


def test_a_base_backup_is_no_standby() -> None:
    settings = {"wal_level": "replica", "max_wal_senders": "4"}
    with (
        EmbeddedPostgres(settings=settings) as primary,
        primary.base_backup(),
        psycopg.connect(primary.dsn(), autocommit=True) as link,
    ):
        Throttle(max_lag=1).hold(link, 1)
        assert link.execute("SELECT state FROM pg_stat_replication").fetchall() == [("backup",)]


def test_a_role_that_cannot_see_the_lag_is_told() -> None:
    with EmbeddedPostgres(settings={"wal_level": "replica", "max_wal_senders": "4"}) as primary:
        with psycopg.connect(primary.dsn(), autocommit=True) as link:
            link.execute("CREATE ROLE app LOGIN")
        with primary.standby(), psycopg.connect(primary.dsn(user="app"), autocommit=True) as link:
            with pytest.raises(KeyturnError) as raised:
                Throttle(max_lag=1).hold(link, 1)
            assert raised.value.code == "lag-unknown"
            assert "pg_monitor" in str(raised.value)


def test_whoever_waits_for_the_turn_of_a_large_batch_can_be_stopped(tmp_path: Path) -> None:
    control = tmp_path / "pace-KEY-app.json"
    control.write_text(json.dumps({"do": "run", "rate": 1}))
    clock = _Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > 3:
            control.write_text(json.dumps({"do": "stop"}))

    throttle = Throttle(control=str(control), clock=lambda: clock.now, sleep=sleep)
    with pytest.raises(KeyturnError) as raised:
        throttle.hold(_LINK, 500)
    assert raised.value.code == "stopped"
    assert clock.now <= 4


@pytest.mark.parametrize(("order", "seconds"), [({"do": "run", "rate": 0}, 10), (None, 10), ({"rate": 98}, 15)])
def test_what_is_left_of_the_wait_goes_by_the_new_rate(
    tmp_path: Path, order: dict[str, Any] | None, seconds: float
) -> None:
    """500 rows at one a second; after ten seconds 490 of them are left."""
    control = tmp_path / "pace-KEY-app.json"
    control.write_text(json.dumps({"do": "run", "rate": 1}))
    clock = _Clock()

    def sleep(some: float) -> None:
        clock.sleep(some)
        if clock.now >= 10 and order is None:
            control.unlink(missing_ok=True)
        elif clock.now >= 10:
            control.write_text(json.dumps(order))

    Throttle(control=str(control), clock=lambda: clock.now, sleep=sleep).hold(_LINK, 500)
    assert clock.now == pytest.approx(seconds, abs=0.6)
