# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of encrypted rows for measurements, the same again and again, and the floor that all is compared with."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from psycopg import sql

from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig

__all__ = ["KEYS", "Table", "timed"]


def _key() -> str:
    """32 bytes as a text that is the same in both alphabets of base64."""
    while True:
        text = base64.b64encode(secrets.token_bytes(32)).decode()
        if text == base64.urlsafe_b64encode(base64.b64decode(text)).decode():
            return text


#: The old key and the new one.
KEYS = (_key(), _key())
_CALL = Path(__file__).resolve().parent / "call.py"


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Table:
    """``creds(id, name, secret)``, of which every measurement gets a fresh copy.

    :param width: bytes of one cell, about.
    """

    def __init__(
        self, server: EmbeddedPostgres, folder: Path, rows: int, width: int, envelope: str = "aes256gcm-b64"
    ) -> None:
        self.server, self.folder, self.rows, self.width, self.envelope = server, folder, rows, width, envelope
        self._number = 0
        self._name = f"{envelope.replace('-', '_')}_{rows}_{width}"
        self._template = server.create_database(self._name)
        self.dsn = ""
        with psycopg.connect(self._template, autocommit=True) as link:
            link.execute("CREATE TABLE creds (id bigint PRIMARY KEY, name text, secret text)")
            seal = Envelope(load_spec(envelope), KEYS[0].encode()).seal_many
            plain = max(1, width * 3 // 4 - 28)
            with link.cursor().copy("COPY creds FROM STDIN") as copy:
                for first in range(0, rows, 1000):
                    numbers = range(first, min(rows, first + 1000))
                    for number, cell in zip(numbers, seal([secrets.token_bytes(plain) for _row in numbers])):
                        copy.write_row((number, f"n{number}", cell.decode()))
            link.execute("VACUUM ANALYZE creds")

    def fresh(self) -> str:
        """A new database with the table; the one before is dropped."""
        before = f"{self._name}_{self._number}"
        self._number += 1
        name = f"{self._name}_{self._number}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        with psycopg.connect(self.server.dsn(), autocommit=True) as link:
            link.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(before)))
            link.execute(create.format(sql.Identifier(name), sql.Identifier(self._name)))
            link.execute("CHECKPOINT")
        self.dsn = self.server.dsn(name)
        return self.dsn

    def bytes(self) -> int:
        """What the table takes on disk, with its index and TOAST."""
        with psycopg.connect(self.dsn) as link:
            row = link.execute("SELECT pg_total_relation_size('creds')").fetchone()
        assert row is not None
        return int(row[0])

    def floor(self) -> float:
        """Seconds of one UPDATE without crypto that writes other bytes of the same length."""
        self.fresh()
        with psycopg.connect(self.dsn, autocommit=True) as link:
            return timed(lambda: link.execute("UPDATE creds SET secret = substr(secret, 2) || left(secret, 1)"))

    def call(self, state: str, *, within: Sequence[str] = (), **more: Any) -> dict[str, Any]:
        """One state of ``reencrypt`` in a process of its own: ``seconds``, ``rss_mb`` and ``result``.

        :param within: a command that runs it, such as ``taskset``.
        """
        arguments = Rig.arguments(
            self.dsn,
            self.folder / "state",
            state,
            **{
                "rotation_id": f"bench{self._number}",
                "batch_rows": 500,
                "workers": 0,
                "columns": [Rig.column("creds", "secret", envelope=self.envelope)],
                "keys": {"old": {"value": KEYS[0]}, "new": {"value": KEYS[1]}},
                **more,
            },
        )
        done = subprocess.run(
            [*within, sys.executable, str(_CALL)],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer
