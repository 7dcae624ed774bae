# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole rotations on real services and a real database, as a person runs them."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from demo import cells
from demo.stack import APIS, HOSTS, SECRET, Stack
from psycopg import conninfo

from tests.support.catalog_file import change_secret, edit, load
from tests.support.controller import Controller, Ended, registry


def status_of(stack: Stack) -> list[str]:
    return [rotation["status"] for rotation in registry(stack.state_dir("db"))["rotations"].values()]


def evidence(stack: Stack, event: str) -> dict[str, Any]:
    (path,) = (stack.state_dir("db") / "evidence").glob(f"*.{event}/evidence.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def assert_turned(stack: Stack, ended: Ended, before: bytes | None) -> None:
    """The key is another one, on all hosts, and every row and lookup is right under it."""
    assert ended.code == 0, ended.output
    assert stack.key() != before
    assert len({stack.key(name) for name in stack.apis}) == 1
    assert stack.verify().ok, stack.verify()
    assert stack.verify_lookups().ok
    assert all(answer == 200 for answer in healths(stack)), ended.output


def assert_untouched(stack: Stack, before: bytes | None) -> None:
    """Everything is as it was."""
    assert {stack.key(name) for name in stack.apis} == {before}
    assert stack.verify(plaintext_ok=True).ok, stack.verify(plaintext_ok=True)
    assert stack.verify_lookups().ok
    assert all(answer == 200 for answer in healths(stack))


def assert_nothing_stays_open(output: str) -> None:
    """Runs that change nothing keep their keys in folders of their own, and remove them."""
    (run,) = set(re.findall(r'"run": "([0-9a-f]{8})"', output))
    assert list(Path("/tmp").glob(f"keyturn-check-{run}-*")) == []


def healths(stack: Stack) -> list[int]:
    import urllib.request

    found = []
    for url in stack.urls:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            found.append(answer.status)
    return found


def tables(stack: Stack) -> set[str]:
    with psycopg.connect(stack.database.owner_dsn) as connection:
        rows = connection.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname !~ '^(pg_|inf)'"
        )
        return {str(row[0]) for row in rows}


def everything(stack: Stack) -> dict[str, bytes]:
    """Every file of the hosts but logs and process ids, and every row."""
    found = {}
    for path in sorted((stack.folder / "hosts").rglob("*")):
        if path.is_file() and path.suffix not in (".log", ".pid") and "postgresql" not in path.parts:
            found[str(path)] = path.read_bytes() + oct(path.stat().st_mode).encode()
    with psycopg.connect(stack.database.owner_dsn) as connection:
        rows = connection.execute("SELECT id, private_jwk FROM jwks_keys ORDER BY id").fetchall()
    found["rows"] = repr(rows).encode() + repr(sorted(tables(stack))).encode()
    return found


def test_a_key_turns_and_goes_back(stack: Stack, controller: Controller) -> None:
    before = stack.key()
    client = stack.client(rate=40, workers=2)
    ended = controller.run(stack.inventory, "rotate", only=SECRET, reason="scheduled")
    outcome = client.stop()
    assert ended.code == 0, ended.output
    assert stack.key() != before
    assert stack.verify(outcome.model).ok
    assert outcome.summary["failed"] == 0
    record = evidence(stack, "rotated")
    assert record["why"] == "scheduled"
    assert [phase["name"] for phase in record["phases"]] == [
        "preflight", "backup", "stage", "migrate", "promote", "restart", "verify",
    ]  # fmt: skip
    (row,) = record["coverage"]
    assert row["total"] == row["new"] > 0
    assert (row["old"], row["plaintext"], row["unknown"]) == (0, 0, 0)

    # trap 40: what was written since the swap is carried over when going back
    client = stack.client(rate=40, workers=2, model=stack.folder / "client.json")
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    outcome = client.stop()
    assert back.code == 0, back.output
    assert stack.key() == before
    assert stack.verify(outcome.model, plaintext_ok=True).ok
    assert outcome.summary["failed"] == 0
    assert stack.verify_lookups().ok
    assert status_of(stack) == ["rolled_back"]
    assert evidence(stack, "rolled_back")["event"] == "rolled_back"


@pytest.mark.one_instance
def test_check_mode_changes_nothing_and_says_what_would_change(stack: Stack, controller: Controller) -> None:
    before = everything(stack)
    ended = controller.run(stack.inventory, "rotate", "--check", "--diff", "-v", only=SECRET)
    assert ended.code == 0, ended.output
    for words in ("jwks_keys.private_jwk", "120 rows", "plaintext", "expected", SECRET, "digest"):
        assert words in ended.output
    assert everything(stack) == before
    assert_nothing_stays_open(ended.output)


def test_a_plan_binds(stack: Stack, controller: Controller) -> None:
    planned = controller.run(stack.inventory, "plan", only=SECRET)
    assert planned.code == 0, planned.output
    digest = next(line.split()[1] for line in planned.output.splitlines() if line.strip().startswith("digest"))
    before = stack.key()
    variables = load(stack)
    variables["keyturn_services"]["api2"]["depends_on"] = ["api1"]
    edit(stack, variables)
    refused = controller.run(stack.inventory, "rotate", only=SECRET, plan=digest)
    assert refused.code != 0
    assert "keyturn_plan" in refused.output
    assert_untouched(stack, before)
    variables["keyturn_services"]["api2"].pop("depends_on")
    edit(stack, variables)
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET, plan=digest), before)


@pytest.mark.one_instance
@pytest.mark.parametrize("phase", ["stage", "migrate"])
def test_it_stops_after_a_phase_and_goes_on_from_another_controller(stack: Stack, tmp_path: Path, phase: str) -> None:
    before = stack.key()
    first = Controller(tmp_path / "first").run(stack.inventory, "rotate", only=SECRET, until=phase)
    assert first.code == 0, first.output
    assert status_of(stack) == ["open"]
    assert stack.key() == before
    assert_turned(stack, Controller(tmp_path / "second").run(stack.inventory, "rotate", only=SECRET), before)
    assert status_of(stack) == ["overlap"]


@pytest.mark.one_instance
def test_trap_36_a_second_run_does_nothing(stack: Stack, controller: Controller) -> None:
    before = stack.key()
    assert_turned(stack, controller.run(stack.inventory, "rotate"), before)
    turned = stack.key()
    again = controller.run(stack.inventory, "rotate")
    assert again.code == 0, again.output
    assert "Nothing is due" in again.output
    assert stack.key() == turned


def test_it_rolls_forward_to_a_third_key_and_retires(stack: Stack, controller: Controller) -> None:
    first = stack.key()
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), first)
    second = stack.key()
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), second)
    assert stack.key() not in (first, second)
    assert status_of(stack) == ["superseded", "overlap"]
    retired = controller.run(stack.inventory, "retire", only=SECRET)
    assert retired.code == 0, retired.output
    assert status_of(stack)[-1] == "retired"
    assert not [name for name in tables(stack) if name.startswith("keyturn.s_")]
    for host in APIS:
        left = [path for path in (stack.state_dir(host) / "secrets").rglob("*") if path.name in ("new", "old")]
        assert left == []
    assert controller.run(stack.inventory, "rollback", only=SECRET).code != 0


@pytest.mark.one_instance
def test_retire_refuses_to_run_early(stack: Stack, controller: Controller) -> None:
    change_secret(stack, overlap_min="12h")
    before = stack.key()
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)
    early = controller.run(stack.inventory, "retire", only=SECRET)
    assert early.code != 0
    assert "may be retired after" in early.output
    assert status_of(stack) == ["overlap"]
    assert controller.run(stack.inventory, "retire", only=SECRET, confirm=SECRET).code == 0


@pytest.mark.one_instance
def test_a_retire_that_was_killed_after_the_hosts_forgot_the_versions_ends_with_the_same_command(
    stack: Stack, controller: Controller
) -> None:
    reads = {"name": "reads it", "hosts": "api1", "type": "command", "command": ["grep", "-q", "."], "version": "new"}
    change_secret(stack, probes=[reads])
    before = stack.key()
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)
    first = controller.run(stack.inventory, "retire", only=SECRET)
    assert first.code == 0, first.output
    path = stack.state_dir("db") / "registry.json"  # as it was before that run wrote its end
    content = json.loads(path.read_text())
    ((rotation_id, rotation),) = content["rotations"].items()
    rotation["status"] = "retiring"
    content["secrets"][SECRET]["open"] = rotation_id
    path.write_text(json.dumps(content))
    again = controller.run(stack.inventory, "retire", only=SECRET)
    assert again.code == 0, again.output
    assert status_of(stack) == ["retired"]
    assert stack.verify().ok


@pytest.mark.one_instance
def test_first_adoption_and_back(make_stack: Callable[..., Stack], controller: Controller) -> None:
    stack = make_stack(encrypted=False)
    assert stack.key() is None
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), None)
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    assert back.code == 0, back.output
    assert stack.key() is None
    assert stack.verify().ok


@pytest.mark.one_instance
def test_a_persons_own_new_key(stack: Stack, controller: Controller, tmp_path: Path) -> None:
    own = secrets.token_bytes(32)
    path = tmp_path / "own.key"
    path.touch(0o600)
    path.write_text(base64.urlsafe_b64encode(own).decode() + "\n")
    change_secret(stack, value_from={"file": str(path)})
    before = stack.key()
    path.chmod(0o644)
    loose = controller.run(stack.inventory, "rotate", only=SECRET)
    assert loose.code != 0
    assert "chmod 600" in loose.output
    assert_untouched(stack, before)
    path.chmod(0o600)
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)
    assert stack.key() == own


def test_an_explicit_old_key(stack: Stack, tmp_path: Path) -> None:
    """The dotenv files were overwritten; the key the rows are under comes from the controller's environment."""
    old = stack.key()
    assert old is not None
    controller = Controller(tmp_path / "controller", {"OLD_KEY": base64.urlsafe_b64encode(old).decode()})
    for name in APIS:
        text = stack.env_file(name).read_text().splitlines()
        wrong = base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")
        stack.env_file(name).write_text("\n".join([*text[:-1], f"{SECRET}={wrong}"]) + "\n")
    without = controller.run(stack.inventory, "rotate", only=SECRET)
    assert without.code != 0
    assert "not" in without.output
    assert stack.verify(key=old, plaintext_ok=True).ok
    change_secret(stack, old_from={"env": "OLD_KEY"})
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert_turned(stack, ended, cells.parse_key(wrong))


@pytest.mark.one_instance
def test_status_says_how_it_stands(stack: Stack, controller: Controller) -> None:
    assert re.search(rf"{SECRET} +encryption_key +due +never turned", controller.run(stack.inventory, "status").output)
    controller.run(stack.inventory, "rotate", only=SECRET)
    said = controller.run(stack.inventory, "status").output
    assert "overlap" in said
    assert "fresh" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "api1:db"], "api2"),
        (["--tags", "x"], "--tags"),
        (["--skip-tags", "x"], "--skip-tags"),
        (["--start-at-task", "Do what was asked"], "undefined|--start-at-task"),
    ],
)
def test_trap_24_a_partial_run_is_refused(
    stack: Stack, controller: Controller, arguments: list[str], words: str
) -> None:
    before = everything(stack)
    ended = controller.run(stack.inventory, "rotate", *arguments, only=SECRET)
    assert ended.code != 0, ended.output
    assert any(word in ended.output for word in words.split("|")), ended.output
    assert everything(stack) == before


@pytest.mark.one_instance
def test_what_must_not_turn_together_is_refused_before_anything_changes(stack: Stack, controller: Controller) -> None:
    """From promote on the connection of the rows would be refused; the swap of one key would pass for both."""
    before = stack.key()
    owner = conninfo.conninfo_to_dict(stack.database.owner_dsn)
    with stack.env_file("api1").open("a") as file:
        file.write(f"OWNER_PASSWORD={owner['password']}\nSECOND_KEY={Fernet.generate_key().decode()}\n")
    variables = load(stack)
    names = variables["keyturn_secrets"]
    stores = [{"hosts": "api1", "type": "env_file", "path": str(stack.env_file("api1"))}]
    names["SECOND_KEY"] = {**names[SECRET], "stores": stores}
    server = {"type": "postgres", "database": "app", "role": owner["user"], "host": "127.0.0.1"}
    names["OWNER_PASSWORD"] = {"kind": "env_secret", "strategy": "cutover", "stores": stores, "server": server}
    names["OWNER_PASSWORD"]["generate"] = {"type": "string", "length": 32}
    edit(stack, variables)
    shared = controller.run(stack.inventory, "rotate", only=f"{SECRET},SECOND_KEY")
    assert shared.code != 0
    assert f"jwks_keys.private_jwk has values under {SECRET} and values under SECOND_KEY" in shared.output
    assert status_of(stack) == []
    locked_out = controller.run(stack.inventory, "rotate", only=f"{SECRET},OWNER_PASSWORD")
    assert locked_out.code != 0
    assert "whose password OWNER_PASSWORD turns in the same rotation" in locked_out.output
    assert status_of(stack) == ["rolled_back"]
    assert_untouched(stack, before)


def test_every_changing_phase_holds_few_module_executions(stack: Stack, tmp_path: Path) -> None:
    """At most 25 executions per host, at most two between the swap and the restart."""
    log = tmp_path / "executions"
    plugins = Path(__file__).resolve().parents[1] / "support" / "callbacks"
    environment = {
        "ANSIBLE_CALLBACK_PLUGINS": str(plugins),
        "ANSIBLE_CALLBACKS_ENABLED": "count_executions",
        "KEYTURN_EXECUTIONS": str(log),
        "ANSIBLE_DEBUG": "0",
    }
    before = stack.key()
    ended = Controller(tmp_path / "c", environment).run(stack.inventory, "rotate", only=SECRET)
    assert_turned(stack, ended, before)
    rows = sorted((json.loads(line) for line in log.read_text().splitlines()), key=lambda row: row["started"])
    counts = {host: sum(row["host"] == host for row in rows) for host in HOSTS}
    assert max(counts.values()) <= 25, counts
    names = [row["task"] for row in rows if row["host"] in (*APIS, "db")]
    swap = max(index for index, name in enumerate(names) if "Swap the rows" in name)
    start = next(index for index, name in enumerate(names) if index > swap and "Run the commands" in name)
    between = dict.fromkeys(APIS, 0)
    for row in [row for row in rows if row["host"] in (*APIS, "db")][swap + 1 : start]:
        if row["host"] in between:
            between[row["host"]] += 1
    assert max(between.values()) <= 2, names[swap : start + 1]
    assert os.environ.get("KEYTURN_EXECUTIONS") is None


def test_services_that_nobody_stops_meanwhile(stack: Stack, controller: Controller) -> None:
    """Without quiescing a reader may meet a row of the other key for a moment; at the end everything is right."""
    variables = load(stack)
    for service in variables["keyturn_services"].values():
        service["quiesce"] = "none"
    edit(stack, variables)
    before = stack.key()
    client = stack.client(rate=40, workers=2)
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert ended.code == 0, ended.output
    assert stack.key("api1") == stack.key("api2") != before
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    outcome = client.stop()
    assert back.code == 0, back.output
    assert stack.key() == before
    assert stack.verify(outcome.model, plaintext_ok=True).ok, stack.verify(outcome.model, plaintext_ok=True)
    assert stack.verify_lookups().ok


_OF_OURS = """
    SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname ~ 'keyturn'
    UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = to_regnamespace('keyturn')
    UNION ALL SELECT 'session ' || application_name FROM pg_stat_activity
    WHERE datname = current_database() AND application_name ~ 'keyturn'
    UNION ALL SELECT 'writer that waits' FROM pg_stat_activity
    WHERE datname = current_database() AND application_name ~ '^demo-service' AND wait_event = 'advisory'
    UNION ALL SELECT 'lock' FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def _of_ours(link: psycopg.Connection[tuple[Any, ...]]) -> set[str]:
    """What is in the database of ours now, and who waits for it; digits of names left out."""
    return {re.sub(r"_[0-9a-f]{16}", "_", row[0]) for row in link.execute(_OF_OURS).fetchall()}


@pytest.mark.one_instance
@pytest.mark.parametrize("cut_over", ["rows", "columns"])
def test_writes_wait_in_the_database_while_the_key_turns(stack: Stack, controller: Controller, cut_over: str) -> None:
    """What reads first may meet the other key for a moment; what writes waits, and nothing stays of the hold."""
    variables = load(stack)
    for service in variables["keyturn_services"].values():
        service["quiesce"] = "writes"
    variables["keyturn_databases"]["app"]["cut_over"] = cut_over
    edit(stack, variables)
    with psycopg.connect(stack.database.owner_dsn, autocommit=True) as link:
        for playbook, model in (("rotate", None), ("rollback", stack.folder / "client.json")):
            before, seen = stack.key(), set[str]()
            client = stack.client(rate=60, workers=4, model=model)
            process = controller.start(stack.inventory, playbook, only=SECRET)
            while process.poll() is None:
                seen |= _of_ours(link)
                time.sleep(0.02)
            output = process.communicate()[0]
            outcome = client.stop()
            assert process.returncode == 0, output
            assert stack.key() != before
            assert stack.verify(outcome.model, plaintext_ok=True).ok, stack.verify(outcome.model, plaintext_ok=True)
            assert outcome.summary["served_by_operation"]["update"] > 0
            assert {reason.split(": ")[1] for reason in outcome.summary["failures"]} <= {"500 decrypt"}, outcome.summary
            assert {"session keyturn hold", "writer that waits", "lock"} <= seen
            triggers = {"trigger keyturn_hold_", "trigger keyturn_hold__row", "function h_"}
            assert (triggers <= seen) is (cut_over == "rows")
            guard = {"trigger zzzz_keyturn_", "function g_"} if (playbook, cut_over) == ("rotate", "columns") else set()
            assert _of_ours(link) == guard
    assert status_of(stack) == ["rolled_back"]


def test_of_two_controllers_that_start_at_the_same_moment_one_turns(stack: Stack, tmp_path: Path) -> None:
    before = stack.key()
    runs = [Controller(tmp_path / name).start(stack.inventory, "rotate", only=SECRET) for name in ("first", "second")]
    outputs = [run.communicate(timeout=600)[0] for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes == [0, 2], outputs
    refused = outputs[0] if runs[0].returncode else outputs[1]
    assert re.search(r"and (may still be|is) running", refused), refused
    assert len(status_of(stack)) == 1
    assert_turned(stack, Ended(0, ""), before)
