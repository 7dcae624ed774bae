# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last phase of the role ``keyset`` by itself, with a real service: the old key goes and is shown to be refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.declared import probes_of

from tests.support.hosts import Host
from tests.support.keyset_server import KeysetServer
from tests.support.play import run_tasks

NAME = "K"
OLD, NEW = "canary-old-7gT2bN4xQ9-8dF5", "canary-new-3kV8mW1zR6-2hJ7"


@pytest.fixture
def promoted(tmp_path: Path) -> Iterator[tuple[Host, KeysetServer]]:
    """A host with both keys in, of which the new one is active, and a service that reads them."""
    host = Host(tmp_path / "one")
    path = host.write("jwt-keyset.json", json.dumps({"active_kid": "k1", "keys": {"k1": OLD}}).encode())
    stores = [{"type": "file", "path": str(path), "layout": "keyset"}]
    for state in ("staged", "promoted"):
        host.turn(state, {"name": NAME, "stores": stores, "new": {"value": NEW}, "kid": "k2"})
    server = KeysetServer(host.folder)
    server.start()
    yield host, server
    server.stop()


def _variables(host: Host, server: KeysetServer) -> dict[str, Any]:
    """What the engine hands to the role."""
    probe: dict[str, Any] = {"name": "takes", "type": "token", "url": f"{server.url}/me"}
    probe["token"] = {"claims": {"actor_type": "player"}}
    asked = {when: [{**one, "secret": NAME} for one in found] for when, found in probes_of(probe).items()}
    stores = [{"type": "file", "path": str(host.folder / "jwt-keyset.json"), "layout": "keyset", "variable": NAME}]
    work = {
        "secrets": [{"name": NAME, "stores": stores}],
        "services": [{"name": "api", "manager": "command", "reloads": True}],
        "probes": asked["always"],
        "overlap_probes": asked["overlap"],
        "late_probes": asked["late"],
    }
    folder = host.state_dir / "secrets" / NAME / "r1"
    keyset = {"wait": 3, "proof": "probe", "readers": "reload"}
    return {
        "rotation_direction": "forward",
        "rotation_work": work,
        "rotation_plan": {"secrets": [{"name": NAME, "kind": "keyset", "keyset": keyset}], "hosts": {"one": work}},
        "rotation_values": {NAME: {part: {"file": str(folder / part)} for part in ("new", "old")}},
        "rotation_arguments": {
            "state_dir": str(host.state_dir),
            "session_dir": str(host.state_dir / "host"),
            "rotation_id": "r1",
            "epoch": 1,
        },
    }


def _tasks(said: Path) -> list[dict[str, Any]]:
    """The phases as retire has them, and what the evidence would take."""
    steps = [
        {"ansible.builtin.include_role": {"name": "keyturn.rotation.keyset", "tasks_from": step}}
        for step in ("verify", "retire")
    ]
    facts = {"content": "{{ {'verify': __keyset_verify, 'retire': __keyset_retire} | to_json }}", "dest": str(said)}
    return [*steps, {"ansible.builtin.copy": {**facts, "mode": "0600"}}]


def test_the_old_key_goes_and_is_refused(tmp_path: Path, promoted: tuple[Host, KeysetServer]) -> None:
    host, server = promoted
    said = tmp_path / "said.json"
    done = run_tasks(tmp_path, {"one": _variables(host, server)}, _tasks(said))
    assert done.code == 0, done.output
    assert json.loads((host.folder / "jwt-keyset.json").read_text())["keys"] == {"k2": NEW}
    seen = json.loads(said.read_text())
    shown = {
        step: [(probe["version"], probe["result"], probe["passed"]) for probe in seen[step]["probes"]] for step in seen
    }
    assert shown == {
        "verify": [("new", "accepted", True), ("old", "accepted", True)],
        "retire": [("old", "refused", True)],
    }
    assert [key["kid"] for key in seen["retire"]["keysets"][NAME]["keys"]] == ["k2"]
    assert seen["retire"]["keysets"][NAME]["previous_active_kid"] == "k1"
    assert not [canary for canary in (OLD, NEW) if canary in done.output + said.read_text()]


def test_trap_38_a_reader_that_keeps_the_old_key_ends_it_as_a_failure(
    tmp_path: Path, promoted: tuple[Host, KeysetServer]
) -> None:
    host, server = promoted
    (host.folder / "stuck").touch()
    said = tmp_path / "said.json"
    done = run_tasks(tmp_path, {"one": _variables(host, server)}, _tasks(said))
    assert done.code == 2
    assert "the old version is still accepted" in done.output
    assert host.version(NAME, "old") is not None
    (host.folder / "stuck").unlink()
    again = run_tasks(tmp_path, {"one": _variables(host, server)}, _tasks(said))
    assert again.code == 0, again.output
