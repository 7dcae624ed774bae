# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules ``keyset`` and ``keyset_info`` in processes of their own: what they do, and that they print no key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import Host
from tests.support.modules import Ran, run_module_process

OLD, NEW = "canary-old-7gT2bN4xQ9-8dF5", "canary-new-3kV8mW1zR6-2hJ7"


def _assert_clean(ran: Ran) -> None:
    assert not [canary for canary in (OLD, NEW) if canary in ran.printed or canary[:14] in ran.printed]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


def _call(host: Host, name: str, check: bool = False, **more: Any) -> Ran:
    ran = run_module_process(
        name, {"state_dir": str(host.state_dir), "rotation_id": "r1", "epoch": 1, **more}, check=check
    )
    _assert_clean(ran)
    return ran


def test_trap_25_a_whole_life_prints_no_key(host: Host) -> None:
    path = host.write("keyset.json", json.dumps({"active_kid": "k1", "keys": {"k1": OLD}}).encode())
    new = host.write("new", NEW.encode())
    stores = [{"type": "file", "path": str(path)}]
    looked = [{"name": "K", "stores": stores}]
    asked = [{"name": "K", "stores": stores, "new": {"file": str(new)}, "kid": "k2"}]
    first = _call(host, "keyset_info", keysets=looked)
    assert (first["keysets"]["K"]["active_kid"], first["keysets"]["K"]["source"]) == ("k1", "file")
    assert first["keysets"]["K"]["change"]["state"] == "initial"
    tried = _call(host, "keyset", check=True, state="staged", keysets=asked)
    assert (tried["changed"], json.loads(path.read_text())["keys"]) == (True, {"k1": OLD})
    for state in ("staged", "promoted", "withdrawn", "retired"):
        ran = _call(host, "keyset", state=state, keysets=asked)
        assert ran["changed"] is True
        assert _call(host, "keyset", state=state, keysets=asked)["changed"] is False
        seen = _call(host, "keyset_info", keysets=looked, previous=first["keysets"])["keysets"]["K"]
        assert seen["has_old"] == (state in ("staged", "promoted"))
        assert seen["previous_active_kid"] == ("" if state == "retired" else "k1")
        assert seen["state"] == {"withdrawn": "promoted"}.get(state, state)
        assert seen["change"]["state"] == ("unchanged" if state == "staged" else "rotated")
    assert json.loads(path.read_text()) == {"active_kid": "k2", "keys": {"k2": NEW}}
    assert seen["change"]["removed"] == ["k1"]


def test_a_key_is_made_here_where_nobody_brings_one(host: Host) -> None:
    path = host.write(".env", f"KEYS=k1:{OLD}\nACTIVE=k1\n".encode())
    store = {"type": "env_file", "path": str(path), "variable": "KEYS", "active_variable": "ACTIVE"}
    asked = [{"name": "K", "stores": [store], "generate": {"type": "bytes", "length": 32}}]
    _call(host, "keyset", state="staged", keysets=asked)
    _call(host, "keyset", state="promoted", keysets=asked)
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert lines["ACTIVE"] != "k1"
    assert f"{lines['ACTIVE']}:" in lines["KEYS"]
    back = _call(host, "keyset", state="rolled_back", keysets=asked)
    assert back["keysets"]["K"]["state"] == "rolled_back"
    assert path.read_text() == f"KEYS=k1:{OLD}\nACTIVE=k1\n"


def test_trap_33_what_is_wrong_is_said_without_the_key(host: Host) -> None:
    path = host.write("keyset.json", json.dumps({"active_kid": "k9", "keys": {"k1": OLD}}).encode())
    other = host.write("other.json", json.dumps({"active_kid": "k1", "keys": {"k1": OLD, "k0": NEW}}).encode())
    third = host.write("third.json", json.dumps({"active_kid": "k1", "keys": {"k1": OLD}}).encode())
    one = [{"name": "K", "stores": [{"type": "file", "path": str(path)}]}]
    failed = _call(host, "keyset", state="staged", keysets=one)
    assert (failed["code"], failed["where"]) == ("keyset-invalid", str(path))
    assert [problem["code"] for problem in _call(host, "keyset_info", keysets=one)["problems"]] == ["keyset-invalid"]
    two = [{"name": "K", "stores": [{"type": "file", "path": str(place)} for place in (other, third)]}]
    assert [problem["code"] for problem in _call(host, "keyset_info", keysets=two)["problems"]] == ["keysets-differ"]


def test_a_policy_is_looked_at_where_there_is_one(host: Host) -> None:
    path = host.write("keyset.json", json.dumps({"active_kid": "k1", "keys": {"k1": OLD[:20]}}).encode())
    keysets = [{"name": "K", "stores": [{"type": "file", "path": str(path)}]}]
    assert _call(host, "keyset_info", keysets=keysets)["findings"] == []
    found = _call(host, "keyset_info", keysets=keysets, policy={"owner": "nobody"})["findings"]
    assert [finding["code"] for finding in found] == ["key-short", "file-owner"]
