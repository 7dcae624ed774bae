# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages in ``docs/coming-from`` promise and no other test shows."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shlex
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from demo.dotenv import read_env
from demo.postgres import Database, PostgresServer
from demo.stack import SECRET, Stack
from psycopg import sql

from tests.integration.test_rotation import assert_turned, evidence
from tests.support.catalog_file import change_secret
from tests.support.controller import Controller, Ended, kill_marked, registry
from tests.support.local import LOCAL

_VECTORS = json.loads(
    (Path(__file__).resolve().parents[1] / "vectors" / "004_credential_envelope.json").read_text(encoding="utf-8")
)
_OLD, _NEW = _VECTORS["key"]["value"], _VECTORS["new_key"]["value"]
_NAME = "ENCRYPTION_MASTER_KEY"
_HOSTS = ("api", "agents", "db")
#: Table to its encrypted column, all under the one key.
_COLUMNS = {
    "ai_provider_configs": "api_key_encrypted",
    "mcp_server_configs": "api_key_encrypted",
    "integration_connections": "encrypted_credentials",
}
_SECONDS = 120


def _decrypted(cell: str, key: str) -> bytes | None:
    """The plaintext of a cell, by the standard library and AES alone; None when it does not open."""
    raw = base64.b64decode(cell)
    salt, nonce, tag, ciphertext = raw[:64], raw[64:80], raw[80:96], raw[96:]
    derived = hashlib.pbkdf2_hmac("sha256", base64.b64decode(key), salt, 100_000, 32)
    with contextlib.suppress(InvalidTag):
        return AESGCM(derived).decrypt(nonce, ciphertext + tag, None)
    return None


def _plaintext(cell: str) -> bytes:
    """The plaintext of a cell under either key."""
    (plaintext,) = (opened for key in (_OLD, _NEW) if (opened := _decrypted(cell, key)) is not None)
    return plaintext


class _Credentials:
    """A service with three columns under one key: cells that the original programs have written, some already new."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.inventory = folder / "inventory.yml"
        self.plaintexts: dict[str, dict[str, bytes | None]] = {}
        folder.mkdir()
        with psycopg.connect(database.owner_dsn) as link:
            self._fill(link)
        for host in _HOSTS:
            (folder / host).mkdir()
            (folder / host / "state").mkdir(mode=0o700)
        for host in ("api", "agents"):
            self.env_file(host).touch(0o600)
            self.env_file(host).write_text(f"LOG_LEVEL=info\n{_NAME}={_OLD}\n", encoding="utf-8")
            self.running(host).touch()
        self._write_inventory()

    def env_file(self, host: str) -> Path:
        """The dotenv file of a host."""
        return self.folder / host / ".env"

    def running(self, host: str) -> Path:
        """A file that is there while the host's service runs; it holds the key that the service has loaded."""
        return self.folder / host / "running"

    def state_dir(self, host: str) -> Path:
        """Where the collection keeps its state on a host."""
        return self.folder / host / "state"

    def _fill(self, link: psycopg.Connection[Any]) -> None:
        mixed = next(run for run in _VECTORS["rotation_runs"] if run["name"] == "mixed_old_and_new_rows")
        cases = [case for case in _VECTORS["cases"] if case["plaintext_bytes"] < 300]
        cells: dict[str, dict[str, str | None]] = {
            "ai_provider_configs": {
                row["id"]: row["apiKeyEncrypted"] for row in mixed["rows_before"]["aIProviderConfig"]
            },
            "mcp_server_configs": {f"ckx{number}": case["ciphertext"] for number, case in enumerate(cases[:2])},
            "integration_connections": {str(uuid.uuid4()): case["ciphertext"] for case in cases[2:4]},
        }
        cells["mcp_server_configs"]["ckx-without-key"] = None
        for table, column in _COLUMNS.items():
            create = "CREATE TABLE {} (id text PRIMARY KEY, tenant_id text NOT NULL DEFAULT 't1', {} text)"
            link.execute(sql.SQL(create).format(sql.Identifier(table), sql.Identifier(column)))
            insert = sql.SQL("INSERT INTO {} (id, {}) VALUES (%s, %s)")
            with link.cursor() as cursor:
                cursor.executemany(
                    insert.format(sql.Identifier(table), sql.Identifier(column)), list(cells[table].items())
                )
            self.plaintexts[table] = {
                row_id: None if cell is None else _plaintext(cell) for row_id, cell in cells[table].items()
            }
        link.execute("ALTER TABLE ai_provider_configs ENABLE ROW LEVEL SECURITY")
        policy = (
            "CREATE POLICY tenants ON ai_provider_configs USING (tenant_id = current_setting('app.tenant_id', true))"
        )
        link.execute(policy)

    def _write_inventory(self) -> None:
        services = {}
        for host in ("api", "agents"):
            load = f"cp {shlex.quote(str(self.env_file(host)))} {shlex.quote(str(self.running(host)))}"
            services[host] = {
                "hosts": host,
                "manager": "command",
                "start": ["sh", "-c", load],
                "stop": ["rm", "-f", str(self.running(host))],
                "health": {"command": ["test", "-f", str(self.running(host))]},
                "quiesce": "stop",
            }
        services["agents"]["depends_on"] = ["api"]
        catalog = {
            "keyturn_state_host": "db",
            "keyturn_databases": {"app": {"hosts": "db", "dsn": self.database.owner_dsn}},
            "keyturn_services": services,
            "keyturn_secrets": {
                _NAME: {
                    "kind": "encryption_key",
                    "value_from": {"env": "ENCRYPTION_MASTER_KEY_NEW"},
                    "stores": [
                        {"hosts": host, "type": "env_file", "path": str(self.env_file(host))}
                        for host in ("api", "agents")
                    ],
                    "data": [
                        {"database": "app", "table": table, "column": column, "envelope": "pbkdf2-aes256gcm-b64"}
                        for table, column in _COLUMNS.items()
                    ],
                    "consumers": ["api", "agents"],
                }
            },
        }
        hosts = {host: {"keyturn_state_dir": str(self.state_dir(host))} for host in _HOSTS}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": hosts}}))

    def cells(self) -> dict[str, dict[str, str | None]]:
        """What lies in the three columns, by table and row."""
        found: dict[str, dict[str, str | None]] = {}
        with psycopg.connect(self.database.owner_dsn) as link:
            for table, column in _COLUMNS.items():
                query = sql.SQL("SELECT id, {} FROM {}").format(sql.Identifier(column), sql.Identifier(table))
                found[table] = dict(link.execute(query).fetchall())
        return found

    def schemas(self) -> set[str]:
        """The schemas that people made."""
        with psycopg.connect(self.database.owner_dsn) as link:
            rows = link.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'")
            return {row[0] for row in rows}

    def assert_under(self, key: str) -> None:
        """Every row holds what it held, under this key; both services have loaded it."""
        opened = {
            table: {row_id: None if cell is None else _decrypted(cell, key) for row_id, cell in rows.items()}
            for table, rows in self.cells().items()
        }
        assert opened == self.plaintexts
        for host in ("api", "agents"):
            assert read_env(self.env_file(host))[_NAME] == key
            assert read_env(self.running(host))[_NAME] == key


@pytest.fixture
def credentials(tmp_path: Path, server: PostgresServer) -> Iterator[_Credentials]:
    name = f"t{uuid.uuid4().hex[:12]}"
    try:
        yield _Credentials(tmp_path / name, server.create_database(name))
    finally:
        server.drop_database(name)


def _run(credentials: _Credentials, home: Path, new: str, *arguments: str) -> Ended:
    controller = Controller(home, {"ENCRYPTION_MASTER_KEY_NEW": new})
    return controller.run(credentials.inventory, "rotate", *arguments, only=_NAME)


def test_a_master_key_with_three_columns_dry_run_apply_and_swap_back(credentials: _Credentials, tmp_path: Path) -> None:
    before = credentials.cells()
    mixed = before["ai_provider_configs"]
    already = {row_id: cell for row_id, cell in mixed.items() if cell and _decrypted(cell, _NEW) is not None}
    assert already

    dry = _run(credentials, tmp_path / "dry", _NEW, "--check")
    assert dry.code == 0, dry.output
    for table, column in _COLUMNS.items():
        line = next(line for line in dry.output.splitlines() if f"{table}.{column} on db:" in line)
        assert f"{len(before[table])} rows" in line
    assert "1 null" in dry.output
    assert credentials.cells() == before
    assert credentials.schemas() == {"public"}

    applied = _run(credentials, tmp_path / "apply", _NEW)
    assert applied.code == 0, applied.output
    credentials.assert_under(_NEW)
    for table, column in _COLUMNS.items():
        total, null = len(before[table]), list(before[table].values()).count(None)
        counts = (
            f"public.{table}.{column}: {total} rows, {total - null} new, 0 old, 0 plaintext, {null} null, 0 unknown"
        )
        assert counts in applied.output

    back = _run(credentials, tmp_path / "back", _OLD)
    assert back.code == 0, back.output
    credentials.assert_under(_OLD)
    assert _OLD not in dry.output + applied.output + back.output
    assert _NEW not in dry.output + applied.output + back.output


def test_a_master_key_run_that_was_killed_is_finished_with_the_same_keys(
    credentials: _Credentials, tmp_path: Path
) -> None:
    before = credentials.cells()["ai_provider_configs"]
    already = {row_id: cell for row_id, cell in before.items() if cell and _decrypted(cell, _NEW) is not None}
    controller = Controller(tmp_path / "first", {"ENCRYPTION_MASTER_KEY_NEW": _NEW})
    process = controller.start(credentials.inventory, "rotate", only=_NAME)
    deadline = time.monotonic() + _SECONDS
    entered: list[str] = []
    while "migrate" not in entered:
        assert process.poll() is None
        assert time.monotonic() < deadline
        entered = [
            phase
            for rotation in registry(credentials.state_dir("db"))["rotations"].values()
            for phase in rotation["entered"]
        ]
    os.killpg(process.pid, signal.SIGKILL)
    kill_marked(controller)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()

    ended = _run(credentials, tmp_path / "second", _NEW)
    assert ended.code == 0, ended.output
    credentials.assert_under(_NEW)
    after = credentials.cells()["ai_provider_configs"]
    assert {row_id: after[row_id] for row_id in already} == already
    rotations = registry(credentials.state_dir("db"))["rotations"]
    assert [rotation["status"] for rotation in rotations.values()] == ["overlap"]


def _rest(stack: Stack) -> dict[str, Any]:
    """Every column that a rotation of the AES key has no business with."""
    queries = {
        "jwks_keys": "SELECT id, account_id, kid, public_jwk, created_at, expires_at FROM jwks_keys ORDER BY id",
        "api_tokens": "SELECT token_id, token_sha256, account_id, scopes, expires_at, revoked_at FROM api_tokens"
        " ORDER BY token_id",
        "policies": "SELECT * FROM policies ORDER BY id",
    }
    with psycopg.connect(stack.database.owner_dsn) as link:
        return {table: link.execute(query).fetchall() for table, query in queries.items()}


def test_an_aes_key_turns_and_key_pairs_kids_and_policies_stay(stack: Stack, controller: Controller) -> None:
    change_secret(stack, notice="one slow request for each API token")
    with psycopg.connect(stack.database.owner_dsn) as link:
        link.execute("CREATE TABLE policies (id int PRIMARY KEY, jws text, signed_with_kid text)")
        link.execute("INSERT INTO policies SELECT row_number() OVER (), 'eyJ.x.' || kid, kid::text FROM jwks_keys")
        filled = link.execute("SELECT count(token_lookup) FROM api_tokens").fetchone()
    assert filled is not None
    rest, before = _rest(stack), stack.key()
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert_turned(stack, ended, before)
    assert _rest(stack) == rest
    assert "jwks_keys.private_jwk: 120 rows, 120 new, 0 old, 0 plaintext, 0 null, 0 unknown" in ended.output
    assert f"api_tokens.token_lookup: {filled[0]} rows" in ended.output
    assert [row["rows"] for row in evidence(stack, "rotated")["cleared"]] == list(filled)
    new = stack.key()
    assert before is not None
    assert new is not None
    for key in (before, new):
        text = base64.urlsafe_b64encode(key).decode().rstrip("=")
        assert text not in ended.output
    with psycopg.connect(stack.database.owner_dsn) as link:
        indexes = link.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'api_tokens'").fetchall()
    assert ("api_tokens_token_lookup_idx",) in indexes
