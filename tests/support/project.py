# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts with a project folder each: a dotenv file with a token, services that note their restarts, no database."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import yaml

from tests.support.controller import Controller, Ended, registry
from tests.support.local import LOCAL

__all__ = ["FIRST", "SECRET", "Project"]

SECRET = "API_TOKEN"
FIRST = "first-value-of-this-token"
_ROOT = Path(__file__).resolve().parents[2]
_READER, _OTHER = "api", "web"


class Project:
    """The hosts below a test's folder; their names are like no other test's.

    :param backup: ``keyturn_backup``.
    """

    def __init__(self, folder: Path, backup: dict[str, Any] | None = None, **variables: Any) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex[:8]
        self.hosts = (f"one-{self.mark}", f"two-{self.mark}")
        self.inventory = folder / "inventory.yml"
        tasks = folder / "collections/ansible_collections/example/kinds/roles/token/tasks"
        tasks.mkdir(parents=True)
        refuse = {"msg": "not here"}
        condition = "lookup('ansible.builtin.fileglob', keyturn_project_dir ~ '/refuse') | length > 0"
        preflight = [{"name": "Refuse", "ansible.builtin.fail": refuse, "when": condition}]
        (tasks / "preflight.yml").write_text(yaml.safe_dump(preflight))
        for host in self.hosts:
            self.project(host).mkdir(parents=True)
            self.env(host).touch(0o600)
            self.env(host).write_text(f"A=1\n{SECRET}={FIRST}\n")
        self.write(backup, **variables)
        paths = f"{folder / 'collections'}:{_ROOT / '.build'}"
        self.controller = Controller(folder / "home", {"ANSIBLE_COLLECTIONS_PATH": paths})

    def write(self, backup: dict[str, Any] | None = None, **variables: Any) -> None:
        """Write the inventory with the catalog."""
        note = [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write('x')"]
        catalog = {
            "keyturn_state_host": self.hosts[0],
            "keyturn_backup": {"retention_days": 30, **(backup or {})},
            "keyturn_services": {
                name: {
                    "hosts": self.hosts[1],
                    "manager": "command",
                    "start": [*note, str(self.folder / f"restarts-{name}")],
                    "stop": ["true"],
                    "restart": [*note, str(self.folder / f"restarts-{name}")],
                    "health": {"command": ["true"]},
                }
                for name in (_READER, _OTHER)
            },
            "keyturn_secrets": {
                SECRET: {
                    "kind": "example.kinds.token",
                    "generate": {"type": "string", "length": 32},
                    "stores": [{"hosts": host, "type": "env_file", "path": str(self.env(host))} for host in self.hosts],
                    "consumers": [_READER],
                }
            },
            **variables,
        }
        hosts = {
            host: {"keyturn_state_dir": str(self.state(host)), "keyturn_project_dir": str(self.project(host))}
            for host in self.hosts
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": hosts}}))

    def project(self, host: str) -> Path:
        """A host's project folder."""
        return self.folder / host / "project"

    def state(self, host: str) -> Path:
        """A host's state folder."""
        return self.folder / host / "state"

    def env(self, host: str) -> Path:
        """A host's dotenv file."""
        return self.project(host) / ".env"

    def backups(self, host: str) -> list[Path]:
        """A host's backups, the oldest first."""
        return sorted(self.project(host).glob("backups/secrets/[!.]*"))

    def older_backup(self, host: str, value: str) -> None:
        """Make a backup as the older program leaves it."""
        folder = self.project(host) / "backups/secrets/secrets-backup-20251031-143000"
        folder.mkdir(parents=True)
        (folder / ".env").write_text(f"A=1\n{SECRET}={value}\n")
        services = [_READER, _OTHER, "kong"]
        metadata = {"timestamp": "20251031-143000", "rotated_secrets": [SECRET], "affected_services": services}
        (folder / "metadata.json").write_text(json.dumps(metadata))

    def values(self) -> set[str]:
        """The values that the hosts hold."""
        return {self.env(host).read_text().split(f"{SECRET}=")[1].strip() for host in self.hosts}

    def restarts(self, service: str = _READER) -> int:
        """How often a service was restarted: the one that reads the token, or another one."""
        path = self.folder / f"restarts-{service}"
        return len(path.read_text()) if path.exists() else 0

    def run(self, playbook: str, *arguments: str, **variables: Any) -> Ended:
        """Run a playbook; no value of before may show in what it prints."""
        ended = self.controller.run(self.inventory, playbook, *arguments, **variables)
        assert FIRST not in ended.output
        return ended

    def left_in_tmp(self) -> list[str]:
        """What runs about these hosts have left in /tmp."""
        return sorted(path.name for path in Path("/tmp").glob(f"keyturn-check-*{self.mark}"))

    def statuses(self) -> list[str]:
        """The statuses of all rotations."""
        return [rotation["status"] for rotation in registry(self.state(self.hosts[0]))["rotations"].values()]
