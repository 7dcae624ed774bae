# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole rotations of passwords that servers check: files, PostgreSQL and Redis turn together, and go back together."""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from demo.postgres import Database, PostgresServer

from tests.support.controller import Controller, Ended, kill_marked, registry
from tests.support.local import LOCAL
from tests.support.redis import RedisServer

_BOTH = "PG_PASSWORD,REDIS_PASSWORD"
_APIS = ("api1", "api2")


class Estate:
    """Two hosts with a dotenv file each, one that talks to the database, one that talks to Redis."""

    def __init__(self, folder: Path, server: PostgresServer, database: Database) -> None:
        self.folder, self.server, self.database = folder, server, database
        self.role = database.app_role
        self.values = {"PG_PASSWORD": database.app_dsn.split(":")[2].split("@")[0], "REDIS_PASSWORD": _password()}
        self.redis = RedisServer(folder / "redis", self.values["REDIS_PASSWORD"])
        self.inventory = folder / "inventory.yml"
        for host in _APIS:
            (folder / host).mkdir()
            self.env_file(host).touch(0o600)
            text = "".join(f"{name}={value}\n" for name, value in self.values.items())
            self.env_file(host).write_text(f"# passwords\nOTHER=1\n{text}")
        self.catalog: dict[str, Any] = {
            "keyturn_state_host": "db",
            "keyturn_databases": {"app": {"hosts": "db", "dsn": database.app_dsn}},
            "keyturn_services": {
                "api": {
                    "hosts": "apis",
                    "manager": "command",
                    "start": ["true"],
                    "stop": ["true"],
                    "health": {"command": ["true"]},
                }
            },
            "keyturn_secrets": {
                "PG_PASSWORD": self._secret(
                    "env_secret", [{"type": "postgres", "database": "app", "role": self.role, "host": "127.0.0.1"}]
                ),
                "REDIS_PASSWORD": self._secret(
                    "redis_login", {"type": "redis", "hosts": "cache", "address": self.redis.address}
                ),
            },
        }
        self.save()

    def _secret(self, kind: str, server: Any) -> dict[str, Any]:
        return {
            "kind": kind,
            "generate": {"type": "string", "length": 32, "charset": "alnum"},
            "stores": [{"hosts": host, "type": "env_file", "path": str(self.env_file(host))} for host in _APIS],
            "server": server,
            "consumers": ["api"],
            "overlap_min": "1h",
        }

    def save(self) -> None:
        """Write the inventory."""
        hosts = {name: {"keyturn_state_dir": str(self.folder / name / "state")} for name in (*_APIS, "db", "cache")}
        content = {
            "all": {
                "vars": {**LOCAL, **self.catalog},
                "hosts": {"db": hosts["db"], "cache": hosts["cache"]},
                "children": {"apis": {"hosts": {name: hosts[name] for name in _APIS}}},
            }
        }
        self.inventory.write_text(yaml.safe_dump(content))

    def env_file(self, host: str) -> Path:
        return self.folder / host / ".env"

    def held(self, name: str, host: str = "api1") -> str:
        """What a file holds."""
        lines = self.env_file(host).read_text().splitlines()
        (value,) = [line.partition("=")[2].strip("'\"") for line in lines if line.startswith(f"{name}=")]
        return value

    def accepts(self, name: str, value: str) -> bool:
        """Whether the server accepts it."""
        if name == "REDIS_PASSWORD":
            return self.redis.accepts(value) is True
        try:
            psycopg.connect(self.server.dsn(self.role, value, self.database.name)).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" not in str(error):
                raise
            return False
        return True

    def untouched(self) -> bool:
        """Everything as at first: the files to the byte, and only the first passwords are accepted."""
        text = "# passwords\nOTHER=1\n" + "".join(f"{name}={value}\n" for name, value in self.values.items())
        files = all(self.env_file(host).read_text() == text for host in _APIS)
        return files and all(self.accepts(name, value) for name, value in self.values.items())

    def evidence(self, event: str) -> dict[str, Any]:
        """The latest record of this event."""
        folder = self.folder / "db/state/evidence"
        records = [json.loads(path.read_text()) for path in folder.glob("*/evidence.json")]
        found = [record for record in records if record["event"] == event]
        return max(found, key=lambda record: str(record["when"]["ended_at"]))

    def logins(self, event: str) -> set[tuple[str, str, str]]:
        """What the evidence says of logins: server, version, result; nothing was other than expected."""
        probes = self.evidence(event)["probes"]
        assert [probe for probe in probes if probe["expected"] != probe["result"]] == []
        return {(probe["type"], probe["version"], probe["result"]) for probe in probes}

    @property
    def statuses(self) -> list[str]:
        return [rotation["status"] for rotation in registry(self.folder / "db/state")["rotations"].values()]

    @contextmanager
    def client(self) -> Iterator[dict[str, list[float]]]:
        """Reads the file and logs in, all the time; times of what failed, by secret."""
        failed: dict[str, list[float]] = {name: [] for name in self.values}
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.1):
                for name in self.values:
                    if not self.accepts(name, self.held(name)):
                        failed[name].append(time.monotonic())

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield failed
        finally:
            over.set()
            thread.join()


def _password() -> str:
    return secrets.token_urlsafe(24)


@pytest.fixture
def estate(tmp_path: Path, server: PostgresServer) -> Iterator[Estate]:
    name = f"t{uuid.uuid4().hex[:12]}"
    folder = tmp_path / name
    folder.mkdir()
    made = Estate(folder, server, server.create_database(name))
    try:
        yield made
    finally:
        made.redis.stop()
        server.drop_database(name)


def assert_silent(estate: Estate, *runs: Ended) -> None:
    """No value is in what was printed, nor in the server's log."""
    values = {*estate.values.values(), *(estate.held(name) for name in estate.values)}
    text = "".join(run.output for run in runs) + estate.server.log.read_text(errors="replace")
    assert [value for value in values if value in text] == []


def test_passwords_turn_in_files_and_servers_go_back_turn_again_and_retire(
    estate: Estate, controller: Controller
) -> None:
    planned = controller.run(estate.inventory, "plan", only=_BOTH)
    assert planned.code == 0, planned.output
    assert f"role {estate.role} of app" in planned.output
    assert f"user default on Redis {estate.redis.address}" in planned.output
    assert estate.untouched()

    with estate.client() as failed:
        turned = controller.run(estate.inventory, "rotate", only=_BOTH)
    assert turned.code == 0, turned.output
    for name, old in estate.values.items():
        assert estate.held(name, "api1") == estate.held(name, "api2") != old
        assert estate.accepts(name, estate.held(name))
        assert estate.accepts(name, old) is (name == "REDIS_PASSWORD")
    shown = {("postgres", "new", "accepted"), ("postgres", "old", "refused"), ("redis", "new", "accepted")}
    assert estate.logins("rotated") == shown
    assert failed["REDIS_PASSWORD"] == []
    gap = estate.evidence("rotated")["gap_ms"]
    if failed["PG_PASSWORD"]:
        assert 1000 * (failed["PG_PASSWORD"][-1] - failed["PG_PASSWORD"][0]) <= gap
    assert "new accepted, old refused; changed in" in turned.output

    back = controller.run(estate.inventory, "rollback", only=_BOTH)
    assert back.code == 0, back.output
    assert estate.untouched()
    assert ("redis", "new", "refused") in estate.logins("rolled_back")

    again = controller.run(estate.inventory, "rotate", only=_BOTH)
    assert again.code == 0, again.output
    retired = controller.run(estate.inventory, "retire", only=_BOTH, confirm="PG_PASSWORD")
    assert retired.code == 0, retired.output
    assert {("redis", "old", "refused"), ("postgres", "old", "refused")} <= estate.logins("retired")
    for name, old in estate.values.items():
        assert estate.accepts(name, estate.held(name))
        assert not estate.accepts(name, old)
    assert [path for path in estate.folder.glob("*/state/servers/**/*") if path.is_file()] == []
    assert_silent(estate, planned, turned, back, again, retired)


def test_trap_37_a_failed_verify_brings_files_and_servers_back(estate: Estate, controller: Controller) -> None:
    probe = {"name": "never", "hosts": "api1", "type": "command", "command": ["false"]}
    estate.catalog["keyturn_secrets"]["PG_PASSWORD"]["probes"] = [probe]
    estate.save()
    with estate.client() as failed:
        ended = controller.run(estate.inventory, "rotate", only=_BOTH)
    assert ended.code == 2, ended.output
    assert "never" in ended.output
    assert estate.untouched()
    assert estate.statuses == ["rolled_back"]
    assert {("postgres", "new", "refused"), ("redis", "new", "refused")} <= estate.logins("rolled_back")
    assert failed["REDIS_PASSWORD"] == []
    assert_silent(estate, ended)


def test_redis_alone_has_no_gap_and_check_mode_changes_nothing(estate: Estate, controller: Controller) -> None:
    checked = controller.run(estate.inventory, "rotate", "--check", only="REDIS_PASSWORD")
    assert checked.code == 0, checked.output
    assert estate.untouched()
    with estate.client() as failed:
        turned = controller.run(estate.inventory, "rotate", only="REDIS_PASSWORD")
    assert turned.code == 0, turned.output
    assert failed == {"PG_PASSWORD": [], "REDIS_PASSWORD": []}
    assert estate.evidence("rotated")["gap_ms"] == 0


def test_a_server_that_refuses_the_present_password_stops_it_before_anything_changes(
    estate: Estate, controller: Controller
) -> None:
    estate.redis.link(estate.values["REDIS_PASSWORD"]).config_set("requirepass", _password())
    before = [estate.env_file(host).read_text() for host in _APIS]
    ended = controller.run(estate.inventory, "rotate", only=_BOTH)
    assert ended.code == 2
    assert "refuses the password" in ended.output
    assert [estate.env_file(host).read_text() for host in _APIS] == before
    assert estate.accepts("PG_PASSWORD", estate.values["PG_PASSWORD"])


def test_a_run_that_was_killed_after_the_server_changed_is_finished_by_the_next(
    estate: Estate, controller: Controller
) -> None:
    process = controller.start(estate.inventory, "rotate", only=_BOTH)
    while process.poll() is None and estate.accepts("PG_PASSWORD", estate.values["PG_PASSWORD"]):
        time.sleep(0.01)
    kill_marked(controller, keep="redis-server")
    process.communicate()
    finished = controller.run(estate.inventory, "rotate", only=_BOTH)
    assert finished.code == 0, finished.output
    for name, old in estate.values.items():
        assert estate.held(name, "api1") == estate.held(name, "api2") != old
        assert estate.accepts(name, estate.held(name))
    assert estate.statuses == ["overlap"]
