# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table of encrypted rows and the calls that re-encrypt it, as the module makes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import info, job

__all__ = ["ENVELOPES", "KEYS", "Rig", "opens", "seal"]

KEYS = {
    "old": base64.b64encode(bytes([1]) * 32),
    "new": base64.b64encode(bytes([2]) * 32),
    "third": base64.b64encode(bytes([3]) * 32),
    "other": base64.b64encode(bytes([9]) * 32),
}
ENVELOPES = {name: load_spec(name) for name in ("aes256gcm-b64", "aesgcm-raw", "pbkdf2-aes256gcm-b64")}


def seal(key: str, plaintext: bytes, envelope: str = "aes256gcm-b64") -> bytes:
    """A cell under one of :data:`KEYS`."""
    return Envelope(ENVELOPES[envelope], KEYS[key]).seal(plaintext)


def opens(key: str, cell: bytes | str, envelope: str = "aes256gcm-b64") -> bytes | None:
    """The plaintext of a cell under one of :data:`KEYS`."""
    return Envelope(ENVELOPES[envelope], KEYS[key]).open(cell.encode() if isinstance(cell, str) else cell)


class Rig:
    """One database, and calls of the modules' work with all arguments as Ansible would fill them in."""

    def __init__(self, dsn: str, state_dir: Path) -> None:
        self.dsn = dsn
        self.state_dir = state_dir
        self.sql = psycopg.connect(dsn, autocommit=True)
        self.columns: list[dict[str, Any]] = [self.column("creds", "secret")]
        self.defaults: dict[str, Any] = {}
        self.old, self.new = "old", "new"

    @staticmethod
    def column(table: str, column: str, **more: Any) -> dict[str, Any]:
        """One entry of ``columns``."""
        entry = {"table": table, "column": column, "envelope": "aes256gcm-b64", "plaintext": "refuse"}
        shape: dict[str, Any] = {
            "paths": [],
            "list": None,
            "pattern": None,
            "where": None,
            "set": {},
            "new_envelope": None,
        }
        return {**entry, "may_be_empty": False, **shape, **more}

    def fill(self, count: int = 30, key: str = "old") -> None:
        """The table ``creds`` with rows whose plaintext is ``<id>:0``."""
        self.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL, ver int NOT NULL DEFAULT 0)")
        self.insert([(number, seal(key, f"{number}:0".encode()).decode()) for number in range(1, count + 1)])

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows ``(id, secret)`` into ``creds``."""
        with self.sql.cursor() as cursor:
            cursor.executemany("INSERT INTO creds (id, secret) VALUES (%s, %s)", rows)

    def params(self, state: str, **more: Any) -> dict[str, Any]:
        """The module's arguments for this database."""
        keys = {"new": self._value(self.new)}
        if self.old:
            keys["old"] = self._value(self.old)
        ours = {"columns": self.columns, "keys": keys, **self.defaults, **more}
        return self.arguments(self.dsn, self.state_dir, state, **ours)

    @staticmethod
    def arguments(dsn: str, state_dir: Path, state: str, **more: Any) -> dict[str, Any]:
        """The module's arguments as Ansible fills them in."""
        return {
            "state_dir": str(state_dir),
            "session_dir": None,
            "rotation_id": "r1",
            "epoch": 1,
            "state": state,
            "step": "swap",
            "overlap": False,
            "turned": False,
            "name": "KEY",
            "database": "app",
            "dsn": {"value": dsn},
            "columns": [],
            "clear": [],
            "indexes": [],
            "keys": {},
            "workers": 1,
            "batch_rows": 7,
            "batch_bytes": 2_097_152,
            "rate": 0,
            "max_lag": 0,
            "sanitize": False,
            "progress_path": None,
            "schema": "keyturn",
            "lock_timeout_ms": 50,
            "max_wait_s": 20,
            "search": False,
            "detect": False,
            "cut_over": "rows",
            "max_writer_wait_ms": 1000,
            "quiesce": "none",
            "schemas": [],
            **more,
        }

    @staticmethod
    def _value(key: str) -> dict[str, Any]:
        return {"value": KEYS[key].decode()}

    def run(self, state: str, check: bool = False, **more: Any) -> dict[str, Any]:
        """Call ``reencrypt``; the result must be JSON."""
        result = job.run(self.params(state, **more), check)
        json.dumps(result)
        return result

    def info(self, **more: Any) -> dict[str, Any]:
        """Call ``reencrypt_info``."""
        result = info.run(self.params("", **more), False)
        json.dumps(result)
        return result

    def cells(self, table: str = "creds", column: str = "secret", key: str = "id") -> Mapping[Any, Any]:
        """The cells of a table by key."""
        query = psycopg.sql.SQL("SELECT {}, {} FROM {}").format(
            psycopg.sql.Identifier(key), psycopg.sql.Identifier(column), psycopg.sql.Identifier(table)
        )
        return dict(self.sql.execute(query).fetchall())

    def plaintexts(self, key: str) -> dict[int, str | None]:
        """What opens under a key in ``creds``, by id."""
        return {number: (opens(key, cell) or b"").decode() or None for number, cell in self.cells().items()}

    def shadows(self) -> list[str]:
        """The endings of the names of side tables and second columns."""
        query = """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'keyturn' AND c.relkind = 'r' AND c.relname LIKE 's!_%' ESCAPE '!'
                   UNION ALL
                   SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   WHERE a.attname LIKE 'keyturn!_%' ESCAPE '!' AND NOT a.attisdropped AND NOT c.relispartition
                   ORDER BY 1"""
        return [row[0].rsplit("_", 1)[1] for row in self.sql.execute(query).fetchall()]

    def left_behind(self) -> list[str]:
        """Our triggers, functions and constraints that are still there."""
        query = """SELECT tgname FROM pg_trigger WHERE tgname ~ '^(zzzz_keyturn|keyturn_hold)_'
                   UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace('keyturn')
                   UNION ALL SELECT conname FROM pg_constraint WHERE conname LIKE 'keyturn%'"""
        return [row[0] for row in self.sql.execute(query).fetchall()]

    def snapshot(self) -> list[Any]:
        """Everything that a call could change: rows with their versions, and the names of our own objects."""
        rows = self.sql.execute("SELECT id, secret, xmin::text, ctid::text FROM creds ORDER BY id").fetchall()
        return [rows, self.shadows(), self.left_behind()]
