# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client and the judge: they find nothing where nothing is wrong, and everything that was planted."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from demo import cells
from demo.client import Client, ClientOptions, Outcome
from demo.stack import Stack

from tests.unit.demo.asking import ask

_WRONG_KEY = bytes(32)


def _run(stack: Stack, statement: Any, *values: object) -> None:
    with psycopg.connect(stack.database.owner_dsn) as connection:
        assert connection.execute(statement, values).rowcount == 1


def _cell(stack: Stack, row_id: str) -> str:
    with psycopg.connect(stack.database.owner_dsn) as connection:
        row = connection.execute("SELECT private_jwk FROM jwks_keys WHERE id = %s", [row_id]).fetchone()
    assert row is not None
    return str(row[0])


def _rows(stack: Stack) -> list[str]:
    """Encrypted rows of the seed (the first four are in clear)."""
    return [row_id for row_id, v in stack.seed.rows.items() if v >= 4]


# -- the judge ---------------------------------------------------------------------------------------------------------


def test_a_fresh_stack_is_right(common_stack: Stack) -> None:
    """Every row and lookup; rows in clear are right only when that is said."""
    report = common_stack.verify(plaintext_ok=True)
    assert (report.ok, report.rows, str(report)) == (True, 40, "40 rows: all right")
    assert set(common_stack.verify().problems.values()) == {"plaintext"}
    assert str(common_stack.verify()) == "40 rows: 4 plaintext"
    assert (common_stack.verify_lookups().ok, common_stack.verify_lookups().rows) == (True, 30)


def test_trap_05_a_planted_lost_update_is_found(stack: Stack) -> None:
    """An old cell written back over a newer one."""
    row_id = _rows(stack)[0]
    old = _cell(stack, row_id)
    assert ask(stack.urls[0], "PUT", f"/keys/{row_id}", {"v": 77})[0] == 200
    model: dict[str, list[int | None]] = {known: [v] for known, v in stack.seed.rows.items()}
    model[row_id] = [77]
    assert stack.verify(model, plaintext_ok=True).ok
    _run(stack, "UPDATE jwks_keys SET private_jwk = %s WHERE id = %s", old, row_id)
    assert stack.verify(model, plaintext_ok=True).problems == {row_id: "lost-update"}


def test_planted_faults_are_found(stack: Stack) -> None:
    """A lost row, an extra one, one under another key, one in clear, cells that changed places: each by its name."""
    lost, foreign, clear, first, second, broken = _rows(stack)[:6]
    key = stack.key()
    assert key is not None
    _run(stack, "DELETE FROM jwks_keys WHERE id = %s", lost)
    write = "UPDATE jwks_keys SET private_jwk = %s WHERE id = %s"
    _run(stack, write, cells.seal_cell(cells.open_cell(_cell(stack, foreign), key), _WRONG_KEY), foreign)
    _run(stack, write, cells.open_cell(_cell(stack, clear), key).decode(), clear)
    one, two = _cell(stack, first), _cell(stack, second)
    _run(stack, write, two, first)
    _run(stack, write, one, second)
    _run(stack, write, "", broken)
    extra = ask(stack.urls[0], "POST", "/keys", {"account_id": stack.seed.accounts[0]})[1]["id"]
    in_clear = {row_id: "plaintext" for row_id, v in stack.seed.rows.items() if v < 4}
    assert stack.verify().problems == {
        **in_clear,
        lost: "lost",
        foreign: "unreadable",
        clear: "plaintext",
        first: "wrong-kid",
        second: "wrong-kid",
        broken: "unreadable",
        extra: "extra",
    }


def test_the_wrong_key_reads_nothing(common_stack: Stack) -> None:
    """All encrypted rows are unreadable under another key."""
    problems = common_stack.verify(key=_WRONG_KEY, plaintext_ok=True).problems
    assert problems == dict.fromkeys(_rows(common_stack), "unreadable")


def test_an_uncertain_change_may_have_happened_or_not(common_stack: Stack) -> None:
    """Either value is right, a third is not; a row may be there or not where that is uncertain."""
    model: dict[str, list[int | None]] = {known: [v] for known, v in common_stack.seed.rows.items()}
    row_id = _rows(common_stack)[0]
    there = common_stack.seed.rows[row_id]
    model[str(uuid.uuid4())] = [None, 1]
    for allowed, right in (([there, 99], True), ([99, there], True), ([98, 99], False), ([None], False)):
        model[row_id] = list(allowed)
        assert common_stack.verify(model, plaintext_ok=True).ok is right
    assert common_stack.verify(model, plaintext_ok=True).problems == {row_id: "extra"}


def test_planted_wrong_lookups_are_found(stack: Stack) -> None:
    """A stale one, and a token that is gone."""
    stale, gone = stack.seed.tokens[0], stack.seed.tokens[1]
    lookup = cells.token_lookup(stale.token, _WRONG_KEY)
    _run(stack, "UPDATE api_tokens SET token_lookup = %s WHERE token_id = %s", lookup, stale.token_id)
    _run(stack, "DELETE FROM api_tokens WHERE token_id = %s", gone.token_id)
    assert stack.verify_lookups().problems == {stale.token_id: "stale-lookup", gone.token_id: "lost"}


# -- the client --------------------------------------------------------------------------------------------------------


def _until_served(client: Client, stack: Stack, count: int) -> None:
    """Return when the services have answered this many requests since."""
    assert client.first.wait(20)
    log = stack.log_file("api2")
    begun = log.read_text(encoding="utf-8").count("request ")
    for _attempt in range(2000):
        if log.read_text(encoding="utf-8").count("request ") >= begun + count:
            return
        _pause()
    raise AssertionError("the client does not go on")


def _pause() -> None:
    time.sleep(0.01)


def _client(stack: Stack, *urls: str, retry_seconds: float = 20.0, failover: bool = True) -> Client:
    options = ClientOptions(urls or stack.urls, 300.0, 3, failover, retry_seconds)
    client = Client(options, stack.seed)
    client.start()
    return client


def test_a_quiet_system_serves_everything(stack: Stack) -> None:
    """Every kind of request; the model is what lies in the table."""
    client = _client(stack)
    _until_served(client, stack, 150)
    outcome = client.stop()
    assert set(outcome.summary["served_by_operation"]) == {"sign", "read", "update", "insert", "delete"}
    assert outcome.summary["served"] == sum(outcome.summary["served_by_operation"].values())
    assert (outcome.summary["failed"], outcome.summary["failures"], outcome.summary["uncertain"]) == (0, {}, 0)
    report = stack.verify(outcome.model, plaintext_ok=True)
    assert report.ok, str(report)
    assert stack.verify_lookups().ok
    assert not stack.verify(plaintext_ok=True).ok, "the client changed nothing"


def test_restarts_one_by_one_and_a_crash_of_the_database_lose_nothing(stack: Stack) -> None:
    """With a load balancer nothing fails while one instance or the database is away."""
    client = stack.client(rate=200, workers=3)
    for name in ("api1", "api2"):
        stack.restart_services(name)
    stack.crash_database()
    stack.restart_database()
    stack.restart_services("api1")
    outcome = client.stop()
    assert (outcome.summary["failed"], outcome.summary["failures"]) == (0, {})
    assert outcome.summary["retried"] > 0
    report = stack.verify(outcome.model, plaintext_ok=True)
    assert report.ok, str(report)


def test_a_client_goes_on_where_another_left_off(stack: Stack, tmp_path: Path) -> None:
    """Its model takes the place of the seed."""
    client = stack.client(rate=200)
    outcome = client.stop()
    outcome.save(tmp_path / "first.json")
    assert Outcome.load(tmp_path / "first.json") == outcome
    second = stack.client(rate=200, model=tmp_path / "first.json").stop()
    assert second.summary["failed"] == 0
    assert stack.verify(second.model, plaintext_ok=True).ok
    assert set(outcome.model) <= set(second.model)


def test_trap_38_a_service_that_is_away_is_a_failure(stack: Stack) -> None:
    """Requests that nobody takes in time count as failed, and the gap is told."""
    client = _client(stack, retry_seconds=0.0)
    _until_served(client, stack, 10)
    stack.stop_services()
    _until_failed(client)
    outcome = client.stop()
    assert {why.split(": ")[1] for why in outcome.summary["failures"]} == {"503 nobody answers"}
    assert outcome.summary["longest_gap_ms"] > 0
    assert stack.verify(outcome.model, plaintext_ok=True).ok


def _until_failed(client: Client) -> None:
    for _attempt in range(2000):
        if client.summary()["failed"]:
            return
        _pause()
    raise AssertionError("nothing failed")


def test_a_lost_update_is_a_wrong_answer_to_the_client(stack: Stack) -> None:
    """The client sees it too, while it works."""
    client = _client(stack)
    with psycopg.connect(stack.database.owner_dsn, autocommit=True) as connection:
        old = connection.execute("SELECT id, private_jwk FROM jwks_keys").fetchall()
        _until_served(client, stack, 150)
        for row_id, cell in old:
            connection.execute("UPDATE jwks_keys SET private_jwk = %s WHERE id = %s", [cell, row_id])
    _until_failed(client)
    outcome = client.stop()
    assert "read: wrong answer" in outcome.summary["failures"]
    assert "lost-update" in stack.verify(outcome.model, plaintext_ok=True).problems.values()


def test_rows_under_another_key_are_failures(stack: Stack) -> None:
    """500 decrypt is never retried away."""
    key = stack.key()
    assert key is not None
    with psycopg.connect(stack.database.owner_dsn) as connection:
        for row_id in _rows(stack):
            cell = cells.seal_cell(cells.open_cell(_cell(stack, row_id), key), _WRONG_KEY)
            connection.execute("UPDATE jwks_keys SET private_jwk = %s WHERE id = %s", [cell, row_id])
    client = _client(stack)
    _until_failed(client)
    outcome = client.stop()
    assert {why.split(": ")[1] for why in outcome.summary["failures"]} == {"500 decrypt"}


_CUT_IN_COMMIT = """
CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER cut AFTER INSERT OR UPDATE OR DELETE ON jwks_keys DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION cut();
"""


def test_a_change_whose_answer_was_lost_is_uncertain(stack: Stack) -> None:
    """It is not asked again and not a failure; both values are right."""
    with psycopg.connect(stack.database.owner_dsn) as connection:
        connection.execute(_CUT_IN_COMMIT)
    client = _client(stack)
    _until_served(client, stack, 60)
    outcome = client.stop()
    uncertain = [allowed for allowed in outcome.model.values() if len(allowed) == 2]
    assert len(uncertain) == outcome.summary["uncertain"] > 0
    assert outcome.summary["failed"] == 0
    report = stack.verify(outcome.model, plaintext_ok=True)
    assert report.ok, str(report)


def test_a_client_that_cannot_begin_says_so(common_stack: Stack) -> None:
    """A missing model is an error, not a client that does nothing."""
    with pytest.raises(RuntimeError, match="the client ended with 1"):
        common_stack.client(model=Path("/nonexistent/model.json"))
