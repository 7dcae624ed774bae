# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole rotations of keysets: both keys in, reload shown, active moved, the old one refused; and the way back."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import LAST_GOOD

from tests.support.canaries import Canaries, Search
from tests.support.controller import Controller, Ended, registry
from tests.support.keyset_server import KeysetServer, encode_token
from tests.support.kms import Kms

NAME = "JWT_KEYSET"
OLD = "first-key-Q7xW2mN9bV4cK8zL1pR6tY3u"
_FIELDS = {"kid": "k%Y%m%d"}
_WINDOW = {"token_lifetime": "15m", "reload": "2s", "skew": "30s"}


def _status(url: str, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class _Fleet:
    """Two hosts, each with a server and its keyset."""

    def __init__(self, folder: Path, mode: str = "file") -> None:
        self.folder, self.mode = folder, mode
        self.inventory = folder / "inventory.yml"
        self.servers = {host: KeysetServer(folder / host, mode) for host in ("one", "two")}
        for host in self.servers:
            (folder / host).mkdir(parents=True)
            self.file(host).touch(0o600)
            text = {"file": json.dumps({"active_kid": "k1", "keys": {"k1": OLD}}), "env": f"KEYS=k1:{OLD}\nACTIVE=k1\n"}
            self.file(host).write_text(text[mode])

    def file(self, host: str) -> Path:
        return self.folder / host / ("jwt-keyset.json" if self.mode == "file" else ".env")

    def write(self, fields: dict[str, Any] | None = None, **secret: Any) -> None:
        """Write the inventory; the servers run by now."""
        shape: dict[str, Any] = {"type": "file"}
        if self.mode == "env":
            shape = {"type": "env_file", "variable": "KEYS", "active_variable": "ACTIVE"}
        stores = [{"hosts": host, "path": str(self.file(host)), "layout": "keyset", **shape} for host in self.servers]
        services = {
            f"api_{host}": {
                "hosts": host,
                "manager": "command",
                "start": server.command("start"),
                "stop": server.command("stop"),
                "health": {"url": f"{server.url}/health"},
            }
            for host, server in self.servers.items()
        }
        probes = [
            probe
            for host, server in self.servers.items()
            for probe in (
                {
                    "name": f"{host} takes a token",
                    "hosts": host,
                    "type": "token",
                    "url": f"{server.url}/me",
                    "token": {"claims": {"actor_type": "player", "sub": "probe"}},
                },
                {"name": f"{host} signs", "hosts": host, "type": "active_kid", "url": f"{server.url}/token"},
            )
        ]
        entry = {
            "kind": "keyset",
            "keyset": {**_FIELDS, **(fields or {})},
            "window": _WINDOW,
            "generate": {"type": "string", "length": 40},
            "stores": stores,
            "consumers": sorted(services),
            "probes": probes,
            **secret,
        }
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        catalog = {"keyturn_state_host": "one", "keyturn_services": services, "keyturn_secrets": {NAME: entry}}
        hosts = {host: {"keyturn_state_dir": str(self.folder / host / "state")} for host in self.servers}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**local, **catalog}, "hosts": hosts}}))

    def content(self, host: str) -> tuple[str, dict[str, str]]:
        if self.mode == "env":
            lines = dict(line.split("=", 1) for line in self.file(host).read_text().splitlines())
            return lines["ACTIVE"], dict(part.split(":", 1) for part in lines["KEYS"].split(","))
        found = json.loads(self.file(host).read_text())
        return found["active_kid"], found["keys"]

    def same(self) -> tuple[str, dict[str, str]]:
        """The keyset, which is the same on both hosts."""
        one, two = (self.content(host) for host in self.servers)
        assert one == two
        return one

    def accepted(self, kid: str, key: str) -> list[int]:
        return [_status(f"{server.url}/me", encode_token(kid, key)) for server in self.servers.values()]

    def statuses(self) -> list[str]:
        found = registry(self.folder / "one" / "state")["rotations"]
        return [rotation["status"] for _id, rotation in sorted(found.items())]

    def evidence(self) -> list[dict[str, Any]]:
        paths = (self.folder / "one/state/evidence").glob("*/evidence.json")
        records = [json.loads(path.read_text()) for path in paths]
        return sorted(records, key=lambda record: int(record["seal"]["sequence"]))


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[_Fleet]:
    made = _Fleet(tmp_path / "fleet", getattr(request, "param", "file"))
    with ExitStack() as running:
        for server in made.servers.values():
            running.callback(server.stop)
            server.start()
        made.write()
        yield made


def _clean(fleet: _Fleet, *ended: Ended) -> None:
    """No key is in what was printed, nor in the evidence."""
    canaries = Canaries()
    canaries.add("old", OLD)
    for host in fleet.servers:
        for kid, key in fleet.content(host)[1].items():
            canaries.add(f"{host} {kid}", key)
    found = Search()
    for run in ended:
        canaries.search_bytes(found, "output", run.output.encode())
    canaries.search_files(found, [fleet.folder / "one/state/evidence"])
    assert found.found == {}


@pytest.mark.parametrize("fleet", ["file", "env"], indirect=True)
def test_a_keyset_turns_goes_back_turns_again_and_loses_its_old_key(fleet: _Fleet, controller: Controller) -> None:
    before = {host: fleet.file(host).read_bytes() for host in fleet.servers}
    turned = controller.run(fleet.inventory, "rotate", only=NAME)
    assert turned.code == 0, turned.output
    active, keys = fleet.same()
    assert active != "k1"
    assert sorted(keys) == sorted(["k1", active])
    assert fleet.accepted(active, keys[active]) == fleet.accepted("k1", OLD) == [200, 200]
    _clean(fleet, turned)

    back = controller.run(fleet.inventory, "rollback", only=NAME)
    assert back.code == 0, back.output
    assert {host: fleet.file(host).read_bytes() for host in fleet.servers} == before
    assert fleet.accepted("k1", OLD) == [200, 200]

    again = controller.run(fleet.inventory, "rotate", only=NAME)
    assert again.code == 0, again.output
    early = controller.run(fleet.inventory, "retire", only=NAME)
    assert early.code == 2
    assert "may be retired after" in early.output
    active, keys = fleet.same()
    assert "k1" in keys
    retired = controller.run(fleet.inventory, "retire", only=NAME, confirm=NAME)
    assert retired.code == 0, retired.output
    active, keys = fleet.same()
    assert list(keys) == [active]
    assert fleet.accepted(active, keys[active]) == [200, 200]
    assert fleet.accepted("k1", OLD) == [401, 401]
    assert fleet.statuses() == ["rolled_back", "retired"]
    _clean(fleet, back, again, early, retired)
    records = fleet.evidence()
    (keyset,) = records[-1]["keysets"]
    assert (keyset["active_kid"], keyset["previous_active_kid"]) == (active, "k1")
    assert keyset["source_mode"] == {"file": "file", "env": "inline"}[fleet.mode]
    assert [key["kid"] for key in keyset["keys"]] == [active]
    shown = {(probe["version"], probe["expected"], probe["result"]) for probe in records[-1]["probes"]}
    assert ("old", "refused", "refused") in shown
    assert all(expected == result for _version, expected, result in shown)
    rotated = next(record for record in records if record["event"] == "rotated")
    assert ("old", "accepted", "accepted") in {
        (probe["version"], probe["expected"], probe["result"]) for probe in rotated["probes"]
    }
    for path in (fleet.folder / "one").glob(f"*{LAST_GOOD}"):
        assert OLD not in path.read_text()


def test_trap_17_and_38_a_reader_that_failed_to_reload_stops_the_active_key_from_moving(
    fleet: _Fleet, controller: Controller
) -> None:
    (fleet.folder / "two" / "stuck").touch()
    before = {host: fleet.file(host).read_bytes() for host in fleet.servers}
    ended = controller.run(fleet.inventory, "rotate", only=NAME)
    assert ended.code == 2
    assert "two takes a token" in ended.output
    assert _status(f"{fleet.servers['two'].url}/health") == 200
    assert {host: fleet.file(host).read_bytes() for host in fleet.servers} == before
    assert fleet.statuses() == ["rolled_back"]
    assert fleet.accepted("k1", OLD) == [200, 200]


def test_a_bare_wait_is_allowed_by_the_catalog_and_noted(fleet: _Fleet, controller: Controller) -> None:
    fleet.write({"reload_proof": "wait"}, probes=[])
    ended = controller.run(fleet.inventory, "rotate", only=NAME)
    assert ended.code == 0, ended.output
    assert "nobody was asked whether readers have loaded it" in " ".join(fleet.evidence()[-1]["messages"])


def test_a_keyset_behind_commands_turns(fleet: _Fleet, controller: Controller) -> None:
    kms = Kms(fleet.folder / "kms", {"k1": OLD}, "k1")
    store = {"hosts": "one", **kms.store()}
    fleet.write({"reload_proof": "wait"}, probes=[], consumers=[], stores=[store])
    for playbook in ("rotate", "rollback", "rotate"):
        ended = controller.run(fleet.inventory, playbook, only=NAME)
        assert ended.code == 0, ended.output
    ended = controller.run(fleet.inventory, "retire", only=NAME, confirm=NAME)
    assert ended.code == 0, ended.output
    active = str(kms.content["active_kid"])
    assert list(json.loads(kms.file.read_text())["keys"]) == [active]
    commands = [call.split()[0] for call in kms.calls]
    assert commands == ["provision", "promote", "promote", "remove", "provision", "promote", "remove"]
    assert fleet.evidence()[-1]["keysets"][0]["source_mode"] == "command"
    assert OLD not in ended.output
