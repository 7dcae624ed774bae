# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure in any phase brings everything back, on every host; what cannot be brought back is named."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from demo import cells
from demo.schema import generate_jwks
from demo.stack import APIS, SECRET, Stack
from psycopg import sql

from tests.integration.test_rotation import assert_turned, assert_untouched, evidence, status_of, tables
from tests.support.campaign import wait_for_phase
from tests.support.catalog_file import change_secret, edit, load
from tests.support.controller import Controller
from tests.support.losing import losing_hosts


def service_down(stack: Stack) -> None:
    stack.stop_services("api2")


def backup_impossible(stack: Stack) -> None:
    (stack.state_dir("api2") / "backups").write_text("in the way")


def stage_impossible(stack: Stack) -> None:
    (stack.state_dir("api2") / "secrets").write_text("in the way")


def migrate_impossible(stack: Stack) -> None:
    with psycopg.connect(stack.server.admin_dsn.rsplit("/", 1)[0] + f"/{stack.database.name}") as connection:
        database, owner = sql.Identifier(stack.database.name), sql.Identifier(f"{stack.database.name}_owner")
        connection.execute(sql.SQL("REVOKE CREATE ON DATABASE {} FROM {}").format(database, owner))


def restart_impossible(stack: Stack) -> None:
    """The service refuses to start with any other dotenv file than the one it has now."""
    variables = load(stack)
    script = stack.folder / "picky.py"
    script.write_text(
        "import os, sys\n"
        f"if open({str(stack.env_file('api2'))!r}).read() != {stack.env_file('api2').read_text()!r}: sys.exit('no')\n"
        "os.execvp(sys.argv[1], sys.argv[1:])\n"
    )
    start = variables["keyturn_services"]["api2"]["start"]
    variables["keyturn_services"]["api2"]["start"] = [sys.executable, str(script), *start]
    edit(stack, variables)


def verify_impossible(stack: Stack) -> None:
    change_secret(stack, probes=[{"name": "never", "hosts": "api1", "type": "command", "command": ["false"]}])


FAULTS: dict[str, tuple[Callable[[Stack], None], str]] = {
    "preflight": (service_down, "api2 is unhealthy"),
    "backup": (backup_impossible, "not a plain directory"),
    "stage": (stage_impossible, "Not a directory"),
    "migrate": (migrate_impossible, "privilege"),
    "restart": (restart_impossible, "api2"),
    "verify": (verify_impossible, "never"),
}


@pytest.mark.parametrize("phase", sorted(FAULTS))
def test_trap_37_a_failure_in_a_phase_brings_everything_back(stack: Stack, controller: Controller, phase: str) -> None:
    before = stack.key()
    fault, words = FAULTS[phase]
    fault(stack)
    client = stack.client(rate=30, workers=2)
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    outcome = client.stop()
    assert ended.code == 2, ended.output
    assert words in ended.output
    if phase == "preflight":
        stack.start_services("api2")
    assert_untouched_but(stack, outcome.model, before)
    assert status_of(stack) == ["rolled_back"]
    record = evidence(stack, "rolled_back")
    assert words in " ".join(record["messages"])
    assert record["phases"][-2]["name"] == phase
    assert record["phases"][-2]["result"] == "failed"
    assert not [name for name in tables(stack) if name.startswith("keyturn.s_")]
    assert outcome.summary["failed"] == 0


def assert_untouched_but(stack: Stack, model: Any, before: bytes | None) -> None:
    """As before but for what the client wrote."""
    assert {stack.key(name) for name in stack.apis} == {before}
    assert stack.verify(model, plaintext_ok=True).ok, stack.verify(model, plaintext_ok=True)
    assert stack.verify_lookups().ok


@pytest.mark.one_instance
def test_a_table_that_stays_locked_brings_everything_back(stack: Stack, controller: Controller) -> None:
    """Promote fails after the services were stopped: they run again at the end."""
    before = stack.key()
    variables = load(stack)
    variables["keyturn_databases"]["app"]["max_wait"] = "2s"
    edit(stack, variables)
    with psycopg.connect(stack.database.owner_dsn) as somebody:
        somebody.execute("UPDATE jwks_keys SET expires_at = expires_at WHERE id = (SELECT id FROM jwks_keys LIMIT 1)")
        ended = controller.run(stack.inventory, "rotate", only=SECRET)
        somebody.rollback()
    assert ended.code == 2, ended.output
    assert "hold locks" in ended.output
    assert_untouched(stack, before)
    assert status_of(stack) == ["rolled_back"]


@pytest.mark.one_instance
def test_trap_2_a_row_under_neither_key_stops_it_before_any_write(stack: Stack, controller: Controller) -> None:
    before = stack.key()
    with psycopg.connect(stack.database.owner_dsn) as connection:
        row = connection.execute("SELECT id::text FROM jwks_keys LIMIT 1").fetchone()
        assert row is not None
        broken = "A" * 400
        connection.execute("UPDATE jwks_keys SET private_jwk = %s WHERE id = %s::uuid", [broken, row[0]])
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert ended.code == 2
    assert row[0] in ended.output
    assert broken not in ended.output
    assert stack.key() == before
    report = stack.verify(plaintext_ok=True)
    assert dict(report.problems) == {row[0]: "unreadable"}


def test_a_way_back_that_fails_is_stuck_and_says_what_to_do(stack: Stack, controller: Controller) -> None:
    before = stack.key()
    variables = load(stack)
    start = variables["keyturn_services"]["api2"]["start"]
    variables["keyturn_services"]["api2"]["start"] = ["false"]
    edit(stack, variables)
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert ended.code == 2, ended.output
    assert status_of(stack) == ["stuck"]
    assert "keyturn.rotation.rollback" in ended.output
    assert "The rotation failed and the way back did not finish. api2: " in ended.output
    assert f"hosts       {len(evidence(stack, 'stuck')['hosts']['done'])} of " in ended.output
    assert "api2" not in evidence(stack, "stuck")["hosts"]["done"]
    assert evidence(stack, "stuck")["messages"]
    asked = controller.run(stack.inventory, "rollback", only=SECRET)
    assert "The way back was asked for and did not finish. api2: " in asked.output
    again = controller.run(stack.inventory, "rotate", only=SECRET, rotation_id="another")
    assert again.code == 2
    assert "rollback playbook" in again.output
    variables["keyturn_services"]["api2"]["start"] = start
    edit(stack, variables)
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    assert back.code == 0, back.output
    assert_untouched(stack, before)
    assert status_of(stack) == ["rolled_back"]


#: A probe that fails, and with which a database is closed to everybody.
_CLOSES = """
import sys
import psycopg
with psycopg.connect({dsn!r}, autocommit=True) as link:
    link.execute("ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    link.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
sys.exit("closed")
"""


@dataclass
class _Second:
    """A second database under the same key."""

    stack: Stack
    name: str
    dsn: str
    envelope: Envelope

    def text(self) -> bytes | None:
        """What its one row says under the key of before."""
        with psycopg.connect(self.dsn) as link:
            (kept,) = link.execute("SELECT body FROM more").fetchall()
        return self.envelope.open(kept[0].encode())

    def reached_at(self, dsn: str, **secret: Any) -> None:
        """Say in the catalog how it is reached, and more of the secret."""
        variables = load(self.stack)
        variables["keyturn_databases"]["second"] = {"hosts": "db", "dsn": dsn}
        variables["keyturn_secrets"][SECRET].update(secret)
        edit(self.stack, variables)


@pytest.fixture
def second(stack: Stack) -> Iterator[_Second]:
    name = f"{stack.database.name}_b"
    database = stack.server.create_database(name)
    envelope = Envelope(load_spec("aes256gcm-b64"), base64.b64encode(stack.key() or b""))
    try:
        (cell,) = envelope.seal_many([b"text"])
        with psycopg.connect(database.owner_dsn) as link:
            link.execute("CREATE TABLE more (id int PRIMARY KEY, body text)")
            link.execute("INSERT INTO more VALUES (1, %s)", (cell.decode(),))
        made = _Second(stack, name, database.owner_dsn, envelope)
        more = {"database": "second", "table": "more", "column": "body", "envelope": "aes256gcm-b64"}
        made.reached_at(made.dsn, data=[*load(stack)["keyturn_secrets"][SECRET]["data"], more])
        yield made
    finally:
        stack.server.drop_database(name)


def test_a_way_back_that_one_of_two_databases_cannot_go_changes_neither(
    stack: Stack, second: _Second, controller: Controller
) -> None:
    before = stack.key()
    turned = controller.run(stack.inventory, "rotate", only=SECRET)
    assert turned.code == 0, turned.output
    second.reached_at(second.dsn.replace(second.name, f"{second.name}_gone"))
    refused = controller.run(stack.inventory, "rollback", only=SECRET)
    assert refused.code == 2, refused.output
    assert "database second" in refused.output
    assert "the way back was refused; nothing was changed" in refused.output
    assert_turned(stack, turned, before)
    assert status_of(stack) == ["overlap"]
    second.reached_at(second.dsn)
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    assert back.code == 0, back.output
    assert_untouched(stack, before)
    assert second.text() == b"text"


def test_a_column_that_left_the_catalog_keeps_a_rotation_from_going_back_without_it(
    stack: Stack, second: _Second, controller: Controller
) -> None:
    before, data = stack.key(), load(stack)["keyturn_secrets"][SECRET]["data"]
    turned = controller.run(stack.inventory, "rotate", only=SECRET)
    assert turned.code == 0, turned.output
    second.reached_at(second.dsn, data=data[:-1])
    for playbook in ("rollback", "retire"):
        refused = controller.run(stack.inventory, playbook, only=SECRET, confirm=SECRET)
        assert refused.code == 2, refused.output
        assert "columns in second: the catalog names 0, and rotation" in refused.output
        assert f"-e keyturn_confirm={SECRET}/second" in refused.output
        assert_turned(stack, turned, before)
        assert status_of(stack) == ["overlap"]
    planned = controller.run(stack.inventory, "plan", only=SECRET).output
    assert f"{SECRET}: 1 columns in second turned the last time, and 0 do now" in planned
    second.reached_at(second.dsn, data=data)
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    assert back.code == 0, back.output
    assert_untouched(stack, before)
    assert second.text() == b"text"


def test_a_run_that_goes_back_by_itself_takes_all_of_the_data_or_none(
    stack: Stack, second: _Second, controller: Controller, tmp_path: Path
) -> None:
    """One of two databases goes away after the restarts; the service reads the other one all the time."""
    before, script = stack.key(), tmp_path / "closes.py"
    script.write_text(_CLOSES.format(dsn=stack.server.admin_dsn, name=second.name))
    closes = {"name": "closes it", "hosts": "api1", "type": "command", "command": [sys.executable, str(script)]}
    second.reached_at(second.dsn, probes=[closes])
    failed = controller.run(stack.inventory, "rotate", only=SECRET)
    assert failed.code == 2, failed.output
    assert "services go on with the new version" in failed.output
    assert status_of(stack) == ["stuck"]
    assert stack.key() != before
    assert stack.verify().ok, "the service reads every row of the database that answers"
    again = controller.run(stack.inventory, "rollback", only=SECRET)
    assert again.code == 2, again.output
    assert stack.verify().ok
    with psycopg.connect(stack.server.admin_dsn, autocommit=True) as link:
        link.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(second.name)))
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    assert back.code == 0, back.output
    assert_untouched(stack, before)
    assert second.text() == b"text"


def test_a_database_restored_from_before_the_rotation_keeps_the_old_key(
    stack: Stack, second: _Second, controller: Controller
) -> None:
    """All of its rows are under one key, the one that a retire would forget."""
    before = stack.key()
    with psycopg.connect(second.dsn) as link:
        (kept,) = link.execute("SELECT body FROM more").fetchall()
    turned = controller.run(stack.inventory, "rotate", only=SECRET)
    assert turned.code == 0, turned.output
    with psycopg.connect(second.dsn) as link:
        link.execute("DROP SCHEMA keyturn CASCADE")
        link.execute("UPDATE more SET body = %s", kept)
    refused = controller.run(stack.inventory, "retire", only=SECRET, confirm=SECRET)
    assert refused.code == 2, refused.output
    assert "knows nothing of this rotation" in refused.output
    assert status_of(stack) == ["overlap"]
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    assert back.code == 0, back.output
    assert_untouched(stack, before)
    assert second.text() == b"text"


# -- hosts that disappear ------------------------------------------------------------------------------------------


@pytest.fixture
def flaky(stack: Stack, tmp_path: Path) -> tuple[Controller, Path]:
    return losing_hosts(stack, tmp_path)


def test_trap_24_a_host_that_cannot_be_reached_is_named_and_nothing_changes(
    stack: Stack, flaky: tuple[Controller, Path]
) -> None:
    controller, lost = flaky
    before = stack.key()
    (lost / "api2").touch()
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert ended.code != 0
    assert "api2" in ended.output
    (lost / "api2").unlink()
    assert_untouched(stack, before)
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)


def test_trap_43_a_host_lost_after_promote_is_finished_by_the_next_run(
    stack: Stack, flaky: tuple[Controller, Path]
) -> None:
    controller, lost = flaky
    before = stack.key()
    variables = load(stack)
    services = variables["keyturn_services"]
    services["api2"]["depends_on"] = ["api1"]
    start = services["api1"]["start"]
    services["api1"]["start"] = ["sh", "-c", f'touch {lost}/api2; exec "$@"', "sh", *start]
    edit(stack, variables)
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert ended.code != 0
    assert status_of(stack) == ["rollback_pending"]
    assert evidence(stack, "rollback_pending")["hosts"]["lost"] == ["api2"]
    assert "bring api2 back" in ended.output
    assert stack.key("api1") == before
    assert stack.key("api2") != before
    services["api1"]["start"] = start
    edit(stack, variables)
    (lost / "api2").unlink()
    finished = controller.run(stack.inventory, "rotate", only=SECRET)
    assert "everything is back" in finished.output, finished.output
    assert status_of(stack) == ["rolled_back"]
    assert_untouched(stack, before)


def test_rows_that_a_lost_host_goes_on_to_write_under_the_new_key_come_back_with_it(
    stack: Stack, flaky: tuple[Controller, Path]
) -> None:
    """Its service has loaded the new key and still reaches the database when all others have gone back."""
    controller, lost = flaky
    before = stack.key()
    assert before is not None
    variables = load(stack)
    services = variables["keyturn_services"]
    services["api1"]["depends_on"] = ["api2"]
    start = services["api1"]["start"]
    services["api1"]["start"] = ["sh", "-c", f"touch {lost}/api2; exit 1"]
    edit(stack, variables)
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert ended.code != 0
    services["api1"]["start"] = start
    edit(stack, variables)
    new = stack.key("api2")
    assert new not in (before, None)
    with psycopg.connect(stack.database.owner_dsn, autocommit=True) as link:
        row = link.execute("SELECT id, private_jwk FROM jwks_keys WHERE private_jwk !~ '^{' LIMIT 1").fetchone()
        assert row is not None
        written = cells.seal_cell(cells.open_cell(row[1], before), new)
        link.execute("UPDATE jwks_keys SET private_jwk = %s WHERE id = %s", (written, row[0]))
        link.execute("UPDATE api_tokens SET token_lookup = 'of the new key'")
    assert dict(stack.verify(plaintext_ok=True).problems) == {str(row[0]): "unreadable"}
    (lost / "api2").unlink()
    back = controller.run(stack.inventory, "rollback", only=SECRET)
    assert back.code == 0, back.output
    assert status_of(stack)[-1] == "rolled_back"
    assert_untouched(stack, before)


def test_trap_47_a_waived_host_catches_up_when_it_is_back(stack: Stack, flaky: tuple[Controller, Path]) -> None:
    controller, lost = flaky
    before = stack.key()
    (lost / "api2").touch()
    stack.stop_services("api2")
    waive = [{"host": "api2", "reason": "mainboard", "until": "2999-01-01"}]
    ended = controller.run(stack.inventory, "rotate", only=SECRET, waive=waive)
    assert ended.code == 0, ended.output
    assert "waived" in ended.output
    assert stack.key("api1") != before
    assert stack.key("api2") == before
    assert evidence(stack, "rotated")["hosts"]["waived"][0]["reason"] == "mainboard"
    assert "still to catch up: api2" in controller.run(stack.inventory, "status").output
    (lost / "api2").unlink()
    stack.start_services("api2")
    turned = stack.key("api1")
    caught_up = controller.run(stack.inventory, "rotate")
    assert caught_up.code == 0, caught_up.output
    assert [stack.key(name) for name in APIS] == [turned, turned]
    assert stack.verify().ok
    assert status_of(stack) == ["overlap"]


def test_a_service_that_is_not_well_holds_a_rotation_up_until_its_host_is_left_out(
    stack: Stack, controller: Controller
) -> None:
    before = stack.key()
    stack.stop_services("api2")
    held = controller.run(stack.inventory, "rotate", only=SECRET)
    assert held.code != 0
    assert "or stop it and leave api2 out with keyturn_waive" in held.output
    assert [stack.key(name) for name in APIS] == [before, before]
    waive = [{"host": "api2", "reason": "its service does not start", "until": "2999-01-01"}]
    ended = controller.run(stack.inventory, "rotate", only=SECRET, waive=waive)
    assert ended.code == 0, ended.output
    turned = stack.key("api1")
    assert turned != before
    assert stack.key("api2") == before
    caught_up = controller.run(stack.inventory, "rotate")
    assert caught_up.code == 0, caught_up.output
    assert [stack.key(name) for name in APIS] == [turned, turned]
    assert stack.verify().ok
    assert status_of(stack) == ["rolled_back", "overlap"]


def test_the_database_restarts_in_the_middle(tmp_path: Path) -> None:
    """With a server of its own: a crash while rows are written; the run goes back, and the next one turns."""
    folder = tmp_path / "own"
    with Stack(folder, rows=3000, tokens=10, jwks=generate_jwks(2)) as stack:
        before = stack.key()
        controller = Controller(tmp_path / "home")
        process = controller.start(stack.inventory, "rotate", only=SECRET)
        assert wait_for_phase(stack, "migrate", process)
        stack.crash_database()
        stack.restart_database()
        output = process.communicate()[0]
        stack.restart_services()
        if process.returncode == 0:  # the crash came between two statements and nobody noticed
            assert stack.verify().ok
            return
        assert process.returncode == 2, output
        back = controller.run(stack.inventory, "rollback", only=SECRET)
        assert back.code in (0, 2), back.output
        assert stack.key() == before
        assert stack.verify(plaintext_ok=True).ok
        assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)


def test_a_host_that_cannot_keep_anything_from_the_start_leaves_nothing_to_go_back_from(
    stack: Stack, controller: Controller
) -> None:
    before, folder = stack.key(), stack.state_dir("api2")
    folder.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs", str(folder)], check=True)
    try:
        ended = controller.run(stack.inventory, "rotate", only=SECRET)
        assert ended.code == 2, ended.output
        assert "Read-only file system" in ended.output
        assert_untouched(stack, before)
        assert status_of(stack) == ["rolled_back"]
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)


def test_a_full_disk_under_the_backups_changes_nothing(stack: Stack, controller: Controller) -> None:
    before = stack.key()
    backups = stack.state_dir("api2") / "backups"
    backups.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(backups)]
    subprocess.run(mount, check=True)
    try:
        with contextlib.suppress(OSError), (backups / "full").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        ended = controller.run(stack.inventory, "rotate", only=SECRET)
        assert ended.code == 2, ended.output
        assert "No space left" in ended.output
        assert [path.name for path in backups.iterdir()] == ["full"]
    finally:
        subprocess.run(["umount", str(backups)], check=True)
    assert_untouched(stack, before)
    assert status_of(stack) == ["rolled_back"]
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)
