# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PgBouncer in transaction mode: refused for the rotator, whatever its pool holds, and kept for the service."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig

_PROGRAM = "/usr/sbin/pgbouncer"
_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = extra_float_digits
"""

_SIZES = {"transaction": 1, "statement": 1, "session": 2}  # one connection for all clients, where that is possible


@contextlib.contextmanager
def _pgbouncer(server: EmbeddedPostgres, mode: str) -> Iterator[int]:
    """A pooler on a free port; it refuses to run as root."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer."))
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        folder.chmod(0o755)
    settings = folder / "pgbouncer.ini"
    settings.write_text(_SETTINGS.format(server=server.port, port=port, mode=mode, size=_SIZES[mode]))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([_PROGRAM, str(settings)], stdout=log, stderr=log, **account)
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
        yield port
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def database() -> Iterator[EmbeddedPostgres]:
    """A server of its own."""
    with EmbeddedPostgres() as running:
        yield running


@pytest.mark.parametrize("mode", _SIZES)
@pytest.mark.parametrize("state", ["in_place", "prepared"])
def test_trap_52_a_pooler_is_refused_before_anything_is_set(
    database: EmbeddedPostgres, tmp_path: Path, mode: str, state: str
) -> None:
    with database.database("app") as dsn, _pgbouncer(database, mode) as port:
        rig = Rig(dsn, tmp_path / "state")
        rig.fill()
        before = rig.snapshot()
        through = dsn.replace(f"port={database.port}", f"port={port}")
        settings = "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> 'application_name'"
        with psycopg.connect(through, autocommit=True, prepare_threshold=None) as service:
            ours = service.execute(settings).fetchall()
            rig.dsn = through
            for way in ("rows", "columns"):
                with pytest.raises(KeyturnError) as refused:
                    rig.run(state, cut_over=way)
                assert (refused.value.code, refused.value.where) == ("pooler-refused", "database app")
            assert service.execute(settings).fetchall() == ours
            assert service.execute("SELECT count(*) FROM creds").fetchone() == (30,)
        assert rig.snapshot() == before
        rig.dsn = dsn
        assert rig.run("in_place")["coverage"][0]["new"] == 30
        rig.sql.close()
