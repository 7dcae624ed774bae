# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers that hold several keys: the strategy ``overlap`` on a dotenv list, with Fernet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from cryptography.fernet import Fernet, MultiFernet
from demo.postgres import Database, PostgresServer

from tests.support.controller import Controller, registry
from tests.support.local import LOCAL

_NAME = "FERNET_KEYS"
_PLAINTEXTS = {number: f"password {number}".encode() for number in range(1, 41)}


class _Application:
    """One host, one dotenv file with a list of keys (the first encrypts), one table."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.env_file = folder / ".env"
        self.state_dir = folder / "state"
        self.inventory = folder / "inventory.yml"
        self.first = Fernet.generate_key().decode()
        self.state_dir.mkdir(mode=0o700, parents=True)
        self.env_file.touch(0o600)
        self.env_file.write_text(f"{_NAME}={self.first}\n")
        fernet = Fernet(self.first)
        with psycopg.connect(database.owner_dsn) as link:
            link.execute("CREATE TABLE connection (id int PRIMARY KEY, password text)")
            with link.cursor() as cursor:
                rows = [(number, fernet.encrypt(text).decode()) for number, text in _PLAINTEXTS.items()]
                cursor.executemany("INSERT INTO connection VALUES (%s, %s)", rows)
        catalog = {
            "keyturn_state_host": "one",
            "keyturn_state_dir": str(self.state_dir),
            "keyturn_databases": {"app": {"hosts": "one", "dsn": database.owner_dsn}},
            "keyturn_secrets": {
                _NAME: {
                    "kind": "encryption_key",
                    "strategy": "overlap",
                    "generate": {"type": "bytes", "length": 32, "encoding": "base64url", "padding": True},
                    "stores": [
                        {
                            "type": "env_file",
                            "hosts": "one",
                            "path": str(self.env_file),
                            "variable": _NAME,
                            "layout": "list",
                        }
                    ],
                    "data": [
                        {"database": "app", "table": "connection", "column": "password", "envelope": "fernet"},
                    ],
                }
            },
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": {"one": {}}}}))

    @property
    def keys(self) -> list[str]:
        """The keys that a service would load now."""
        (line,) = self.env_file.read_text().splitlines()
        return line.removeprefix(f"{_NAME}=").strip("'\"").split(",")

    def opens_under(self, *keys: str) -> bool:
        """Whether a reader with these keys reads every row as it was."""
        reader = MultiFernet([Fernet(key) for key in keys])
        with psycopg.connect(self.database.owner_dsn) as link:
            rows = link.execute("SELECT id, password FROM connection").fetchall()
        return {number: reader.decrypt(cell.encode()) for number, cell in rows} == _PLAINTEXTS

    @property
    def statuses(self) -> list[str]:
        return [rotation["status"] for rotation in registry(self.state_dir)["rotations"].values()]


@pytest.fixture
def application(tmp_path: Path, server: PostgresServer) -> Iterator[_Application]:
    name = f"t{uuid.uuid4().hex[:12]}"
    try:
        yield _Application(tmp_path / name, server.create_database(name))
    finally:
        server.drop_database(name)


def test_a_key_list_turns_goes_back_turns_again_and_loses_its_old_key(
    application: _Application, controller: Controller
) -> None:
    first = application.first
    turned = controller.run(application.inventory, "rotate", only=_NAME)
    assert turned.code == 0, turned.output
    second, *former = application.keys
    assert former == [first]
    assert second != first
    assert application.opens_under(second)

    back = controller.run(application.inventory, "rollback", only=_NAME)
    assert back.code == 0, back.output
    assert application.keys == [first]
    assert application.opens_under(first)

    again = controller.run(application.inventory, "rotate", only=_NAME)
    assert again.code == 0, again.output
    third, *former = application.keys
    assert former == [first]
    assert third not in (first, second)
    retired = controller.run(application.inventory, "retire", only=_NAME, confirm=_NAME)
    assert retired.code == 0, retired.output
    assert application.keys == [third]
    assert application.opens_under(third)
    assert application.statuses == ["rolled_back", "retired"]
    for key in (first, second, third):
        assert key not in turned.output + back.output + again.output + retired.output
