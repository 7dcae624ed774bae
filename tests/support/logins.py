# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins that turn: a role of a real server with its two passwords, and calls of the module, killed where it hurts."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from ansible_collections.keyturn.rotation.plugins.module_utils.servers import job
from demo.postgres import PostgresServer
from psycopg import sql

if TYPE_CHECKING:
    from typing import LiteralString

__all__ = ["Desk", "call", "killed_at", "new_role"]

_KILLED = 9


def call(
    state_dir: Path, entries: list[dict[str, Any]], state: str, check: bool = False, **more: Any
) -> dict[str, Any]:
    """One call of ``server_password``."""
    params = {
        "state_dir": str(state_dir),
        "session_dir": None,
        "rotation_id": "r1",
        "epoch": 1,
        "direction": "forward",
        "state": state,
        "servers": entries,
        **more,
    }
    return job.run(params, check)


def killed_at(owner: type, method: str, when: str, work: Callable[[], object]) -> bool:
    """Run ``work`` in a process that ends, without any cleaning up, before or after a method is called the first time.

    :returns: whether it came to that.
    """
    pid = os.fork()
    if pid == 0:
        original = getattr(owner, method)

        @functools.wraps(original)
        def dies(*args: Any, **kwargs: Any) -> Any:
            if when == "after":
                original(*args, **kwargs)
            os._exit(_KILLED)

        setattr(owner, method, dies)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == _KILLED


def new_role(server: PostgresServer) -> tuple[str, str]:
    """A role that may log in, and its password, which reaches the server as a verifier."""
    role, password = f"r{secrets.token_hex(6)}", secrets.token_urlsafe(24)
    with psycopg.connect(server.admin_dsn, autocommit=True) as link:
        text = link.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        link.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(text)))
    return role, password


class Desk:
    """One role of one server."""

    def __init__(self, server: PostgresServer, folder: Path, role: str, old: str) -> None:
        self.server, self.role, self.old = server, role, old
        self.new = secrets.token_urlsafe(24)
        self.state_dir = folder / "state"
        self.dsn = server.admin_dsn

    def entry(self, **more: Any) -> dict[str, Any]:
        """The entry of the option ``servers``."""
        return {
            "name": "PGPASS",
            "type": "postgres",
            "database": "app",
            "role": self.role,
            "dsn": {"value": self.dsn},
            "dbname": "postgres",
            "old": {"value": self.old},
            "new": {"value": self.new},
            **more,
        }

    def call(
        self, state: str, check: bool = False, entry: Mapping[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """One call of ``server_password``."""
        return call(self.state_dir, [self.entry(**(entry or {}))], state, check, **more)

    def accepts(self, password: str) -> bool:
        """Whether the server lets the role in."""
        try:
            psycopg.connect(self.server.dsn(self.role, password, "postgres")).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" not in str(error):
                raise
            return False
        return True

    @property
    def valid(self) -> list[str]:
        """Which of the two the server accepts."""
        return [name for name, value in (("old", self.old), ("new", self.new)) if self.accepts(value)]

    def verifier(self) -> str:
        """What the server keeps."""
        with psycopg.connect(self.server.admin_dsn) as link:
            row = link.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (self.role,)).fetchone()
        assert row is not None
        return str(row[0])

    def kept(self) -> list[Path]:
        """The files that are kept for the way back."""
        return [path for path in (self.state_dir / "servers").rglob("*") if path.is_file()]

    def sql(self, statement: LiteralString, *names: str) -> None:
        """Run a statement as the superuser, with identifiers put in."""
        with psycopg.connect(self.server.admin_dsn, autocommit=True) as link:
            query = sql.SQL(statement).format(*map(sql.Identifier, names))
            link.execute(query)

    def drop(self) -> None:
        """Remove the role."""
        self.sql("DROP ROLE IF EXISTS {}", self.role)
