# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``quiesce: writes``: the service's writes wait in the database from the swap to the sweep, and no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import hold as hold_module
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Limits, Link, connect
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.hold import Hold, is_held, release
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace

from tests.support.reencryption import Rig, opens, seal

_WAYS = ("rows", "columns")
_END_HOLD = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keyturn hold'"


@pytest.fixture
def other(dsn: str) -> Iterator[Link]:
    """A session of the service, which does not wait for long."""
    with psycopg.connect(dsn, autocommit=True, application_name="service") as link:
        link.execute("SET lock_timeout = '100ms'")
        yield link


@pytest.fixture(params=_WAYS)
def held(request: pytest.FixtureRequest, rig: Rig) -> Rig:
    """A table whose writes are to be held back; each way to cut over."""
    rig.fill(3)
    rig.defaults.update(quiesce="writes", cut_over=request.param)
    return rig


def _cell(key: str, text: str) -> str:
    return seal(key, text.encode()).decode()


def _waits(link: Link, query: str, *values: Any) -> bool:
    try:
        link.execute(query.encode(), values)
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def _is_held(link: Link, key: str) -> bool:
    return _waits(link, "UPDATE creds SET secret = %s WHERE id = 1", _cell(key, "1:tried"))


def _within(seconds: float, what: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


# -- from the swap to the sweep --------------------------------------------------------------------------------------


def test_writes_are_held_back_from_the_swap_to_the_sweep(held: Rig, other: Link) -> None:
    rig = held
    rig.run("prepared")
    assert not _is_held(other, "old")
    rig.run("cut_over")
    assert _is_held(other, "old")
    assert opens("new", other.execute("SELECT secret FROM creds WHERE id = 1").fetchall()[0][0]) == b"1:tried"
    assert not rig.run("cut_over")["changed"]
    assert _is_held(other, "old")
    assert rig.run("swept")["coverage"][0]["new"] == 3
    assert not _is_held(other, "new")
    rig.run("rolled_back")
    assert _is_held(other, "new")
    rig.run("swept")
    assert not _is_held(other, "old")
    assert rig.run("cleaned")["coverage"][0]["old"] == 3
    assert (rig.shadows(), rig.left_behind()) == ([], [])


def test_writes_go_on_when_the_session_that_holds_them_back_is_gone(held: Rig, other: Link) -> None:
    other.execute("SET lock_timeout = '5s'")
    held.run("prepared")
    held.run("cut_over")
    assert len(held.sql.execute(_END_HOLD).fetchall()) == 1
    assert not _is_held(other, "old")
    assert held.run("swept")["coverage"][0]["new"] == 3


def test_a_hold_that_was_lost_is_taken_again_and_what_was_written_is_swept(held: Rig, other: Link) -> None:
    held.run("prepared")
    held.run("cut_over")
    held.sql.execute(_END_HOLD)
    assert _within(5, lambda: not _is_held(other, "old"))
    assert opens("old", held.cells()[1])
    held.run("cut_over", epoch=2)
    assert _is_held(other, "old")
    assert opens("new", held.cells()[1]) == b"1:tried"


def test_going_back_in_one_step_holds_nothing(held: Rig, other: Link) -> None:
    for state in ("prepared", "cut_over"):
        held.run(state)
    held.run("rolled_back", step="all")
    assert not _is_held(other, "old")
    assert (held.shadows(), held.left_behind()) == ([], [])


# -- the trigger, by rows --------------------------------------------------------------------------------------------


@pytest.fixture
def rows(rig: Rig) -> Rig:
    """By rows, prepared."""
    rig.fill(3)
    rig.defaults.update(quiesce="writes", cut_over="rows")
    rig.run("prepared")
    return rig


def test_the_triggers_are_there_from_the_swap_to_the_sweep_only(rows: Rig) -> None:
    found = [rows.left_behind()]
    for state in ("cut_over", "swept", "rolled_back", "swept", "cleaned"):
        rows.run(state)
        found.append(rows.left_behind())
    assert [len(names) for names in found] == [0, 3, 0, 3, 0, 0]


def test_no_trigger_where_writes_are_not_to_be_held_back(rows: Rig, other: Link) -> None:
    rows.run("cut_over", quiesce="none")
    assert rows.left_behind() == []
    assert not _is_held(other, "old")


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO creds (id, secret) VALUES (9, 'x')",
        "DELETE FROM creds WHERE id = 1",
        "INSERT INTO creds (id, secret) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET secret = 'x'",
        "SET session_replication_role = replica; UPDATE creds SET ver = 1",
    ],
    ids=["insert", "delete", "upsert", "replication"],
)
def test_every_write_waits(rows: Rig, other: Link, query: str) -> None:
    rows.run("cut_over")
    assert _waits(other, query)
    assert other.execute("SELECT count(*) FROM creds").fetchone() == (3,)


def test_a_write_that_waits_has_locked_no_row(rows: Rig, other: Link, dsn: str) -> None:
    rows.run("cut_over")
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'late' AND wait_event = 'advisory'"
    with psycopg.connect(dsn, application_name="late", autocommit=True) as late:
        thread = threading.Thread(target=late.execute, args=("UPDATE creds SET ver = 7",))
        thread.start()
        assert _within(10, lambda: bool(rows.sql.execute(waiting).fetchone()))
        assert len(other.execute("SELECT id FROM creds FOR UPDATE NOWAIT").fetchall()) == 3
        rows.run("swept")
        thread.join(10)
        assert not thread.is_alive()
    assert other.execute("SELECT DISTINCT ver FROM creds").fetchall() == [(7,)]


def test_not_one_write_lies_between_the_swap_and_the_hold(rig: Rig, dsn: str) -> None:
    rig.fill(40)
    rig.defaults.update(quiesce="writes", cut_over="rows", batch_rows=500)
    rig.sql.execute("""
        CREATE TABLE log (at timestamptz, who text);
        CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          INSERT INTO log VALUES (clock_timestamp(), current_setting('application_name')); RETURN NULL; END $$;
        CREATE TRIGGER log AFTER UPDATE ON creds FOR EACH STATEMENT EXECUTE FUNCTION log()""")
    rig.run("prepared")
    stopped = threading.Event()

    def write(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True, application_name="service") as link:
            link.execute("SET lock_timeout = '300ms'")
            while not stopped.is_set():
                _waits(link, "UPDATE creds SET secret = %s WHERE id = %s", _cell("old", f"{number}:0"), number)

    threads = [threading.Thread(target=write, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    try:
        assert _within(10, lambda: bool(rig.sql.execute("SELECT 1 FROM log").fetchone()))
        rig.run("cut_over")
        late = "SELECT count(*) FROM log WHERE who = 'service' AND at > (SELECT min(at) FROM log WHERE who = 'keyturn')"
        assert rig.sql.execute(late).fetchone() == (0,)
        assert rig.plaintexts("new") == {number: f"{number}:0" for number in range(1, 41)}
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    rig.run("swept")
    assert rig.plaintexts("new") == {number: f"{number}:0" for number in range(1, 41)}


def test_writes_to_a_partition_by_its_own_name_wait_too(rig: Rig, other: Link) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL) PARTITION BY RANGE (id)")
    rig.sql.execute("CREATE TABLE low PARTITION OF creds FOR VALUES FROM (0) TO (10)")
    rig.insert([(1, _cell("old", "1:0"))])
    rig.defaults.update(quiesce="writes", cut_over="rows")
    for state in ("prepared", "cut_over"):
        rig.run(state)
    assert _waits(other, "DELETE FROM creds")
    assert _waits(other, "DELETE FROM low")
    for state in ("swept", "cleaned"):
        rig.run(state)
    assert rig.left_behind() == []
    assert not _waits(other, "DELETE FROM low")


def test_a_table_with_deferred_triggers_can_be_swapped(rows: Rig) -> None:
    rows.sql.execute("""
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON creds DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION nothing()""")
    rows.run("cut_over")
    assert len(rows.left_behind()) == 3
    assert rows.run("swept")["coverage"][0]["new"] == 3


def test_somebody_who_reads_for_long_does_not_stop_the_sweep_and_the_clean_up_removes_the_triggers(
    rows: Rig, dsn: str, other: Link
) -> None:
    rows.run("cut_over")
    with psycopg.connect(dsn) as reader:
        reader.execute("SELECT count(*) FROM creds")
        rows.run("swept")
        assert not _is_held(other, "new")
        assert len(rows.left_behind()) == 3
        with pytest.raises(KeyturnError) as refused:
            rows.run("cleaned", max_wait_s=0)
        assert refused.value.code == "lock-unavailable"
    rows.run("cleaned")
    assert (rows.shadows(), rows.left_behind()) == ([], [])


def test_going_back_while_the_triggers_are_still_there(rows: Rig, dsn: str, other: Link) -> None:
    rows.run("cut_over")
    with psycopg.connect(dsn) as reader:
        reader.execute("SELECT count(*) FROM creds")
        rows.run("swept")
        rows.run("rolled_back")
        assert _is_held(other, "new")
    rows.run("swept")
    assert rows.run("cleaned")["coverage"][0]["old"] == 3
    assert rows.left_behind() == []


def test_triggers_that_somebody_has_disabled_let_writes_pass_and_they_are_swept(rows: Rig, other: Link) -> None:
    rows.run("cut_over")
    rows.sql.execute("ALTER TABLE creds DISABLE TRIGGER ALL")
    assert not _is_held(other, "old")
    rows.sql.execute("ALTER TABLE creds ENABLE TRIGGER ALL")
    assert rows.run("swept")["coverage"][0]["new"] == 3
    assert rows.left_behind() == []


def test_a_role_that_cannot_add_the_triggers_is_refused_before_anything_is_written(rig: Rig) -> None:
    rig.fill(3)
    rig.defaults.update(quiesce="writes", cut_over="auto")
    rig.sql.execute("DROP ROLE IF EXISTS no_owner")
    rig.sql.execute("CREATE ROLE no_owner LOGIN")
    try:
        rig.sql.execute("GRANT SELECT, UPDATE, TRIGGER ON creds TO no_owner")
        rig.sql.execute("GRANT CREATE, TEMPORARY ON DATABASE app TO no_owner")
        rig.dsn = rig.dsn.replace("user=postgres", "user=no_owner")
        for call in (rig.info, lambda: rig.run("prepared", check=True), lambda: rig.run("prepared")):
            with pytest.raises(KeyturnError) as refused:
                call()
            assert (refused.value.code, refused.value.where) == ("privilege-missing", "public.creds")
        assert rig.shadows() == []
        assert rig.info(quiesce="none")["choice"]["cut_over"] == "rows"
    finally:
        rig.sql.execute("DROP OWNED BY no_owner")
        rig.sql.execute("DROP ROLE no_owner")


# -- the process that holds ------------------------------------------------------------------------------------------


def _opener(dsn: str) -> Callable[[], Link]:
    return lambda: connect(dsn.encode(), "database app", Limits(lock_ms=50))


def test_a_call_that_ends_before_it_says_so_holds_nothing(dsn: str, other: Link) -> None:
    pace = Pace("test", max_wait_s=5)
    with Hold(_opener(dsn), [5, 6], pace, 60) as hold:
        hold.take()
        assert is_held(other, [5, 6])
    assert _within(5, lambda: not is_held(other, [5]))


def test_a_call_that_is_frozen_before_it_says_so_holds_nothing_for_long(
    dsn: str, other: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold_module, "_UNDECIDED", 0.3)
    with Hold(_opener(dsn), [5], Pace("test", max_wait_s=5), 60) as hold:
        hold.take()
        assert is_held(other, [5])
        assert _within(5, lambda: not is_held(other, [5]))


def test_what_is_kept_is_held_until_it_is_released_or_the_time_is_over(dsn: str, other: Link) -> None:
    pace = Pace("test", max_wait_s=5)
    for seconds, is_ended in ((60, True), (0.3, False)):
        with Hold(_opener(dsn), [5], pace, seconds) as hold:
            hold.take()
            hold.keep()
        assert is_held(other, [5])
        if is_ended:
            release(other, [5], pace)
        assert _within(5, lambda: not is_held(other, [5]))


def test_who_has_one_lock_and_waits_for_another_is_let_through(dsn: str, other: Link) -> None:
    other.execute("BEGIN")
    other.execute("SELECT pg_advisory_xact_lock_shared(6)")
    with Hold(_opener(dsn), [5, 6], Pace("test", max_wait_s=20), 60) as hold:
        hold.start()
        thread = threading.Thread(target=hold.take)
        thread.start()
        tried = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 6 AND NOT granted"
        with psycopg.connect(dsn, autocommit=True) as watcher:
            assert _within(10, lambda: bool(watcher.execute(tried).fetchone()))
        other.execute("SET lock_timeout = '5s'")
        other.execute("SELECT pg_advisory_xact_lock_shared(5)")
        other.execute("COMMIT")
        thread.join(20)
        assert is_held(other, [5, 6])


def test_locks_that_cannot_be_had_are_one_clear_error(dsn: str, other: Link) -> None:
    other.execute("SELECT pg_advisory_lock_shared(5)")
    with Hold(_opener(dsn), [5], Pace("test", max_wait_s=0), 60) as hold, pytest.raises(KeyturnError) as refused:
        hold.take()
    assert refused.value.code == "writes-not-held"
    assert refused.value.hint
