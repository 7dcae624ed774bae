# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole rotations of keysets: both keys in, reload shown, active moved, the old one refused; and the way back."""

from __future__ import annotations

import hashlib
import json
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
from tests.support.local import LOCAL

_HOSTS = ("one", "two")
#: The first key of each secret.
OLD = {name: f"first-key-Q7xW2mN9bV4cK8zL1pR6tY3u-{name}" for name in ("JWT_FILE", "JWT_ENV", "JWT_KMS")}
#: By secret: how its readers hold it, and what the evidence calls that.
_MODES = {"JWT_FILE": "file", "JWT_ENV": "env"}
_SOURCES = {"JWT_ENV": "inline", "JWT_FILE": "file", "JWT_KMS": "command"}
_WINDOW = {"token_lifetime": "15m", "reload": "1s", "skew": "30s"}
_KID = {"kid": "k%Y%m%d"}
_FIELDS = {
    "kind": "keyset",
    "keyset": _KID,
    "window": _WINDOW,
    "generate": {"type": "string", "length": 40},
}

Keyset = tuple[str, dict[str, str]]


def _status(url: str, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class _Readers:
    """One keyset on two hosts, each with a server that reads it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.mode = folder, name, _MODES[name]
        self.servers = {host: KeysetServer(folder / host, self.mode) for host in _HOSTS}
        self.old = OLD[name]
        texts = {"file": json.dumps({"active_kid": "k1", "keys": {"k1": self.old}})}
        texts["env"] = f"KEYS=k1:{self.old}\nACTIVE=k1\n"
        for host in self.servers:
            (folder / host).mkdir(parents=True)
            self.file(host).touch(0o600)
            self.file(host).write_text(texts[self.mode])

    def file(self, host: str) -> Path:
        """Where the keyset is."""
        return self.folder / host / ("jwt-keyset.json" if self.mode == "file" else ".env")

    @property
    def raw(self) -> dict[str, bytes]:
        """The files, byte for byte."""
        return {host: self.file(host).read_bytes() for host in self.servers}

    def services(self) -> dict[str, Any]:
        """The servers as a catalog has them; they run by now."""
        return {
            f"{self.mode}_{host}": {
                "hosts": host,
                "manager": "command",
                "start": server.command("start"),
                "stop": server.command("stop"),
                "health": {"url": f"{server.url}/health"},
            }
            for host, server in self.servers.items()
        }

    def secret(self) -> dict[str, Any]:
        """The keyset as a catalog has it."""
        shape: dict[str, Any] = {"type": "file"}
        if self.mode == "env":
            shape = {"type": "env_file", "variable": "KEYS", "active_variable": "ACTIVE"}
        probes: list[dict[str, Any]] = []
        for host, server in self.servers.items():
            token = {"claims": {"actor_type": "player", "sub": "probe"}}
            takes = {"name": f"{self.mode} {host} takes a token", "type": "token", "token": token}
            signs = {"name": f"{self.mode} {host} signs", "type": "active_kid"}
            probes += [{"hosts": host, "url": f"{server.url}/me", **takes}]
            probes += [{"hosts": host, "url": f"{server.url}/token", **signs}]
        stores = [{"hosts": host, "path": str(self.file(host)), "layout": "keyset", **shape} for host in self.servers]
        return {**_FIELDS, "stores": stores, "consumers": sorted(self.services()), "probes": probes}

    def _content(self, host: str) -> Keyset:
        if self.mode == "env":
            lines = dict(line.split("=", 1) for line in self.file(host).read_text().splitlines())
            return lines["ACTIVE"], dict(part.split(":", 1) for part in lines["KEYS"].split(","))
        found = json.loads(self.file(host).read_text())
        return found["active_kid"], found["keys"]

    def keyset(self) -> Keyset:
        """The keyset, which is the same on both hosts."""
        one, two = (self._content(host) for host in self.servers)
        assert one == two
        return one

    def taken(self, kid: str, key: str) -> list[int]:
        """What each server says to a token."""
        return [_status(f"{server.url}/me", encode_token(kid, key)) for server in self.servers.values()]


class _Fleet:
    """Two hosts; keysets in files, in variables, and behind commands on one of them."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.inventory = folder / "inventory.yml"
        self.readers = [_Readers(folder / name, name) for name in names]
        self.kms = Kms(folder / "kms", {"k1": OLD["JWT_KMS"]}, "k1")

    def write(self, with_commands: bool) -> None:
        """Write the inventory; the servers run by now."""
        secrets = {reader.name: reader.secret() for reader in self.readers}
        if with_commands:
            # nobody can be asked whether it has loaded what the commands hold
            proof = {**_KID, "reload_proof": "wait"}
            secrets["JWT_KMS"] = {**_FIELDS, "keyset": proof, "stores": [{"hosts": "one", **self.kms.store()}]}
        services = {name: entry for reader in self.readers for name, entry in reader.services().items()}
        catalog = {"keyturn_state_host": "one", "keyturn_services": services, "keyturn_secrets": secrets}
        hosts = {host: {"keyturn_state_dir": str(self.folder / host / "state")} for host in _HOSTS}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": hosts}}))

    @property
    def raw(self) -> list[dict[str, bytes]]:
        """All files of readers, byte for byte."""
        return [reader.raw for reader in self.readers]

    def keysets(self) -> dict[str, Keyset]:
        """What each secret is now."""
        behind = json.loads(self.kms.file.read_text())
        return {
            **{reader.name: reader.keyset() for reader in self.readers},
            "JWT_KMS": (behind["active_kid"], behind["keys"]),
        }

    def statuses(self) -> list[str]:
        """Of all rotations, the oldest first."""
        found = registry(self.folder / "one" / "state")["rotations"]
        return [rotation["status"] for _id, rotation in sorted(found.items())]

    def evidence(self) -> list[dict[str, Any]]:
        """All records, the oldest first."""
        paths = (self.folder / "one/state/evidence").glob("*/evidence.json")
        records = [json.loads(path.read_text()) for path in paths]
        return sorted(records, key=lambda record: int(record["seal"]["sequence"]))


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[_Fleet]:
    names = getattr(request, "param", list(_MODES))
    made = _Fleet(tmp_path / "fleet", names)
    with ExitStack() as running:
        for reader in made.readers:
            for server in reader.servers.values():
                running.callback(server.stop)
                server.start()
        made.write(names == list(_MODES))
        yield made


def _clean(fleet: _Fleet, *ended: Ended) -> None:
    """No key is in what was printed, nor in the evidence."""
    canaries = Canaries()
    for name, key in OLD.items():
        canaries.add(f"{name} k1", key)
    for name, (_active, keys) in fleet.keysets().items():
        for kid, key in keys.items():
            canaries.add(f"{name} {kid} now", key)
    found = Search()
    for run in ended:
        canaries.search_bytes(found, "output", run.output.encode())
    canaries.search_files(found, [fleet.folder / "one/state/evidence"])
    assert found.found == {}


def _ok(ended: Ended) -> Ended:
    assert ended.code == 0, ended.output
    return ended


def test_keysets_turn_go_back_turn_again_and_lose_their_old_keys(fleet: _Fleet, controller: Controller) -> None:
    names = ",".join(sorted(_SOURCES))
    before = fleet.raw
    turned = _ok(controller.run(fleet.inventory, "rotate", only=names))
    for active, keys in fleet.keysets().values():
        assert active != "k1"
        assert sorted(keys) == sorted(["k1", active])
    for reader in fleet.readers:
        active, keys = reader.keyset()
        assert reader.taken(active, keys[active]) == reader.taken("k1", reader.old) == [200, 200]
    _clean(fleet, turned)

    back = _ok(controller.run(fleet.inventory, "rollback", only=names))
    assert fleet.raw == before
    assert fleet.keysets()["JWT_KMS"] == ("k1", {"k1": OLD["JWT_KMS"]})
    assert [reader.taken("k1", reader.old) for reader in fleet.readers] == [[200, 200]] * 2

    again = _ok(controller.run(fleet.inventory, "rotate", only=names))
    assert all("k1" in keys for _active, keys in fleet.keysets().values())
    retired = _ok(controller.run(fleet.inventory, "retire", only=names, confirm="JWT_FILE"))
    assert all(list(keys) == [active] for active, keys in fleet.keysets().values())
    for reader in fleet.readers:
        active, keys = reader.keyset()
        assert reader.taken(active, keys[active]) == [200, 200]
        assert reader.taken("k1", reader.old) == [401, 401]
        for path in reader.folder.glob(f"*/*{LAST_GOOD}"):
            assert reader.old not in path.read_text()
    assert fleet.statuses() == ["rolled_back", "retired"]
    commands = [call.split()[0] for call in fleet.kms.calls]
    assert commands == ["provision", "promote", "promote", "remove", "provision", "promote", "remove"]
    _clean(fleet, back, again, retired)
    _told(fleet)


def _told(fleet: _Fleet) -> None:
    """What the evidence says of the last turn, from its promise to its end."""
    rotated, retired = (
        [record for record in fleet.evidence() if record["event"] == event][-1] for event in ("rotated", "retired")
    )
    assert {keyset["name"]: keyset["source_mode"] for keyset in retired["keysets"]} == _SOURCES
    for keyset in retired["keysets"]:
        active = fleet.keysets()[keyset["name"]][0]
        assert (keyset["active_kid"], keyset["previous_active_kid"]) == (active, "k1")
        assert [(key["kid"], key["state"]) for key in keyset["keys"]] == [(active, "primary")]
    told = " ".join(rotated["messages"])
    assert "JWT_KMS: nobody was asked whether readers have loaded it" in told
    (window,) = [text for text in rotated["messages"] if text.startswith("overlap window of JWT_FILE: ")]
    for figure in ("15 min token_lifetime (catalog)", "1.0 s reload (catalog)", "30.0 s skew (catalog)"):
        assert figure in window
    shown = [
        (probe["name"], probe["expected"])
        for record, expected in ((rotated, "accepted"), (retired, "refused"))
        for probe in record["probes"]
        if probe["type"] == "token" and probe["version"] == "old" and probe["result"] == expected
    ]
    takers = [f"{mode} {host} takes a token" for mode in _MODES.values() for host in _HOSTS]
    asked = [f"{name}, signed with the previous key" for name in takers]
    assert set(shown) == {(name, expected) for name in asked for expected in ("accepted", "refused")}
    assert all(probe["expected"] == probe["result"] for probe in rotated["probes"] + retired["probes"])
    folder = fleet.folder / "one/state/evidence" / retired["seal"]["folder"]
    states = json.loads((folder / "summary.json").read_text())["keysets"]
    for name in _SOURCES:
        assert (states[name]["keys_count"], states[name]["rotation_state"]) == (1, "rotated")
        content = json.loads((folder / f"keyset.{name}.json").read_text())
        active = fleet.keysets()[name][0]
        assert content["active_kid"] == active
        assert {kid: key["state"] for kid, key in content["keys"].items()} == {active: "primary"}


def test_a_service_that_several_hosts_reach_turns_once_and_goes_back(tmp_path: Path, controller: Controller) -> None:
    kms = Kms(tmp_path / "kms", {"k1": OLD["JWT_KMS"]}, "k1")
    kms.fault("strict")
    stores = [{"hosts": "all", **kms.store()}]
    secret = {**_FIELDS, "keyset": {**_KID, "reload_proof": "wait"}, "stores": stores}
    catalog = {"keyturn_state_host": "one", "keyturn_secrets": {"JWT_KMS": secret}}
    hosts = {host: {"keyturn_state_dir": str(tmp_path / host)} for host in _HOSTS}
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": hosts}}))

    _ok(controller.run(inventory, "rotate", only="JWT_KMS"))
    assert kms.content["active_kid"] != "k1"
    _ok(controller.run(inventory, "rollback", only="JWT_KMS"))
    assert kms.content == {"active_kid": "k1", "keys": {"k1": OLD["JWT_KMS"]}}
    _ok(controller.run(inventory, "rotate", only="JWT_KMS"))
    _ok(controller.run(inventory, "retire", only="JWT_KMS", confirm="JWT_KMS"))
    assert kms.content["keys"].keys() == {kms.content["active_kid"]} != {"k1"}
    commands = [call.split()[0] for call in kms.calls]
    assert commands == ["provision", "promote", "promote", "remove", "provision", "promote", "remove"]


@pytest.mark.parametrize("fleet", [["JWT_FILE"]], indirect=True)
def test_trap_17_and_38_a_reader_that_failed_to_reload_stops_the_active_key_from_moving(
    fleet: _Fleet, controller: Controller
) -> None:
    (reader,) = fleet.readers
    (reader.folder / "two" / "stuck").touch()
    before = fleet.raw
    ended = controller.run(fleet.inventory, "rotate", only="JWT_FILE")
    assert ended.code == 2
    assert "file two takes a token" in ended.output
    assert _status(f"{reader.servers['two'].url}/health") == 200
    assert fleet.raw == before
    assert fleet.statuses() == ["rolled_back"]
    assert reader.taken("k1", reader.old) == [200, 200]
    # the kind asks for its own tokens, in promote; the round of reload, which would have met the same, leaves them out
    (record,) = fleet.evidence()
    results = {phase["name"]: phase["result"] for phase in record["phases"]}
    assert (results["reload"], results["promote"]) == ("ok", "failed")
    # what dashboards read has the names and fields that it always had
    folder = fleet.folder / "one/state/evidence" / record["seal"]["folder"]
    summary = json.loads((folder / "summary.json").read_text())
    facts = {name: summary[name] for name in ("source_mode", "active_kid", "keys_count", "rotation_state")}
    assert facts == {"source_mode": "file", "active_kid": "k1", "keys_count": 1, "rotation_state": "unchanged"}
    assert summary["event_id"] == folder.name
    assert summary["captured_at_utc"].endswith("Z")
    assert list(json.loads((folder / "keyset.json").read_text())["keys"]) == ["k1"]
    lines = [line.split("  ") for line in (folder / "fingerprint.sha256").read_text().splitlines()]
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for _digest, name in lines}
    assert {name: digest for digest, name in lines} == digests
    assert {"keyset.json", "summary.json"} <= set(digests)
