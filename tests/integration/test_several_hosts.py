# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that several hosts of the inventory work on: they share its rows, and only the first is needed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from demo.stack import SECRET, Stack

from tests.integration.conftest import StackMaker
from tests.integration.test_rotation import assert_turned, assert_untouched, evidence, status_of, tables
from tests.support.catalog_file import edit, load
from tests.support.controller import Controller
from tests.support.losing import losing_hosts

_ROWS = 2000


@pytest.fixture
def shared(make_stack: StackMaker) -> Stack:
    """A stack with two more hosts, which work on the database too; its rows take some seconds."""
    stack = make_stack(rows=_ROWS)
    with psycopg.connect(stack.database.owner_dsn, autocommit=True) as link:
        link.execute("ANALYZE jwks_keys")
    inventory = yaml.safe_load(stack.inventory.read_text())
    more = {name: {"keyturn_state_dir": str(stack.folder / "hosts" / name / "state")} for name in ("work1", "work2")}
    inventory["all"]["children"]["workers"] = {"hosts": more}
    stack.inventory.write_text(yaml.safe_dump(inventory, sort_keys=False))
    variables = load(stack)
    variables["keyturn_databases"]["app"].update(hosts=["db", "workers"], workers=1, batch_rows=10, rate=400)
    edit(stack, variables)
    return stack


@pytest.fixture
def flaky(shared: Stack, tmp_path: Path) -> tuple[Controller, Path]:
    return losing_hosts(shared, tmp_path)


def _rows_by_host(stack: Stack) -> dict[str, int]:
    """Who re-encrypted how many rows, by the evidence."""
    (line,) = [text for text in evidence(stack, "rotated")["messages"] if text.startswith("app: ")]
    entries = [entry.split(" rows by ") for entry in line.removeprefix("app: ").split(", ")]
    return {host: int(rows.replace(" ", "")) for rows, host in entries}


def _kept(stack: Stack, host: str) -> list[str]:
    """Files of the run on a host."""
    folder = stack.folder / "hosts" / host / "state" / "host"
    return sorted(path.name for path in folder.iterdir() if path.name not in ("epochs.json", "mutex"))


def test_three_hosts_turn_a_key_and_one_is_enough_to_go_back(shared: Stack, controller: Controller) -> None:
    before = shared.key()
    planned = controller.run(shared.inventory, "plan", only=SECRET)
    assert "  helps       work1: app\n  helps       work2: app\n" in planned.output
    ended = controller.run(shared.inventory, "rotate", only=SECRET)
    assert_turned(shared, ended, before)
    rows = _rows_by_host(shared)
    assert sorted(rows) == ["db", "work1", "work2"]
    assert sum(rows.values()) >= _ROWS
    assert min(rows.values()) > 0
    assert evidence(shared, "rotated")["hosts"]["expected"] == ["api1", "api2", "db"]
    assert "does not help" not in ended.output
    assert [_kept(shared, host) for host in ("work1", "work2")] == [[], []]
    back = controller.run(shared.inventory, "rollback", only=SECRET)
    assert back.code == 0, back.output
    assert_untouched(shared, before)
    assert status_of(shared) == ["rolled_back"]


def _wait_for_parts(stack: Stack, process: Any, host: str) -> None:
    while "keyturn.parts" not in tables(stack):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    with psycopg.connect(stack.database.owner_dsn, autocommit=True) as link:
        query = "SELECT 1 FROM keyturn.parts WHERE done_by = %s"
        while link.execute(query, (host,)).fetchone() is None:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)


def test_hosts_that_help_may_be_missing_and_may_be_lost(shared: Stack, flaky: tuple[Controller, Path]) -> None:
    """One is never there, the other one goes in the middle of its work."""
    controller, lost = flaky
    before = shared.key()
    (lost / "work1").touch()
    process = controller.start(shared.inventory, "rotate", only=SECRET)
    _wait_for_parts(shared, process, "work2")
    (lost / "work2").touch()
    with psycopg.connect(shared.database.owner_dsn, autocommit=True) as link:
        link.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'keyturn' AND datname = current_database()"
            " AND pid NOT IN (SELECT pid FROM keyturn.fence)"
        )
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "work1 does not help: it cannot be reached" in output
    assert shared.key() != before
    assert shared.verify().ok
    rows = _rows_by_host(shared)
    assert sorted(rows) == ["db", "work2"]
    assert status_of(shared) == ["overlap"]


def test_all_hosts_are_paused_and_go_on(shared: Stack, controller: Controller) -> None:
    before = shared.key()
    variables = load(shared)
    variables["keyturn_databases"]["app"]["rate"] = 60  # slow enough for the order to find all of them at work
    edit(shared, variables)
    process = controller.start(shared.inventory, "rotate", only=SECRET)
    _wait_for_parts(shared, process, "work1")
    paused = controller.run(shared.inventory, "pace", only=SECRET, pace="pause")
    assert paused.code == 0, paused.output
    for host in ("db", "work1", "work2"):
        assert f"    app on {host}: public.jwks_keys.private_jwk" in paused.output
        order = shared.folder / "hosts" / host / "state/host" / f"pace-{SECRET}-app.json"
        assert json.loads(order.read_text()) == {"do": "pause"}
    resumed = controller.run(shared.inventory, "pace", only=SECRET, pace="resume")
    assert resumed.code == 0, resumed.output
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert shared.key() != before
    assert shared.verify().ok
