# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One table re-encrypted by several hosts: coverage adds up, and whoever dies, freezes or never comes is made up for.

A host is a process of its own here, with a state folder of its own and workers that it forks.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import job, shared_parts
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import control_path
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

from tests.support.reencryption import Rig
from tests.unit.postgres.test_unauthenticated import BOTH_OPEN, CBC_KEYS

_FORK = multiprocessing.get_context("fork")
_ROWS = 4000
_STATES = {"in_place": "rows", "prepared": "rows", "columns": "columns"}


class _Host:
    """A call of ``reencrypt`` on a host, in a process group that can be killed."""

    def __init__(self, folder: Path, name: str, params: dict[str, Any]) -> None:
        self.name = name
        self.state_dir = folder / name
        self.progress = self.state_dir / "progress-KEY-app.json"
        self.state_dir.mkdir(exist_ok=True)
        share = {"lead": name == "lead", "host": name, "hosts": 3}
        params = {**params, "state_dir": str(self.state_dir), "progress_path": str(self.progress), "share": share}
        self._ours, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=self._call, args=(params, theirs))
        self._process.start()
        theirs.close()

    @staticmethod
    def _call(params: dict[str, Any], pipe: Any) -> None:
        os.setsid()
        try:
            pipe.send(job.run(params, False))
        except KeyturnError as error:
            pipe.send({"failed": error.code})

    def signal(self, number: int) -> None:
        """To all processes of this host."""
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self) -> dict[str, Any]:
        """The result, or the code it failed with; empty where it was killed."""
        result: dict[str, Any] = {}
        with contextlib.suppress(EOFError):
            assert self._ours.poll(120), f"{self.name} does not end"
            result = self._ours.recv()
        self._process.join(30)
        json.dumps(result)
        return result


class _Group:
    """Hosts that work on one table."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self._folder = folder
        self.hosts: dict[str, _Host] = {}
        self.more: dict[str, Any] = {"workers": 2, "batch_rows": 25, "rate": 3000}

    def start(self, *names: str, state: str = "in_place", **more: Any) -> list[_Host]:
        """Begin calls, one for each host."""
        params = self.rig.params(state, **{**self.more, **more})
        for name in names:
            self.hosts[name] = _Host(self._folder, name, params)
        return [self.hosts[name] for name in names]

    def done(self) -> dict[str, int]:
        """How many parts of the present pass each host has done."""
        if self.rig.sql.execute("SELECT to_regclass('keyturn.parts') IS NULL").fetchone() == (True,):
            return {}
        query = "SELECT done_by, count(*) FROM keyturn.parts WHERE done_by IS NOT NULL GROUP BY 1"
        return dict(self.rig.sql.execute(query).fetchall())

    def until(self, reached: Callable[[dict[str, int]], bool]) -> None:
        """Wait for some parts to be done."""
        deadline = time.monotonic() + 60
        while not reached(self.done()):
            assert time.monotonic() < deadline, self.done()
            time.sleep(0.01)


@pytest.fixture
def group(rig: Rig, tmp_path: Path) -> Iterator[_Group]:
    rig.fill(_ROWS)
    rig.sql.execute("ANALYZE creds")
    made = _Group(rig, tmp_path)
    yield made
    for host in made.hosts.values():
        host.signal(signal.SIGCONT)
        host.signal(signal.SIGKILL)


def _assert_turned(rig: Rig, result: dict[str, Any]) -> None:
    """Every row once under the new key, and counted there."""
    assert "failed" not in result, result
    assert rig.plaintexts("new") == {row: f"{row}:0" for row in range(1, _ROWS + 1)}
    assert [entry["new"] for entry in result["coverage"]] == [_ROWS]
    assert rig.sql.execute("SELECT count(*) FROM keyturn.parts").fetchone() == (0,)


def _rows(result: dict[str, Any]) -> dict[str, int]:
    return {entry["host"]: entry["rows_written"] for entry in result["shared"]}


@pytest.mark.parametrize("way", sorted(_STATES))
def test_three_hosts_share_a_table_and_each_row_is_written_once(group: _Group, way: str) -> None:
    rig, state = group.rig, "in_place" if way == "in_place" else "prepared"
    # a batch that waits for a lock is visited again, which is no part's work
    hosts = group.start("one", "two", "lead", state=state, cut_over=_STATES[way], lock_timeout_ms=10_000)
    one, two, lead = (host.end() for host in hosts)
    rows = _rows(lead)
    assert sum(rows.values()) == lead["rows_written"] == _ROWS
    assert rows == {"one": one["rows_written"], "two": two["rows_written"], "lead": rows["lead"]}
    assert min(rows.values()) > 0
    assert one["coverage"] == []
    if state == "prepared":
        assert [entry["fact"] for entry in lead["facts"]] == ["next"]
        rig.run("cut_over", cut_over=_STATES[way])
        lead = rig.run("swept", cut_over=_STATES[way])
    _assert_turned(rig, lead)


def test_a_host_that_is_killed_is_made_up_for(group: _Group) -> None:
    one, two, lead = group.start("one", "two", "lead")
    group.until(lambda done: len(done) == 3)
    two.signal(signal.SIGKILL)
    result = lead.end()
    assert two.end() == {}
    assert "failed" not in one.end()
    assert sum(_rows(result).values()) <= result["rows_written"] <= _ROWS  # a batch may be in no part that was noted
    _assert_turned(group.rig, result)


def test_a_connection_that_is_cut_gives_its_part_back(group: _Group) -> None:
    one, lead = group.start("one", "lead", workers=1)
    group.until(lambda done: len(done) == 2)
    query = """
        SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a
        WHERE a.application_name = 'keyturn' AND a.pid NOT IN (SELECT pid FROM keyturn.fence)"""
    assert group.rig.sql.execute(query).fetchone() == (1,)
    assert one.end() == {"failed": "connection-lost"}
    _assert_turned(group.rig, lead.end())


def test_a_host_that_is_frozen_is_not_waited_for(group: _Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_parts, "_SILENT_SECONDS", 1.0)
    one, lead = group.start("one", "lead")
    group.until(lambda done: len(done) == 2)
    one.signal(signal.SIGSTOP)
    result = lead.end()
    _assert_turned(group.rig, result)
    before = group.rig.snapshot()
    one.signal(signal.SIGCONT)
    one.end()
    assert group.rig.snapshot() == before


def test_whoever_is_overtaken_stops_on_all_hosts(group: _Group) -> None:
    one, two, lead = group.start("one", "two", "lead", rate=900)
    group.until(lambda done: len(done) == 3)
    result = group.rig.run("in_place", epoch=2, workers=2, batch_rows=500)
    assert [host.end() for host in (one, two, lead)] == [{"failed": "fenced"}] * 3
    assert result["rows_written"] > 0
    assert group.rig.plaintexts("new") == {row: f"{row}:0" for row in range(1, _ROWS + 1)}
    group.rig.run("cleaned", epoch=2)
    assert group.rig.sql.execute("SELECT count(*) FROM keyturn.parts").fetchone() == (0,)


def test_a_host_of_a_run_that_was_overtaken_does_not_begin(group: _Group) -> None:
    group.rig.run("in_place", epoch=2, batch_rows=500)
    (late,) = group.start("late")
    assert late.end() == {"failed": "fenced"}


@pytest.mark.parametrize("state", ["in_place", "prepared"])
def test_the_host_that_leads_needs_no_other(group: _Group, state: str) -> None:
    (lead,) = group.start("lead", state=state, rate=0)
    result = lead.end()
    assert result["shared"] == [{"host": "lead", "parts": result["shared"][0]["parts"], "rows_written": _ROWS}]
    if state == "in_place":
        _assert_turned(group.rig, result)
    (late,) = group.start("late", state=state)
    told = late.end()
    assert (told["rows_written"], told["changed"], told["shared"]) == (0, False, [])


def test_a_table_of_one_part_is_not_shared(rig: Rig) -> None:
    rig.fill(20)
    result = rig.run("in_place", share={"lead": True, "host": "lead", "hosts": 2}, batch_rows=1000)
    assert (result["rows_written"], result["shared"]) == (20, [])


def test_a_host_that_helps_nobody_ends_with_the_run(group: _Group, tmp_path: Path) -> None:
    state_dir = tmp_path / "one"
    session = Session(str(state_dir), str(state_dir / "host"), "r1", 1)
    session.offer()
    (one,) = group.start("one")
    deadline = time.monotonic() + 60
    while not one.progress.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    session.close()
    assert one.end()["rows_written"] == 0


def test_each_host_can_be_paused_and_stopped(group: _Group) -> None:
    one, lead = group.start("one", "lead")
    group.until(lambda done: len(done) == 2)
    orders = [Path(control_path(str(host.progress))) for host in (one, lead)]
    for path in orders:
        path.write_text(json.dumps({"do": "pause"}))
    time.sleep(1.5)  # looked at twice a second
    before = group.done()
    time.sleep(1.0)
    assert group.done() == before
    said = [json.loads(host.progress.read_text()) for host in (one, lead)]
    assert [entry["paused"] for entry in said] == [True, True]
    assert said[0]["done"] < said[1]["done"] <= said[1]["total"] == _ROWS  # those of all hosts add up
    orders[0].write_text(json.dumps({"do": "stop"}))
    assert one.end() == {"failed": "stopped"}
    orders[1].unlink()
    _assert_turned(group.rig, lead.end())


def test_cells_that_open_under_both_keys_are_the_same_to_all_hosts(group: _Group) -> None:
    rig = group.rig
    rig.columns = [rig.column("creds", "secret", envelope="calcom")]
    rig.sql.execute("UPDATE creds SET secret = %s", (BOTH_OPEN.decode(),))
    keys = {version: {"value": key.decode()} for version, key in CBC_KEYS.items()}
    one, lead = group.start("one", "lead", keys=keys)
    told, result = one.end(), lead.end()
    assert told["rows_written"] > 0
    assert (result["rows_written"], result["coverage"][0]["new"]) == (_ROWS, _ROWS)


@pytest.mark.parametrize("state", ["cut_over", "swept", "rolled_back", "cleaned"])
def test_nobody_helps_with_the_rest(group: _Group, state: str) -> None:
    (one,) = group.start("one", state=state)
    assert one.end() == {"failed": "help-refused"}


@pytest.mark.parametrize("lead", [True, False])
def test_check_mode_deals_out_nothing(group: _Group, lead: bool) -> None:
    share = {"lead": lead, "host": "lead", "hosts": 2}
    before = group.rig.snapshot()
    result = group.rig.run("in_place", check=True, share=share)
    assert (result["changed"], result["shared"]) == (lead, [])
    assert group.rig.snapshot() == before


def test_columns_that_the_others_do_not_have_are_refused(group: _Group) -> None:
    (lead,) = group.start("lead")
    group.rig.sql.execute("CREATE TABLE more (LIKE creds INCLUDING ALL)")
    group.rig.columns = [group.rig.column("more", "secret", may_be_empty=True)]
    (one,) = group.start("one")
    assert one.end() == {"failed": "help-refused"}
    _assert_turned(group.rig, lead.end())
