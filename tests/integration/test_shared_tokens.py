# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens that several services share, as ``docs/coming-from/shared-tokens.md`` shows them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo.dotenv import read_env

from tests.support.controller import Controller, Ended, registry
from tests.support.local import LOCAL

_TOKEN, _METRICS = "AGENT_SERVICE_TOKEN", "METRICS_API_KEY"
_FIRST = {_TOKEN: "ab" * 32, _METRICS: "JxWE/I9mmISPBqgx1KQgGO2cTUA7n144hG2Et7zPxYc="}
_HOSTS = ("api", "agents", "monitor")
#: Exits with 0 where the value on its standard input is one of those that the API has loaded.
_ACCEPTS = """\
import sys
loaded = dict(line.rstrip("\\n").split("=", 1) for line in open(sys.argv[1]))
sys.exit(0 if sys.stdin.read() in loaded[sys.argv[2]].split(",") else 1)
"""
#: Stands for a cluster: a Secret is applied from a file, and pods have it once they were rolled out.
_KUBECTL = """\
#!/bin/sh
case "$1 $2" in
  "create secret") cp "{folder}/secret.env" "{folder}/applied" ;;
  "rollout restart") cp "{folder}/applied" "{folder}/running" ;;
  "rollout status") test -f "{folder}/running" ;;
esac
"""


class _Services:
    """An API that takes two tokens, agents that send one; a monitor whose tools send another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.controller = Controller(folder / "controller")
        for host in _HOSTS:
            (folder / host).mkdir()
        files = {
            "api/.env": f"LEVEL=info\n{_TOKEN}={_FIRST[_TOKEN]}\n",
            "agents/.env": f"{_TOKEN}={_FIRST[_TOKEN]}\n",
            "api/secret.env": f"{_METRICS}={_FIRST[_METRICS]}\n",
            "monitor/prometheus.yml": f"    bearer_token: '{_FIRST[_METRICS]}'\n",
            "monitor/prometheus.yaml": f"    httpHeaderValue1: 'Bearer {_FIRST[_METRICS]}'\n",
        }
        for name, text in files.items():
            (folder / name).touch(0o600)
            (folder / name).write_text(text)
        (folder / "accepts.py").write_text(_ACCEPTS)
        self.kubectl = folder / "kubectl"
        self.kubectl.write_text(_KUBECTL.format(folder=folder / "api"))
        self.kubectl.chmod(0o700)
        for host in ("api", "agents"):
            (folder / host / "loaded").write_text(files[f"{host}/.env"])
        (folder / "api/running").write_text(files["api/secret.env"])
        self.inventory = folder / "inventory.yml"
        self.write()

    def _service(self, host: str, **more: Any) -> dict[str, Any]:
        folder = self.folder / host
        load = f"cp {folder}/.env {folder}/loaded && echo {host} >> {self.folder}/starts"
        return {
            "hosts": host,
            "manager": "command",
            "start": ["sh", "-c", load],
            "stop": ["rm", "-f", str(folder / "loaded")],
            "health": {"command": ["test", "-f", str(folder / "loaded")]},
            **more,
        }

    def _probe(self, file: str, secret: str, version: str, **more: Any) -> dict[str, Any]:
        command = [sys.executable, str(self.folder / "accepts.py"), str(self.folder / "api" / file), secret]
        return {"type": "command", "hosts": "api", "version": version, "command": command, **more}

    def write(self) -> None:
        """Write the inventory with the catalog."""
        api, monitor = self.folder / "api", self.folder / "monitor"
        roll_out = (
            f"{self.kubectl} create secret generic metrics-auth --from-env-file={api}/secret.env"
            f" && {self.kubectl} rollout restart deployment/agent-api"
        )
        services = {
            "api": self._service("api"),
            "agents": self._service("agents", depends_on=["api"]),
            "agent-api": {
                "hosts": "api",
                "manager": "command",
                "start": ["sh", "-c", roll_out],
                "stop": ["true"],
                "restart": ["sh", "-c", roll_out],
                "health": {"command": [str(self.kubectl), "rollout", "status", "deployment/agent-api"]},
            },
            "prometheus": {
                "hosts": "monitor",
                "manager": "command",
                "start": ["sh", "-c", f"cp {monitor}/prometheus.yml {monitor}/scraping"],
                "stop": ["true"],
                "health": {"command": ["true"]},
                "depends_on": ["agent-api"],
            },
        }
        none = dict.fromkeys(
            ("token_lifetime", "refresh_lifetime", "jwks_max_age", "gateway_cache", "reload", "skew"), "0s"
        )
        secrets = {
            _TOKEN: {
                "kind": "env_secret",
                "strategy": "overlap",
                "generate": {"type": "bytes", "length": 32, "encoding": "hex"},
                "stores": [
                    {"hosts": "api", "type": "env_file", "path": str(api / ".env"), "layout": "list"},
                    {"hosts": "agents", "type": "env_file", "path": str(self.folder / "agents/.env")},
                ],
                "consumers": ["api", "agents"],
                "window": none,
                "probes": [
                    self._probe("loaded", _TOKEN, "new"),
                    self._probe("loaded", _TOKEN, "old", name="agents of before get in"),
                    self._probe("loaded", _TOKEN, "old", refused=True, name="agents of before are refused"),
                ],
            },
            _METRICS: {
                "kind": "env_secret",
                "generate": {"type": "bytes", "length": 32, "encoding": "base64"},
                "stores": [
                    {"hosts": "api", "type": "env_file", "path": str(api / "secret.env")},
                    {
                        "hosts": "monitor",
                        "type": "file",
                        "path": str(monitor / "prometheus.yml"),
                        "inside": {"pattern": "bearer_token: '([^']+)'"},
                    },
                    {
                        "hosts": "monitor",
                        "type": "file",
                        "path": str(monitor / "prometheus.yaml"),
                        "inside": {"pattern": "httpHeaderValue1: 'Bearer ([^']+)'"},
                    },
                ],
                "consumers": ["agent-api", "prometheus"],
                "probes": [self._probe("running", _METRICS, "new")],
                "cryptoperiod": "90d",
            },
        }
        catalog = {"keyturn_state_host": "api", "keyturn_services": services, "keyturn_secrets": secrets}
        hosts = {host: {"keyturn_state_dir": str(self.folder / host / "state")} for host in _HOSTS}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": hosts}}))

    def run(self, playbook: str, name: str, **variables: Any) -> Ended:
        """Run a playbook for one secret."""
        ended = self.controller.run(self.inventory, playbook, only=name, **variables)
        assert ended.code == 0, ended.output
        return ended

    def held(self, file: str, name: str) -> list[str]:
        """The values in a dotenv file."""
        return read_env(self.folder / file)[name].split(",")

    def starts(self) -> list[str]:
        """Who was started since the last call, in order."""
        log = self.folder / "starts"
        found = log.read_text().split()
        log.write_text("")
        return found

    def status(self) -> str:
        """The status of the last rotation."""
        return str(list(registry(self.folder / "api/state")["rotations"].values())[-1]["status"])


@pytest.fixture
def services(tmp_path: Path) -> _Services:
    return _Services(tmp_path)


def test_receivers_take_both_tokens_until_retire_takes_the_former_one_from_them(services: _Services) -> None:
    """After a retire the running API refuses the former token, which is asked of it, and not only its file."""
    first = _FIRST[_TOKEN]
    services.run("rotate", _TOKEN)
    new, *former = services.held("api/loaded", _TOKEN)
    assert former == [first] != [new]
    assert services.held("agents/loaded", _TOKEN) == [new]
    assert services.starts()[:1] == ["api"], "receivers come first"

    services.run("retire", _TOKEN, confirm=_TOKEN)
    assert services.starts() == ["api"], "who sends holds one token only, and is left alone"
    for file in ("api/.env", "api/loaded"):
        assert services.held(file, _TOKEN) == [new]
    (record,) = (services.folder / "api/state/evidence").glob("*.retired/evidence.json")
    probes = {probe["name"]: probe["result"] for probe in json.loads(record.read_text())["probes"]}
    assert probes["agents of before get in"] == "accepted"
    assert probes["agents of before are refused"] == "refused"
    assert services.status() == "retired"


def test_a_reader_that_keeps_the_former_token_is_no_retire_and_the_same_command_goes_on(services: _Services) -> None:
    services.run("rotate", _TOKEN)
    services.starts()
    new, _former = services.held("api/.env", _TOKEN)
    inventory = services.inventory.read_text()
    stubborn = yaml.safe_load(inventory)
    stubborn["all"]["vars"]["keyturn_services"]["api"]["start"] = ["touch", str(services.folder / "api/loaded")]
    stubborn["all"]["vars"]["keyturn_services"]["api"]["stop"] = ["true"]
    services.inventory.write_text(yaml.safe_dump(stubborn))
    failed = services.controller.run(services.inventory, "retire", only=_TOKEN, confirm=_TOKEN)
    assert failed.code == 2, failed.output
    assert "agents of before are refused: accepted" in failed.output
    assert services.status() == "retiring"

    services.inventory.write_text(inventory)
    services.run("retire", _TOKEN, confirm=_TOKEN)
    assert services.held("api/loaded", _TOKEN) == [new]
    assert services.status() == "retired"


def test_a_scrape_key_turns_in_a_cluster_and_in_what_scrapes_it_and_goes_back(services: _Services) -> None:
    services.run("rotate", _METRICS)
    (new,) = services.held("api/running", _METRICS)
    assert new != _FIRST[_METRICS]
    monitor = services.folder / "monitor"
    assert (monitor / "scraping").read_text() == f"    bearer_token: '{new}'\n"
    assert (monitor / "prometheus.yaml").read_text() == f"    httpHeaderValue1: 'Bearer {new}'\n"

    services.run("rollback", _METRICS)
    assert services.held("api/running", _METRICS) == [_FIRST[_METRICS]]
    assert (monitor / "scraping").read_text() == f"    bearer_token: '{_FIRST[_METRICS]}'\n"
