# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack: what it makes, and that it can be found, stopped and deleted again."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog
from demo.postgres import PostgresError, PostgresServer, free_port
from demo.stack import HOSTS, SECRET, Stack, StackError, main

from tests.unit.demo.asking import ask


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_catalog_is_one_that_the_collection_takes(common_stack: Stack) -> None:
    """Templated and checked by the collection's own loader."""
    variables: dict[str, Any] = {}
    for path in (common_stack.folder / "group_vars" / "all").iterdir():
        variables.update(yaml.safe_load(path.read_text(encoding="utf-8")))
    inventory = yaml.safe_load(common_stack.inventory.read_text(encoding="utf-8"))["all"]
    groups = {"all": [*HOSTS], "api": [*inventory["children"]["api"]["hosts"]]}
    catalog = load_catalog(variables, groups)
    assert catalog.hosts_of(SECRET) == ["api1", "api2", "db"]
    assert [store["path"] for store in catalog.secrets[SECRET]["stores"]] == [
        str(common_stack.env_file("api1")),
        str(common_stack.env_file("api2")),
    ]
    assert variables["vault_app_dsn"] == common_stack.database.owner_dsn
    assert inventory["hosts"]["db"]["keyturn_state_dir"] == str(common_stack.state_dir("db"))


def test_trap_27_what_is_secret_is_private(common_stack: Stack) -> None:
    """Files with a password, a key or tokens are 0600, state is 0700."""
    secret = [common_stack.env_file("api1"), common_stack.seed_file, common_stack.folder / "stack.json"]
    secret += [common_stack.folder / "group_vars" / "all" / "secrets.yml", common_stack.server.folder / "server.json"]
    assert {_mode(path) for path in secret} == {0o600}
    assert {_mode(common_stack.state_dir(host)) for host in HOSTS} == {0o700}
    assert common_stack.database.owner_dsn not in (
        common_stack.folder / "group_vars" / "all" / "catalog.yml"
    ).read_text("utf-8")


def test_every_role_needs_its_password(common_stack: Stack) -> None:
    """Also on this machine; and the application's role may not change tables."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(common_stack.database.app_dsn.replace(":", ":x", 2).replace(":x//", "://"))
    with (
        psycopg.connect(common_stack.database.app_dsn) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("ALTER TABLE jwks_keys ADD COLUMN x text")


def test_half_of_the_lookups_are_filled(stack: Stack) -> None:
    """And some digests are under bcrypt."""
    with psycopg.connect(stack.database.app_dsn) as connection:
        counts = connection.execute(
            "SELECT count(*), count(token_lookup), count(*) FILTER (WHERE token_sha256 LIKE '$2%') FROM api_tokens"
        ).fetchone()
    assert counts == (30, 15, 2)


def test_up_again_and_attach_find_what_is_there(stack: Stack) -> None:
    """Nothing is made twice; what does not run is started."""
    stack.stop_services()
    again = Stack(stack.folder)
    again.up()
    assert again.urls == stack.urls
    assert ask(again.urls[0], "GET", "/health")[0] == 200
    attached = Stack.attach(stack.folder)
    assert (attached.key(), attached.database) == (stack.key(), stack.database)
    attached.down()
    assert stack.server.running, "a shared server is not the stack's to stop"
    with pytest.raises(StackError, match="no stack"):
        Stack.attach(stack.folder / "elsewhere")


def test_two_stacks_on_one_server_know_nothing_of_each_other(
    common_stack: Stack, tmp_path: Path, server: PostgresServer, jwks: list[dict[str, str]]
) -> None:
    """Ports, databases, roles and keys of their own."""
    with Stack(tmp_path / "b", rows=8, plain=0, tokens=2, server=server, database="other", jwks=jwks) as other:
        assert set(other.urls).isdisjoint(common_stack.urls)
        assert other.key() != common_stack.key()
        assert other.verify().ok
        assert ask(other.urls[0], "GET", f"/keys/{next(iter(common_stack.seed.rows))}")[0] == 404
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(other.database.app_dsn.replace("/other", f"/{common_stack.database.name}"))
    with psycopg.connect(server.admin_dsn) as connection:
        left = connection.execute("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'other%'").fetchone()
    assert left == (0,)
    assert common_stack.verify(plaintext_ok=True).ok


def test_the_command_line_makes_a_stack_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up, up again, down, up, down for good."""
    folder = tmp_path / "demo"
    assert main(["up", "--dir", str(folder), "--rows", "30", "--tokens", "4", "--plaintext"]) == 0
    stack = Stack.attach(folder)
    try:
        assert (stack.key(), stack.verify().rows, stack.verify().ok) == (None, 30, True)
        assert main(["up", "--dir", str(folder)]) == 0
        assert main(["down", "--dir", str(folder)]) == 0
        assert not stack.server.running
        assert main(["up", "--dir", str(folder)]) == 0
        assert ask(stack.urls[1], "GET", "/health")[0] == 200
    finally:
        assert main(["down", "--dir", str(folder), "--remove"]) == 0
    assert not folder.exists()
    assert not stack.server.data.exists()
    assert main(["down", "--dir", str(folder)]) == 1
    assert "no stack was made here" in capsys.readouterr().err


def test_a_server_says_why_it_does_not_start(tmp_path: Path) -> None:
    """With the server's own words, and names the log."""
    server = PostgresServer.create(tmp_path, durable=False, settings={"shared_buffers": "'nonsense'"})
    try:
        with pytest.raises(PostgresError, match="pg_ctl failed"):
            server.start()
        assert "shared_buffers" in server.log.read_text(encoding="utf-8")
        with pytest.raises(PostgresError, match="lower-case"):
            server.create_database("Bad Name")
    finally:
        server.remove()


def test_a_free_port_is_outside_of_what_connections_use() -> None:
    """So that it is still free when a service comes back."""
    first, second = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    assert not int(first) <= free_port() <= int(second)
