# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swapping while the service keeps writing secrets: what was written since the last pass is carried over."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import by_columns, by_rows
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target

from tests.support.reencryption import Rig, opens, seal

_ROWS = 1600


class _Service:
    """Writes secrets under the old key, right after each of the passes that come before a swap."""

    def __init__(self, rig: Rig, counts: list[int]) -> None:
        self.rig, self.counts, self.round, self.passes = rig, counts, 0, 0

    def text(self, number: int) -> bytes:
        return f"{number}:{self.round}".encode()

    def write(self) -> None:
        self.passes += 1
        count = self.counts.pop(0) if self.counts else 0
        self.round += bool(count)
        rows = [(seal("old", self.text(number)).decode(), number) for number in range(1, count + 1)]
        with psycopg.connect(self.rig.dsn) as link, link.cursor() as cursor:
            cursor.executemany("UPDATE creds SET secret = %s WHERE id = %s", rows)


def _among(rig: Rig, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> _Service:
    service, settle_all = _Service(rig, counts), by_rows.settle_all

    def settled(*arguments: Any, **more: Any) -> None:
        settle_all(*arguments, **more)
        service.write()

    for module in (by_rows, by_columns):
        monkeypatch.setattr(module, "settle_all", settled)
    return service


def test_many_rows_are_carried_over_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # Measured on a machine that does other work, a cell may take so long that fewer fit
    monkeypatch.setattr(Target, "seconds_to_seal", lambda _target: 1e-5)
    rig.fill(_ROWS)
    rig.run("prepared")
    service = _among(rig, [900], monkeypatch)
    rig.run("cut_over")
    assert service.passes == 1
    assert rig.run("swept")["coverage"][0]["new"] == _ROWS
    assert {number: opens("new", cell) for number, cell in rig.cells().items() if number <= 900} == {
        number: service.text(number) for number in range(1, 901)
    }


def test_too_many_are_left_to_another_pass(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fill(_ROWS)
    rig.run("prepared")
    service = _among(rig, [1500, 3], monkeypatch)
    rig.run("cut_over")
    assert service.passes == 2
    assert rig.run("swept")["coverage"][0]["new"] == _ROWS


def test_wide_rows_are_carried_over_while_they_fit_into_a_batch(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fill(_ROWS)
    rig.run("prepared")
    service = _among(rig, [300], monkeypatch)
    rig.run("cut_over", batch_bytes=100 * len(seal("old", b"100:1")))
    assert service.passes == 2
    assert rig.run("swept")["coverage"][0]["new"] == _ROWS


def test_who_never_ends_is_one_clear_error_and_nothing_is_swapped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fill(_ROWS)
    rig.run("prepared")
    service = _among(rig, [1500] * 50, monkeypatch)
    with pytest.raises(KeyturnError) as refused:
        rig.run("cut_over", max_wait_s=1)
    assert refused.value.code == "lock-unavailable"
    assert service.round > 1
    assert rig.info()["coverage"][0]["old"] == _ROWS


@pytest.mark.parametrize("way", ["rows", "columns"])
def test_passes_longer_than_the_longest_wait_leave_time_for_the_lock(
    rig: Rig, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.fill(30)
    rig.run("prepared", cut_over=way)
    held = psycopg.connect(rig.dsn)
    service = _among(rig, [], monkeypatch)

    def write() -> None:
        service.round += 1
        if service.round == 1:
            mode = "ACCESS SHARE" if way == "columns" else "ROW EXCLUSIVE"
            held.execute(f"LOCK TABLE creds IN {mode} MODE")
            held.execute("SELECT pg_sleep(1.2)")
        else:
            held.rollback()

    monkeypatch.setattr(service, "write", write)
    rig.run("cut_over", cut_over=way, max_wait_s=1)
    assert service.round > 1
    held.close()
    assert rig.run("swept", cut_over=way)["coverage"][0]["new"] == 30


@pytest.mark.parametrize(
    ("way", "holder", "third"),
    [
        ("columns", "SELECT FROM creds", "SELECT secret FROM creds WHERE id = 2"),
        ("columns", "SELECT FROM creds", "UPDATE creds SET ver = ver + 1 WHERE id = 2"),
        ("rows", "UPDATE creds SET ver = 1 WHERE id = 1", "UPDATE creds SET ver = ver + 1 WHERE id = 2"),
    ],
)
def test_a_lock_of_somebody_else_never_holds_up_a_third(rig: Rig, way: str, holder: str, third: str) -> None:
    rig.fill(30)
    rig.run("prepared", cut_over=way)
    over, served, failed = threading.Event(), [], []

    def ask() -> None:
        with psycopg.connect(rig.dsn, autocommit=True) as link:
            link.execute("SET lock_timeout = '1s'")
            while not over.is_set():
                try:
                    link.execute(third.encode())
                    served.append(1)
                except psycopg.errors.LockNotAvailable:
                    failed.append(1)
                over.wait(0.005)

    with psycopg.connect(rig.dsn) as held:
        held.execute(holder.encode())
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            with pytest.raises(KeyturnError) as refused:
                rig.run("cut_over", cut_over=way, max_wait_s=2)
        finally:
            over.set()
            thread.join()
    assert refused.value.code == "lock-unavailable"
    assert failed == []
    assert len(served) > 20, "it ended early, or waited most of the time"
    rig.run("cut_over", cut_over=way)
    assert rig.run("swept", cut_over=way)["coverage"][0]["new"] == 30
