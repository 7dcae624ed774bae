# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts without a database: one with the project of a ``secrets-config.yaml``, one whose files share its values."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.dotenv import parse

from tests.support.canaries import Canaries
from tests.support.controller import registry
from tests.support.local import LOCAL

__all__ = ["AUTO", "CASE", "HELD", "OWNER", "VECTORS", "EnvProject", "read_env"]

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "002_secrets_config.json").read_text())
#: What turns when everything is asked for, with the services that restart and their order.
CASE = VECTORS["cases"][0]
AUTO = CASE["secrets"]
#: What the catalog as it is cannot turn without harm.
HELD = ["N8N_ENCRYPTION_KEY", "PG_META_CRYPTO_KEY", "POSTGRES_PASSWORD", "VAULT_ENC_KEY"]
_SERVICES = VECTORS["parsed"]["service_dependencies"]
#: Who owns the files of host ``two``, and their mode.
OWNER = (1234, 1235, 0o640)
#: A password that no URL holds as it is.
PASSWORD = "fake/qcEo1@MjFEuBVm:75jmEeMwSyQ%JFdD"
_SHORTEST = 19


def read_env(path: Path) -> dict[str, str]:
    """The variables of a dotenv file."""
    return _variables(path.read_bytes())


def _variables(content: bytes) -> dict[str, str]:
    return {line.name: line.value or "" for line in parse(content).lines if line.name}


class EnvProject:
    """The hosts below a test's folder.

    :param variables: more of the inventory's variables.
    """

    def __init__(self, folder: Path, **variables: Any) -> None:
        self.folder = folder
        self.inventory = folder / "inventory.yml"
        self.restarts = folder / "restarts"
        self.project = folder / "one" / "project"
        self.files = {
            "main": self.project / ".env",
            "docker": self.project / "supabase/docker/.env",
            "other": folder / "two/app/.env",
            "kong": folder / "two/app/kong.yml",
        }
        before = VECTORS["env_before"]
        plain = _variables(before[".env"].encode())
        main = before[".env"].replace(plain["DASHBOARD_PASSWORD"], f"'{PASSWORD}'  # of people")
        main += f'CRAWL_URL=http://crawl/?key=${{CRAWL4AI_API_KEY}}\nGRAFANA_TOKEN="{plain["LOGFLARE_API_KEY"]}"'
        encoded = base64.b64encode(plain["CRAWL4AI_API_KEY"].encode()).decode()
        texts = {
            "main": main,
            "docker": before["supabase/docker/.env"].replace(plain["DASHBOARD_PASSWORD"], f'"{PASSWORD}"'),
            "other": (
                f"\ufeff# of the other host\r\nexport JWT_SECRET='{plain['JWT_SECRET']}'\r\n\r\n"
                f'ANON_KEY = "{plain["ANON_KEY"]}"   # for browsers\r\n'
                f"AUTH_URL=https://birch:{quote(PASSWORD, safe='')}@kong:8443/auth?x=1\r\n"
            ),
            "kong": f'users:\n  - name: birch\n    password: "{PASSWORD}"  # basic auth\n',
        }
        for name, text in texts.items():
            path = self.files[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)
            path.write_bytes(text.encode())
        for name in ("other", "kong"):
            os.chown(self.files[name], *OWNER[:2])
            self.files[name].chmod(OWNER[2])
        (self.project / "docker-compose.yml").write_text(f"services: {{crawl: {{command: run {encoded}}}}}\n")
        (folder / "secrets-config.yaml").write_text(VECTORS["yaml"])
        self.write(**variables)

    def write(self, overlay: dict[str, Any] | None = None, **variables: Any) -> None:
        """Write the inventory.

        :param overlay: laid over the stores of host ``two``.
        """
        catalog = {
            "keyturn_state_host": "one",
            "keyturn_catalog_file": "secrets-config.yaml",
            "keyturn_project": {"hosts": "one", "directory": str(self.project), "files": ["docker-compose.yml"]},
            "keyturn_services_overlay": {
                name: self._service(name) for name in VECTORS["parsed"]["service_dependencies"]
            },
            "keyturn_overlay": {
                "JWT_SECRET": {"more_stores": [self._store("other")], "cryptoperiod": "90d"},
                "ANON_KEY": {"more_stores": [self._store("other")], "lifetime": "1y", "cryptoperiod": "90d"},
                "DASHBOARD_PASSWORD": {
                    "charset": "base64",
                    "length": 40,
                    "more_stores": [
                        self._store("other", variable="AUTH_URL", inside="url"),
                        self._store("kong", type="file", inside={"pattern": 'password: "([^"]+)"'}),
                    ],
                },
            },
            "keyturn_overlay_of_the_test": overlay or {},
            **variables,
        }
        hosts = {host: {"keyturn_state_dir": str(self.state(host))} for host in ("one", "two")}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": hosts}}))

    def _service(self, name: str) -> dict[str, Any]:
        """What they are made of is not the subject here: each notes its restarts."""
        note = ["sh", "-c", 'echo "$0" >> "$1"', name, str(self.restarts)]
        command = {"manager": "command", "start": note, "stop": ["true"], "restart": note}
        return {**command, "health": {"command": ["true"]}}

    def _store(self, name: str, **more: Any) -> dict[str, Any]:
        return {"hosts": "two", "type": "env_file", "path": str(self.files[name]), **more}

    def state(self, host: str) -> Path:
        """A host's state folder."""
        return self.folder / host / "state"

    def values(self, name: str = "main") -> dict[str, str]:
        """The variables of one of the files."""
        return read_env(self.files[name])

    def bytes(self) -> dict[str, bytes]:
        """All files as they are."""
        return {name: path.read_bytes() for name, path in self.files.items()}

    def statuses(self) -> list[str]:
        """The statuses of all rotations, in their order."""
        return [rotation["status"] for _id, rotation in sorted(registry(self.state("one"))["rotations"].items())]

    def add_values(self, canaries: Canaries) -> None:
        """Look for every value that the files hold now, and for the keys of the hosts."""
        for name in ("main", "docker", "other"):
            for variable, value in self.values(name).items():
                if len(value) >= _SHORTEST and "://" not in value and "_URL" not in variable:
                    canaries.add(f"{variable} {len(canaries.names)}", value)
        canaries.add(f"kong {len(canaries.names)}", self.files["kong"].read_text().split('"')[1])
