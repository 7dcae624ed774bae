# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything in one folder: a database, two instances of the service, three "hosts", an inventory and a catalog.

``python -m demo.stack up --dir D`` and ``… down --dir D``; in tests ``with Stack(folder) as stack:``.

    D/inventory.yml                 the hosts api1, api2 and db, all on this machine
    D/group_vars/all/catalog.yml    the catalog
    D/group_vars/all/secrets.yml    the owner's connection string, 0600
    D/hosts/<host>/state            what the collection keeps there
    D/hosts/<api>/.env              what the instance reads at its start
    D/seed.json                     what lies in the tables, for demo.client; 0600
    D/stack.json                    how to find all this again; 0600
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from demo import cells
from demo.client import ClientOptions, ClientProcess
from demo.daemon import stop
from demo.dotenv import read_env
from demo.postgres import Database, PostgresServer, free_port
from demo.schema import Seed, create_tables, fill, generate_jwks
from demo.verify import Model, Report, verify, verify_lookups

__all__ = ["APIS", "HOSTS", "SECRET", "Stack", "StackError", "main"]

#: The hosts that run an instance of the service; the services have the same names.
APIS = ("api1", "api2")
HOSTS = (*APIS, "db")
SECRET = "JWK_AES_KEY"
_ROOT = Path(__file__).resolve().parent.parent
_DISTINCT_KEYS = 20
_SECONDS = 60


class StackError(RuntimeError):
    """Something of the stack did not start or stop."""


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as stream:
        stream.write(text)


class Stack:
    """One stack; several live side by side, each with ports and a database of its own.

    :param folder: made by :meth:`up`; an existing one is taken up again as it is.
    :param rows: rows of ``jwks_keys``; one in a hundred of them is in clear unless ``plain`` says how many.
    :param tokens: rows of ``api_tokens``.
    :param encrypted: with False the service begins without a key and every row is in clear.
    :param server: a running server to make a database in; with None the stack has a server of its own.
    :param database: the database's name, which on a shared server must be free.
    :param jwks: key pairs for the rows, to save the time of making some; see :func:`demo.schema.generate_jwks`.
    :param durable: whether a server of its own syncs to the disk.
    :param apis: the hosts that run an instance.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rows: int = 20_000,
        plain: int | None = None,
        tokens: int = 200,
        encrypted: bool = True,
        server: PostgresServer | None = None,
        database: str = "app",
        jwks: Sequence[dict[str, str]] | None = None,
        durable: bool = True,
        apis: Sequence[str] = APIS,
    ) -> None:
        self.folder = folder.resolve()
        self._rows = rows
        self._plain = plain
        self._tokens = tokens
        self._encrypted = encrypted
        self._shared = server is not None
        self._server = server
        self._database_name = database
        self._database: Database | None = None
        self._jwks = jwks
        self._durable = durable
        self._ports: dict[str, int] = {}
        self.apis = tuple(apis)

    def __enter__(self) -> Stack:
        """Bring it up."""
        try:
            self.up()
        except BaseException:
            self.remove_database()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and delete its data; the folder's other files stay."""
        try:
            self.stop_services()
        finally:
            self.remove_database()

    # -- places --------------------------------------------------------------------------------------------------

    @property
    def inventory(self) -> Path:
        """The Ansible inventory; the catalog lies in ``group_vars`` beside it."""
        return self.folder / "inventory.yml"

    @property
    def seed_file(self) -> Path:
        """What lay in the tables at first."""
        return self.folder / "seed.json"

    @property
    def server(self) -> PostgresServer:
        """The database server."""
        if self._server is None:
            raise StackError("the stack is not up")
        return self._server

    @property
    def database(self) -> Database:
        """The database, with the connection URLs of its owner and of the application."""
        if self._database is None:
            raise StackError("the stack is not up")
        return self._database

    @property
    def seed(self) -> Seed:
        """What lay in the tables at first."""
        return Seed.load(self.seed_file)

    @property
    def urls(self) -> list[str]:
        """The base URLs of all instances."""
        return [self.url(name) for name in self.apis]

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts of the inventory."""
        return (*self.apis, "db")

    def host_folder(self, host: str) -> Path:
        """The folder that stands for a host."""
        return self.folder / "hosts" / host

    def state_dir(self, host: str) -> Path:
        """Where the collection keeps its state on a host."""
        return self.host_folder(host) / "state"

    def env_file(self, host: str) -> Path:
        """The dotenv file of an instance."""
        return self.host_folder(host) / ".env"

    def log_file(self, host: str) -> Path:
        """The log of an instance."""
        return self.host_folder(host) / "service.log"

    def url(self, host: str) -> str:
        """The base URL of an instance."""
        return f"http://127.0.0.1:{self._ports[host]}"

    def key(self, host: str = APIS[0]) -> bytes | None:
        """The key that an instance's dotenv file holds now."""
        text = read_env(self.env_file(host)).get(SECRET, "")
        return cells.parse_key(text) if text else None

    # -- life ----------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Make what is missing and start what does not run."""
        if (self.folder / "stack.json").exists():
            self._find()
            if not self.server.running:
                self.server.start()
        else:
            try:
                self._create()
            except BaseException:
                self.remove_database()
                raise
        self.start_services()

    @classmethod
    def attach(cls, folder: Path) -> Stack:
        """A stack that was made before, as it is: nothing is started.

        :raises StackError: when there is none in this folder.
        """
        if not (folder / "stack.json").exists():
            raise StackError(f"{folder}: no stack was made here")
        stack = cls(folder)
        stack._find()
        return stack

    def down(self) -> None:
        """Stop the services, and the server if it is the stack's own; everything can be started again."""
        self.stop_services()
        if not self._shared:
            self.server.stop()

    def remove(self) -> None:
        """Stop everything and delete it, the folder too."""
        self.stop_services()
        self.remove_database()
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_database(self) -> None:
        """Delete the stack's own server, or its database on a shared one."""
        if self._server is None:
            return
        if not self._shared:
            self._server.remove()
        elif self._database is not None:
            self._server.drop_database(self._database.name)

    def _find(self) -> None:
        record = json.loads((self.folder / "stack.json").read_text(encoding="utf-8"))
        self._ports = record["ports"]
        self.apis = tuple(self._ports)
        self._database = Database(**record["database"])
        self._server = PostgresServer(Path(record["server"]))
        self._shared = record["shared"]

    def _create(self) -> None:
        for host in self.hosts:
            self.host_folder(host).mkdir(parents=True, exist_ok=True)
            self.state_dir(host).mkdir(mode=0o700, exist_ok=True)
        with ThreadPoolExecutor(1) as aside:
            jwks = None if self._jwks is not None else aside.submit(generate_jwks, _DISTINCT_KEYS)
            if self._server is None:
                self._server = PostgresServer.create(self.host_folder("db"), durable=self._durable)
                self._server.start()
            self._database = self._server.create_database(self._database_name)
            create_tables(self._database.owner_dsn, self._database.app_role)
            pairs = self._jwks if jwks is None else jwks.result()
        key = secrets.token_bytes(32) if self._encrypted else None
        assert pairs is not None
        seed = fill(self._database.owner_dsn, key, pairs, rows=self._rows, plain=self._plain, tokens=self._tokens)
        seed.save(self.seed_file)
        while len(set(self._ports.values())) < len(self.apis):
            self._ports = {name: free_port() for name in self.apis}
        self._write_env(key)
        self._write_inventory()
        record = {
            "ports": self._ports,
            "database": asdict(self._database),
            "server": str(self._server.folder),
            "shared": self._shared,
        }
        _write(self.folder / "stack.json", json.dumps(record, indent=2), 0o600)

    def _write_env(self, key: bytes | None) -> None:
        lines = ["# settings of the sample service", f"DATABASE_URL={self.database.app_dsn}", "LOG_LEVEL=info"]
        if key is not None:
            lines.append(f"{SECRET}={base64.urlsafe_b64encode(key).rstrip(b'=').decode()}")
        for name in self.apis:
            _write(self.env_file(name), "\n".join(lines) + "\n", 0o600)

    def _write_inventory(self) -> None:
        hosts = {host: {"keyturn_state_dir": str(self.state_dir(host))} for host in self.hosts}
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {"all": {"vars": local, "children": {"api": {"hosts": {n: hosts[n] for n in self.apis}}}}}
        inventory["all"]["hosts"] = {"db": hosts["db"]}
        _write(self.inventory, yaml.safe_dump(inventory, sort_keys=False))
        variables = self.folder / "group_vars" / "all"
        variables.mkdir(parents=True, exist_ok=True)
        _write(variables / "catalog.yml", yaml.safe_dump(self._catalog(), sort_keys=False, width=120))
        _write(variables / "secrets.yml", yaml.safe_dump({"vault_app_dsn": self.database.owner_dsn}), 0o600)

    def _catalog(self) -> dict[str, Any]:
        services = {
            name: {
                "hosts": name,
                "manager": "command",
                "start": self._start_command(name),
                "stop": self._stop_command(name),
                "health": {"url": f"{self.url(name)}/health"},
                "quiesce": "stop",
            }
            for name in self.apis
        }
        lookup = {"database": "app", "table": "api_tokens", "column": "token_lookup"}
        secret = {
            "kind": "encryption_key",
            "strategy": "cutover",
            "generate": {"type": "bytes", "length": 32, "encoding": "base64url"},
            "stores": [
                {"hosts": name, "type": "env_file", "path": str(self.env_file(name)), "if_missing": "add"}
                if not self._encrypted
                else {"hosts": name, "type": "env_file", "path": str(self.env_file(name))}
                for name in self.apis
            ],
            "data": [
                {
                    "database": "app",
                    "table": "jwks_keys",
                    "column": "private_jwk",
                    "envelope": "aes256gcm-b64",
                    "plaintext": "encrypt",
                }
            ],
            "clear": [lookup],
            "indexes": [{**lookup, "name": "api_tokens_token_lookup_idx"}],
            "consumers": list(self.apis),
            "probes": [
                {
                    "name": f"{name} reads a row",
                    "hosts": name,
                    "type": "http",
                    "url": f"{self.url(name)}/health",
                    "expect": 200,
                    "version": "none",
                }
                for name in self.apis
            ],
            "cryptoperiod": "90d",
            "overlap_min": "0s",
        }
        return {
            "keyturn_state_host": "db",
            "keyturn_databases": {"app": {"hosts": "db", "dsn": "{{ vault_app_dsn }}"}},
            "keyturn_services": services,
            "keyturn_secrets": {SECRET: secret},
        }

    # -- services ------------------------------------------------------------------------------------------------

    def _program(self, name: str) -> list[str]:
        service = ["/usr/bin/env", f"PYTHONPATH={_ROOT}", sys.executable, "-m", "demo.service"]
        return [*service, "--pid-file", str(self._pid_file(name))]

    def _pid_file(self, name: str) -> Path:
        return self.host_folder(name) / "service.pid"

    def _start_command(self, name: str) -> list[str]:
        files = ["--env", str(self.env_file(name)), "--log", str(self.log_file(name))]
        return [*self._program(name), "--port", str(self._ports[name]), *files]

    def _stop_command(self, name: str) -> list[str]:
        return [*self._program(name), "--stop"]

    def _run(self, commands: Sequence[Sequence[str]]) -> None:
        """Run commands side by side.

        :raises StackError: when one fails.
        """
        running = [
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for command in commands
        ]
        told = [process.communicate(timeout=_SECONDS)[1].decode() for process in running]
        if any(process.returncode for process in running):
            raise StackError(" ".join(told).strip())

    def start_services(self, *names: str) -> None:
        """Start instances, all of them if none is named; they listen when this returns."""
        self._run([self._start_command(name) for name in names or self.apis])

    def stop_services(self, *names: str) -> None:
        """Stop instances after their open requests, all of them if none is named."""
        with ThreadPoolExecutor(len(self.apis)) as waiting:
            list(waiting.map(stop, [self._pid_file(name) for name in names or self.apis]))

    def restart_services(self, *names: str) -> None:
        """Stop and start instances, so that they read their dotenv files again."""
        self.stop_services(*names)
        self.start_services(*names)

    # -- database ------------------------------------------------------------------------------------------------

    def crash_database(self) -> None:
        """End the server with no shutdown."""
        self.server.crash()

    def restart_database(self) -> None:
        """Start the server again, after a crash or while it runs."""
        self.server.stop()
        self.server.start()

    # -- use -----------------------------------------------------------------------------------------------------

    def client(
        self,
        *,
        rate: float = 100.0,
        workers: int = 4,
        failover: bool = True,
        model: Path | None = None,
        retry_seconds: float = 30.0,
    ) -> ClientProcess:
        """Start a client process and return once it is served."""
        options = ClientOptions(self.urls, rate, workers, failover, retry_seconds=retry_seconds)
        client = ClientProcess(options, self.seed_file, self.folder / "client.json", model)
        client.wait_running()
        return client

    def verify(self, model: Model | None = None, *, key: bytes | None = None, plaintext_ok: bool = False) -> Report:
        """Judge the rows: under the key of the first dotenv file unless another is given; see :mod:`demo.verify`."""
        if model is None:
            model = {row_id: [v] for row_id, v in self.seed.rows.items()}
        key = self.key() if key is None else key
        return verify(model, self.database.owner_dsn, key, plaintext_ok=plaintext_ok)

    def verify_lookups(self) -> Report:
        """Judge the lookups of the API tokens."""
        return verify_lookups(self.seed.tokens, self.database.owner_dsn, self.key())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.stack", description="Bring the sample stack up or down.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make what is missing, start what does not run")
    up.add_argument("--rows", type=int, default=20_000)
    up.add_argument("--tokens", type=int, default=200)
    up.add_argument("--plaintext", action="store_true", help="begin without a key")
    down = commands.add_parser("down", help="stop everything")
    down.add_argument("--remove", action="store_true", help="delete everything too")
    for command in (up, down):
        command.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        if options.command == "up":
            started = time.monotonic()
            stack = Stack(options.dir, rows=options.rows, tokens=options.tokens, encrypted=not options.plaintext)
            stack.up()
            print(f"up after {time.monotonic() - started:.1f} s: {' '.join(stack.urls)}, inventory {stack.inventory}")
        else:
            stack = Stack.attach(options.dir)
            if options.remove:
                stack.remove()
            else:
                stack.down()
            print("down")
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
