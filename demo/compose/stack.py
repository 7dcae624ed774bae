# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts with a Compose project each, on one Docker daemon, in one folder.

What lies there:

D/inventory.yml                  the hosts core and jobs, both on this machine
D/secrets-config.yaml            the catalog
D/group_vars/all/keyturn.yml     what is laid over it
D/core/keyturn-shop, …           the projects: compose.yml, dotenv files, faults/
D/core/keyturn.dsn               who may change passwords in PostgreSQL; 0600
D/<host>/state                   what the collection keeps there
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import jwt
import yaml

from demo.dockerd import build_target
from demo.dotenv import read_env

__all__ = ["HOSTS", "SECRETS", "Stack", "StackError"]

HOSTS = ("core", "jobs")
#: What turns, and with what else: a child follows its parent.
SECRETS = ("ANON_KEY", "JWT_SECRET", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "SERVICE_ROLE_KEY", "SESSION_SECRET")
_HERE = Path(__file__).resolve().parent
_NETWORK = "keyturn-demo"
_BRIDGE = "keyturn1"
_PROJECTS = {"core": "keyturn-shop", "jobs": "keyturn-jobs"}
_DAY = 86_400


class StackError(RuntimeError):
    """Something of the stack did not start."""


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as stream:
        stream.write(text)


def _token(role: str, secret: str, days: int) -> str:
    now = int(time.time())
    return jwt.encode({"role": role, "iss": "supabase", "iat": now, "exp": now + days * _DAY}, secret, "HS256")


class Stack:
    """The stack in a folder; nothing is started by making one.

    :param docker_host: the daemon's address; by default the one it was made with.
    """

    def __init__(self, folder: Path, docker_host: str = "") -> None:
        self.folder = folder.resolve()
        self.docker_host = docker_host or self._noted("stack_docker_host")
        self.network = self._noted("stack_network") or os.environ.get("KEYTURN_DEMO_NETWORK") or "172.31.252"

    def __enter__(self) -> Stack:
        """Start it."""
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it."""
        self.down()

    # -- places --------------------------------------------------------------------------------------------------

    @property
    def inventory(self) -> Path:
        """The Ansible inventory."""
        return self.folder / "inventory.yml"

    @property
    def gateway(self) -> str:
        """The address that its users know."""
        return f"http://{self.network}.12"

    def address(self, service: str) -> str:
        """The address of the database or of Redis."""
        return f"{self.network}.{ {'db': 10, 'cache': 11}[service] }"

    def project(self, host: str) -> Path:
        """The folder of a host's project."""
        return self.folder / host / _PROJECTS[host]

    def state_dir(self, host: str) -> Path:
        """Where the collection keeps its state on a host."""
        return self.folder / host / "state"

    @property
    def env_files(self) -> list[Path]:
        """Every dotenv file."""
        return [self.project("core") / ".env", self.project("core") / "auth/.env", self.project("jobs") / ".env"]

    def values(self) -> dict[str, str]:
        """What the files say, by ``host/project/file:NAME``."""
        return {
            f"{path.relative_to(self.folder)}:{name}": value
            for path in self.env_files
            for name, value in read_env(path).items()
        }

    def value(self, name: str) -> str:
        """One value, from the first file that has it."""
        return next(read_env(path)[name] for path in self.env_files if name in read_env(path))

    def _noted(self, name: str) -> str:
        if not self.inventory.exists():
            return ""
        return str(yaml.safe_load(self.inventory.read_text(encoding="utf-8"))["all"]["vars"][name])

    # -- life ----------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Make what is missing and start what does not run.

        :raises StackError: when something does not start.
        """
        if not self.inventory.exists():
            self._create()
        options = [f"--subnet={self.network}.0/24", f"--opt=com.docker.network.bridge.name={_BRIDGE}"]
        self._docker("network", "inspect", _NETWORK, fallback=["network", "create", *options, _NETWORK])
        for host in HOSTS:
            self.compose(host, "up", "--detach", "--wait")
            if host == "core" and not (self.folder / "core/keyturn.dsn").exists():
                self._add_admin()

    def down(self) -> None:
        """Remove containers, data, network and folder."""
        for host in reversed(HOSTS):
            if (self.project(host) / "compose.yml").exists():
                self.compose(host, "down", "--volumes", "--timeout=2")
        self._docker("network", "rm", _NETWORK, fallback=["version"])
        shutil.rmtree(self.folder, ignore_errors=True)

    def compose(self, host: str, *arguments: str, given: str = "") -> str:
        """Run Docker Compose in the project of a host; what it prints."""
        return self._docker("compose", "--project-directory", str(self.project(host)), *arguments, given=given)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the daemon says of the container of each service."""
        found = {}
        for host in HOSTS:
            ids = self.compose(host, "ps", "--all", "--quiet").split()
            for entry in json.loads(self._docker("inspect", *ids)):
                found[str(entry["Config"]["Labels"]["com.docker.compose.service"])] = entry
        return found

    def _docker(self, *arguments: str, given: str = "", fallback: list[str] | None = None) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            input=given,
            env={**os.environ, "DOCKER_HOST": self.docker_host},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and fallback:
            return self._docker(*fallback)
        if done.returncode:
            raise StackError(f"docker {' '.join(arguments)}: {done.stderr[-1500:]}")
        return done.stdout

    # -- making it -----------------------------------------------------------------------------------------------

    def _create(self) -> None:
        tags = {build_target(self.docker_host, _NETWORK, _HERE / "images", name).partition(":")[2]
                for name in ("db", "cache", "gateway", "app")}  # fmt: skip
        (tag,) = tags  # it stands for the content of all of them
        for host in HOSTS:
            project = self.project(host)
            shutil.copytree(_HERE / "files" / _PROJECTS[host], project, dirs_exist_ok=True)
            (project / "faults").mkdir(exist_ok=True)
            self.state_dir(host).mkdir(mode=0o700, exist_ok=True)
        self._write_settings(f"IMAGE_TAG={tag}\nSUBNET={self.network}\n")
        shutil.copy(_HERE / "files/secrets-config.yaml", self.folder)
        _write(self.folder / "group_vars/all/keyturn.yml", (_HERE / "files/keyturn.yml").read_text(encoding="utf-8"))
        given = {
            "ansible_connection": "{{ lookup('ansible.builtin.env', 'KEYTURN_CONNECTION') or 'local' }}",
            "ansible_python_interpreter": sys.executable,
            "stack_dir": str(self.folder),
            "stack_docker_host": self.docker_host,
            "stack_network": self.network,
        }
        hosts = {host: {"keyturn_state_dir": str(self.state_dir(host))} for host in HOSTS}
        _write(self.inventory, yaml.safe_dump({"all": {"vars": given, "hosts": hosts}}, sort_keys=False))

    def _write_settings(self, common: str) -> None:
        """The first values, in files as people write them."""
        signer, database, cache, session = (secrets.token_hex(20) for _number in range(4))
        admin = _token("service_role", signer, 90)
        core, auth, jobs = self.env_files
        _write(core, (
            f"# shop: what Compose fills in\n{common}\n# database\nPOSTGRES_PASSWORD='{database}'\n"
            f'export REDIS_PASSWORD="{cache}"\n\nJWT_SECRET={signer}\nANON_KEY={_token("anon", signer, 365)}\n'
            f"SERVICE_ROLE_KEY={admin}\nDASHBOARD_USERNAME=shopkeeper # chosen by people\n"
        ), 0o600)  # fmt: skip
        _write(auth, f"JWT_SECRET={signer}\nSESSION_SECRET={session}", 0o600)
        _write(jobs, (
            f'{common}DATABASE_URL="postgres://app:{database}@db/app"\nREDIS_PASSWORD={cache}\n'
            f"SERVICE_ROLE_KEY={admin}\n"
        ), 0o600)  # fmt: skip

    def _add_admin(self) -> None:
        """A role that may change the password of the application's."""
        password = secrets.token_urlsafe(24)
        statements = [
            f"CREATE ROLE keyturn LOGIN CREATEROLE PASSWORD '{password}';",
            "GRANT app TO keyturn WITH ADMIN OPTION;",
            "GRANT pg_monitor TO keyturn;",
        ]
        client = ["psql", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname=postgres"]
        self.compose("core", "exec", "--no-TTY", "db", *client, given="\n".join(statements))
        dsn = f"postgresql://keyturn:{password}@{self.address('db')}:5432/app"
        _write(self.folder / "core/keyturn.dsn", dsn, 0o600)
