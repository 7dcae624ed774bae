# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers side by side: every part is done, whatever becomes of a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import derivation
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import connection
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import find_column, find_table
from ansible_collections.keyturn.rotation.plugins.module_utils.processes import processors

from tests.support.reencryption import ENVELOPES, KEYS, Rig, seal

_ITEMS = list(range(40))
_ROWS, _SLOW = 12, "pbkdf2-aes256gcm-b64"


@pytest.fixture
def link(dsn: str) -> Iterator[Any]:
    with psycopg.connect(dsn, autocommit=True) as made:
        yield made


def _crew(link: Any, dsn: str, workers: int) -> Crew:
    return Crew(link, lambda: psycopg.connect(dsn, autocommit=True), workers)


def _double(link: Any, item: int) -> tuple[int, int, int]:
    (answer,) = link.execute("SELECT %s::int * 2", (item,)).fetchone()
    return (item, answer, os.getpid())


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_item_is_worked_on_once_by_as_many_processes(link: Any, dsn: str, workers: int) -> None:
    found = list(_crew(link, dsn, workers).each(_double, _ITEMS))
    assert sorted(entry[:2] for entry in found) == [(item, 2 * item) for item in _ITEMS]
    processes = {entry[2] for entry in found}
    assert (processes == {os.getpid()}) == (workers == 1)


def test_a_worker_that_is_killed_is_replaced(link: Any, dsn: str, tmp_path: Path) -> None:
    first = tmp_path / "first"

    def work(link: Any, item: int) -> tuple[int, int, int]:
        if item == 7 and not first.exists():
            first.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return _double(link, item)

    found = list(_crew(link, dsn, 2).each(work, _ITEMS))
    assert sorted(entry[0] for entry in found) == _ITEMS
    assert first.exists()


def test_workers_that_keep_dying_are_one_clear_error(link: Any, dsn: str) -> None:
    def work(_link: Any, item: int) -> tuple[int]:
        if item == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return (item,)

    with pytest.raises(KeyturnError) as raised:
        list(_crew(link, dsn, 2).each(work, _ITEMS))
    assert raised.value.code == "worker-lost"
    assert "run again" in str(raised.value)


def test_workers_that_die_and_get_on_are_replaced_as_often_as_it_takes(link: Any, dsn: str, tmp_path: Path) -> None:
    def work(link: Any, item: int) -> tuple[int, int, int]:
        mark = tmp_path / str(item)
        if item % 4 == 0 and not mark.exists():
            mark.touch()
            time.sleep(0.1)  # the other one finishes something meanwhile
            os.kill(os.getpid(), signal.SIGKILL)
        return _double(link, item)

    found = list(_crew(link, dsn, 2).each(work, _ITEMS))
    assert sorted(entry[0] for entry in found) == _ITEMS
    assert len(list(tmp_path.iterdir())) == len(_ITEMS) // 4


def test_what_a_worker_raises_arrives_and_the_others_stop(link: Any, dsn: str) -> None:
    def work(_link: Any, item: int) -> tuple[int]:
        if item == 7:
            raise KeyturnError("rows-unknown", "opens under neither key", where="creds.secret", hint="Look")
        return (item,)

    with pytest.raises(KeyturnError) as raised:
        list(_crew(link, dsn, 2).each(work, _ITEMS))
    assert (raised.value.code, raised.value.where) == ("rows-unknown", "creds.secret")


def test_the_text_of_an_unknown_error_stays_in_the_worker(link: Any, dsn: str) -> None:
    def work(_link: Any, item: int) -> tuple[int]:
        raise ValueError(f"a secret of item {item}")

    with pytest.raises(KeyturnError) as raised:
        list(_crew(link, dsn, 2).each(work, _ITEMS))
    assert "ValueError" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_each_worker_works_within_what_it_is_given(link: Any, dsn: str) -> None:
    @contextlib.contextmanager
    def within(link: Any) -> Iterator[None]:
        link.execute("SET application_name = 'inside'")
        yield

    def work(link: Any, item: int) -> tuple[int, str]:
        return (item, link.execute("SHOW application_name").fetchone()[0])

    found = list(_crew(link, dsn, 2).each(work, _ITEMS, within))
    assert {entry[1] for entry in found} == {"inside"}
    assert len(found) == len(_ITEMS)


def test_a_count_by_several_lets_somebody_alter_the_table(rig: Rig) -> None:
    """Whoever waits for the whole table makes the workers wait behind it: the count gives way and begins again."""
    rig.fill(3000)
    over = threading.Event()
    altered: list[int] = []

    def alter() -> None:
        with psycopg.connect(rig.dsn, autocommit=True) as link:
            link.execute("SET lock_timeout = '10s'")
            while not over.is_set():
                link.execute("ALTER TABLE creds ALTER COLUMN ver SET DEFAULT 0")
                altered.append(1)
                over.wait(1)

    thread = threading.Thread(target=alter)
    thread.start()
    try:
        for _round in range(5):
            found = rig.info(workers=3)
            assert found["coverage"][0]["old"] == 3000
    finally:
        over.set()
        thread.join()
    assert altered


@pytest.mark.parametrize(("asked", "kept"), [(0, 1), (3, 3)])
def test_a_number_of_workers_that_was_asked_for_is_kept(link: Any, dsn: str, asked: int, kept: int) -> None:
    crew = _crew(link, dsn, asked)
    crew.stay_alone()
    assert crew.workers == kept


@pytest.fixture
def derived(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[bytes, bytes]]:
    """How often each key of a cell of ``creds`` was derived, in this process."""
    found: Counter[tuple[bytes, bytes]] = Counter()
    real = derivation.derive

    def counted(how: Any, key: bytes, salt: bytes, size: int) -> bytes:
        found[key, salt] += 1
        return real(how, key, salt, size)

    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text, pad text DEFAULT repeat('x', 3000))")
    rig.sql.execute("ALTER TABLE creds ALTER pad SET STORAGE PLAIN")  # two rows a page, so that there are several parts
    rig.insert([(number, seal("old", b"x", _SLOW).decode()) for number in range(_ROWS)])
    rig.sql.execute("ANALYZE creds")
    rig.columns = [rig.column("creds", "secret", envelope=_SLOW)]
    monkeypatch.setattr(derivation, "derive", counted)
    return found


def test_slow_keys_of_cells_are_derived_once(rig: Rig, derived: Counter[tuple[bytes, bytes]]) -> None:
    rig.run("in_place", workers=0, batch_rows=1)
    assert set(derived.values()) == {1}
    assert len(derived) >= 2 * _ROWS  # in this process: each cell's key under the old key and under the new one


def test_one_cell_tells_which_key_to_derive_for_the_others(rig: Rig, derived: Counter[tuple[bytes, bytes]]) -> None:
    rig.run("in_place", workers=0)
    trials, asked = 2, 2  # the time of one is measured for each envelope; a cell is asked by the count and by the proof
    assert 2 * _ROWS <= len(derived) <= 2 * _ROWS + trials + asked
    assert rig.info()["coverage"][0]["new"] == _ROWS


def test_a_count_outlives_keys_that_take_longer_than_a_snapshot_may_be_idle(
    rig: Rig, derived: Counter[tuple[bytes, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = derivation.derive

    def slow(*arguments: Any) -> bytes:
        time.sleep(0.4)
        return quick(*arguments)

    monkeypatch.setattr(derivation, "derive", slow)
    monkeypatch.setattr(connection, "_IDLE_SECONDS", 1)
    assert rig.info()["coverage"][0]["old"] == _ROWS
    assert derived


@pytest.mark.parametrize("seconds", [0.0001, 0.03, 0.3, 3.0])
def test_a_window_holds_fewer_rows_the_slower_their_keys_are(
    rig: Rig, derived: Counter[tuple[bytes, bytes]], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection.connect(rig.dsn.encode(), "app", connection.Limits()) as link:
        column = find_column(link, find_table(link, "creds"), "secret")
    target = Target(column, ENVELOPES[_SLOW], KEYS["new"], KEYS["old"])
    monkeypatch.setattr(target, "seconds_to_seal", lambda: seconds)
    rows = int(target.rows_a_second())
    assert rows >= processors()
    assert rows * seconds / processors() <= max(1.0, seconds) + 0.01 or rows <= 1 / (3 * seconds)
    assert derived == {}
