# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password of a PostgreSQL role turns, goes back, is killed in between, and is never seen."""

from __future__ import annotations

import json
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.servers import job
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.kept import Kept
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.postgres import PostgresLogin
from demo.postgres import PostgresServer, free_port

from tests.support.canaries import Canaries, Search
from tests.support.logins import Desk, killed_at, new_role
from tests.support.modules import run_module_process

_SHOWN = [
    {"version": "new", "expected": "accepted", "result": "accepted"},
    {"version": "old", "expected": "refused", "result": "refused"},
]


def look(desk: Desk, **more: Any) -> dict[str, Any]:
    """One call of ``server_password_info``."""
    params = {"state_dir": str(desk.state_dir), "rotation_id": "r1", "servers": [desk.entry(**more)]}
    return job.run_info(params, False)


def refused(code: str, desk: Desk, state: str = "changed", **more: Any) -> KeyturnError:
    """The error of a call, which holds no value."""
    with pytest.raises(KeyturnError) as raised:
        desk.call(state, entry=more)
    assert raised.value.code == code
    assert not [value for value in (desk.old, desk.new) if value in str(raised.value)]
    return raised.value


def test_trap_14_the_password_changes_in_the_server(desk: Desk) -> None:
    """Check, real, check again, real again, for each state."""
    assert look(desk, new=None)["servers"][0]["accepted"] == ["old"]
    assert desk.call("changed", check=True)["changed"]
    assert desk.valid == ["old"]
    assert desk.kept() == []
    done = desk.call("changed")
    assert done["changed"]
    assert done["servers"][0]["logins"] == _SHOWN
    assert 0 <= done["servers"][0]["took_ms"] < 5000
    assert desk.valid == ["new"]
    assert desk.verifier().startswith("SCRAM-SHA-256$4096:")
    assert not desk.call("changed", check=True)["changed"]
    assert not desk.call("changed")["changed"]
    assert not desk.call("verified")["changed"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in desk.kept()] == [0o600]
    assert desk.call("retired", check=True)["changed"]
    assert desk.call("retired")["changed"]
    assert desk.kept() == []
    again = desk.call("retired")
    assert not again["changed"]
    assert again["servers"][0]["logins"] == _SHOWN


def test_the_way_back_is_exact(desk: Desk) -> None:
    former = desk.verifier()
    desk.call("changed")
    assert desk.call("rolled_back", check=True)["changed"]
    assert desk.valid == ["new"]
    assert desk.call("rolled_back")["changed"]
    assert desk.valid == ["old"]
    assert desk.verifier() == former
    assert not desk.call("rolled_back")["changed"]
    back = desk.call("verified", direction="back")
    assert back["servers"][0]["logins"][0] == {"version": "old", "expected": "accepted", "result": "accepted"}
    assert desk.call("retired", direction="back")["changed"]
    assert desk.kept() == []


def test_going_back_from_before_promote_changes_nothing(desk: Desk) -> None:
    former = desk.verifier()
    assert not desk.call("rolled_back")["changed"]
    assert not desk.call("retired", direction="back")["changed"]
    assert desk.verifier() == former


def test_the_admin_may_be_the_role_itself_and_cannot_read_verifiers(desk: Desk) -> None:
    desk.dsn = desk.server.dsn(desk.role, desk.old, "postgres")
    assert desk.call("changed")["changed"]
    assert not desk.call("changed")["changed"]
    (kept,) = desk.kept()
    assert json.loads(kept.read_text())["former"] == ""
    assert desk.call("rolled_back")["changed"]
    assert desk.valid == ["old"]
    desk.dsn = desk.server.dsn(desk.role, desk.new, "postgres")
    assert not desk.call("rolled_back")["changed"]


def test_the_admin_may_be_another_role_that_turns_in_the_same_call(desk: Desk, server: PostgresServer) -> None:
    admin = Desk(server, desk.state_dir.parent, *new_role(server))
    admin.sql("ALTER ROLE {} SUPERUSER", admin.role)
    dsn = {"value": server.dsn(admin.role, admin.old, "postgres")}
    entries = [admin.entry(name="ADMIN", dsn=dsn), desk.entry(dsn=dsn)]
    params = {"state_dir": str(desk.state_dir), "rotation_id": "r1", "epoch": 1, "direction": "forward"}
    assert job.run({**params, "state": "changed", "servers": entries}, False)["changed"]
    assert (admin.valid, desk.valid) == (["new"], ["new"])
    assert job.run({**params, "state": "rolled_back", "servers": entries}, False)["changed"]
    assert (admin.valid, desk.valid) == (["old"], ["old"])
    admin.drop()


_POINTS = [(Kept, "save", "after"), (PostgresLogin, "_alter", "before"), (PostgresLogin, "_alter", "after")]
_IDS = [f"{when}-{method}" for _owner, method, when in _POINTS]


@pytest.mark.parametrize("point", _POINTS, ids=_IDS)
def test_a_change_that_was_killed_is_finished_by_the_same_call(desk: Desk, point: tuple[type, str, str]) -> None:
    assert killed_at(*point, lambda: desk.call("changed"))
    desk.call("changed")
    assert desk.valid == ["new"]
    assert not desk.call("verified")["changed"]


@pytest.mark.parametrize("point", _POINTS, ids=_IDS)
def test_a_change_that_was_killed_goes_back(desk: Desk, point: tuple[type, str, str]) -> None:
    former = desk.verifier()
    assert killed_at(*point, lambda: desk.call("changed"))
    desk.call("rolled_back")
    assert desk.valid == ["old"]
    assert desk.verifier() == former


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_way_back_that_was_killed_is_finished_by_the_same_call(desk: Desk, when: str) -> None:
    former = desk.verifier()
    desk.call("changed")
    assert killed_at(PostgresLogin, "_alter", when, lambda: desk.call("rolled_back"))
    desk.call("rolled_back")
    assert desk.verifier() == former


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_retire_that_was_killed_is_finished_by_the_same_call(desk: Desk, when: str) -> None:
    desk.call("changed")
    assert killed_at(Kept, "remove", when, lambda: desk.call("retired"))
    desk.call("retired")
    assert (desk.valid, desk.kept()) == (["new"], [])


def test_a_run_that_was_taken_over_changes_nothing(desk: Desk) -> None:
    desk.call("verified", direction="back", epoch=5)
    with pytest.raises(KeyturnError) as raised:
        desk.call("changed", epoch=4)
    assert raised.value.code == "fenced"
    assert desk.valid == ["old"]


# -- what proves nothing -------------------------------------------------------------------------------------------


def test_trap_46_a_server_that_is_down_refuses_nothing(desk: Desk) -> None:
    refused("server-unreachable", desk, "verified", port=free_port())
    refused("server-unreachable", desk, "retired", port=free_port())


def test_trap_46_a_full_server_refuses_nothing(desk: Desk) -> None:
    """It takes the password and then has no room: that tells nothing about the password."""
    desk.call("changed")
    desk.sql("ALTER ROLE {} CONNECTION LIMIT 0", desk.role)
    refused("server-unreachable", desk, "retired")
    assert desk.kept() != []


@pytest.fixture
def trusting(desk: Desk) -> Iterator[Desk]:
    """The server lets the role in whatever it says."""
    path = desk.server.data / "pg_hba.conf"
    before = path.read_text()
    path.write_text(f"host all {desk.role} 127.0.0.1/32 trust\n" + before)
    _reload(desk.server)
    yield desk
    path.write_text(before)
    _reload(desk.server)


def _reload(server: PostgresServer) -> None:
    with psycopg.connect(server.admin_dsn, autocommit=True) as link:
        link.execute("SELECT pg_reload_conf()")
        link.execute("SELECT pg_sleep(0.3)")


def test_trap_46_a_server_that_trusts_everybody_proves_nothing(trusting: Desk) -> None:
    former = trusting.verifier()
    assert "pg_hba" in refused("login-unchecked", trusting).message
    with pytest.raises(KeyturnError, match="whatever its password is"):
        look(trusting)
    assert trusting.verifier() == former


def test_somebody_elses_password_is_not_overwritten(desk: Desk) -> None:
    mine, desk.old = desk.old, secrets.token_urlsafe(24)
    former = desk.verifier()
    refused("password-drifted", desk)
    refused("password-drifted", desk, "rolled_back")
    with pytest.raises(KeyturnError, match="refuses the password"):
        look(desk)
    assert desk.verifier() == former
    assert desk.accepts(mine)


@pytest.mark.parametrize(
    ("statement", "code"),
    [("ALTER ROLE {} NOLOGIN", "role-without-login"), ("DROP ROLE {}", "role-missing")],
)
def test_a_role_that_cannot_turn_is_refused_before(desk: Desk, statement: str, code: str) -> None:
    login = PostgresLogin(desk.entry(), desk.dsn.encode(), [], Kept(session(desk), "PGPASS", "x"), secrets.token_bytes)
    desk.sql(statement, desk.role)
    with pytest.raises(KeyturnError) as raised:
        login.look({"old": desk.old.encode()})
    assert raised.value.code == code


def session(desk: Desk) -> Any:
    """A session of a call."""
    return job.Session.from_params({"state_dir": str(desk.state_dir), "rotation_id": "r1"})


def test_an_admin_without_the_right_is_refused_before(desk: Desk, server: PostgresServer) -> None:
    somebody, password = new_role(server)
    desk.dsn = server.dsn(somebody, password, "postgres")
    with pytest.raises(KeyturnError) as raised:
        look(desk)
    assert raised.value.code == "privilege-missing"
    desk.sql("ALTER ROLE {} CREATEROLE", somebody)
    with pytest.raises(KeyturnError, match="may not set"):
        look(desk)
    desk.sql("GRANT {} TO {} WITH ADMIN OPTION", desk.role, somebody)
    assert look(desk, new=None)["servers"][0]["accepted"] == ["old"]
    assert desk.call("changed")["changed"]
    assert desk.call("rolled_back")["changed"]
    assert desk.valid == ["old"]
    desk.sql("DROP ROLE {}", somebody)


def test_a_secret_without_a_present_value_is_refused(desk: Desk) -> None:
    with pytest.raises(KeyturnError) as raised:
        look(desk, old=None, new=None)
    assert raised.value.code == "value-missing"


# -- leaks ---------------------------------------------------------------------------------------------------------


def test_trap_45_no_password_is_in_a_statement_or_an_answer(desk: Desk, tmp_path: Path) -> None:
    """Through the module's own process, with every statement logged: statistics hold no other text than the log."""
    canaries = Canaries()
    for name in ("old", "new"):
        value = getattr(desk, name)
        canaries.add(name, value)
        file = tmp_path / name
        file.touch(0o600)
        file.write_text(value)
    dsn = tmp_path / "dsn"
    dsn.touch(0o600)
    dsn.write_text(desk.dsn)
    sources = {"dsn": {"file": str(dsn)}, **{name: {"file": str(tmp_path / name)} for name in ("old", "new")}}
    common = {"state_dir": str(desk.state_dir), "rotation_id": "r1", "servers": [desk.entry(**sources)]}
    printed = run_module_process("server_password_info", common).printed
    for state in ("changed", "verified", "rolled_back", "changed", "retired"):
        answer = run_module_process("server_password", {**common, "state": state})
        assert not answer.get("failed"), answer
        printed += answer.printed
    failed = run_module_process("server_password", {**common, "state": "rolled_back", "epoch": -1, "servers": []})
    printed += failed.printed
    log = desk.server.log.read_text(errors="replace")
    assert len(re.findall(rf'ALTER ROLE "{desk.role}" PASSWORD', log)) >= 3
    search = Search()
    for place, text in (("log", log), ("printed", printed)):
        canaries.search_bytes(search, place, text.encode())
    canaries.search_files(search, [desk.state_dir])
    assert search.found == {}
