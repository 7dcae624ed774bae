# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signing key that its issuer reads from a list: published, waited for, promoted, and kept while somebody uses it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import describe, generate
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.env_file import read_variable

from tests.support.controller import Controller, registry
from tests.support.endpoint import Asked, endpoint
from tests.support.identity import Gateway, gateway
from tests.support.local import LOCAL

_NAME = "SIGNING_KEYS"
_SPEC = {"type": "ec"}


class _Stack:
    """An issuer that publishes every key of its list, and an edge that has to be purged."""

    def __init__(self, folder: Path, entered: ExitStack) -> None:
        folder.mkdir()
        self.env_file, self.state_dir, self.log = folder / ".env", folder / "state", folder / "edge.log"
        self.inventory = folder / "inventory.yml"
        self.state_dir.mkdir(mode=0o700)
        self.env_file.touch(0o600)
        self.env_file.write_text(f"{_NAME}='{generate(_SPEC, os.urandom).decode()}'\n")
        self.logged("started")
        self.headers = {"Cache-Control": "public, max-age=300"}
        here = entered.enter_context(endpoint(self._publish))
        self.issuer = f"{here.url}/.well-known/jwks.json"
        self.edge: Gateway = entered.enter_context(gateway(self.issuer))

    @property
    def keys(self) -> list[bytes]:
        """The private keys, the signing one first."""
        value = read_variable(self.env_file.read_bytes(), _NAME, str(self.env_file))
        assert value is not None
        return value.split(b"|")

    @property
    def kids(self) -> list[str]:
        """Their kids."""
        return [json.loads(key)["kid"] for key in self.keys]

    def _publish(self, _asked: Asked) -> tuple[int, dict[str, str], str]:
        public = [describe(_SPEC, key)["public"] for key in self.keys]
        return 200, self.headers, json.dumps({"keys": public})

    def logged(self, line: str) -> None:
        """One line in the edge's log, of now."""
        with self.log.open("a") as stream:
            stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")

    def write(self, **fields: Any) -> None:
        """The inventory with the catalog in it."""
        figures = {"token_lifetime": "15m", "refresh_lifetime": "0s", "gateway_cache": "0s", "reload": "0s"}
        token = {"type": "token", "url": self.edge.api, "hosts": "one", "token": {"claims": {"iss": "identity"}}}
        use = r"verified kid={kid} client=(?P<who>\S+)"
        log = {"type": "log", "hosts": "one", "path": str(self.log)}
        secret = {
            "kind": "env_secret",
            "strategy": "overlap",
            "generate": _SPEC,
            "stores": [
                {"type": "env_file", "hosts": "one", "path": str(self.env_file), "layout": "list", "separator": "|"}
            ],
            "window": {**figures, "skew": "60s"},
            "jwks": [
                {"name": "issuer", "url": self.issuer},
                {
                    "name": "edge",
                    "url": self.edge.url,
                    "refresh": "purge",
                    "purge": {"url": f"{self.edge.here.url}/purge", "method": "POST"},
                    "within": "30s",
                },
            ],
            "probes": [
                {"name": "new token", "version": "new", **token},
                {"name": "old token", "version": "old", **token},
                {"name": "use", "version": "old", "refused": True, "pattern": use, "since": "1h", **log},
                {"name": "leak", "version": "new", **log, "since": "1h"},
            ],
            **fields,
        }
        catalog = {
            "keyturn_state_host": "one",
            "keyturn_state_dir": str(self.state_dir),
            "keyturn_secrets": {_NAME: secret},
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": {"one": {}}}}))


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[_Stack]:
    with ExitStack() as entered:
        made = _Stack(tmp_path / "stack", entered)
        made.write()
        yield made


def _evidence(stack: _Stack, event: str) -> dict[str, Any]:
    (path,) = stack.state_dir.glob(f"evidence/*.{event}/evidence.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_signing_key_turns_and_is_kept_while_somebody_uses_it(stack: _Stack, controller: Controller) -> None:
    (first,) = stack.kids
    turned = controller.run(stack.inventory, "rotate", only=_NAME)
    assert turned.code == 0, turned.output
    second, former = stack.kids
    assert former == first != second
    record = _evidence(stack, "rotated")
    assert [(probe["name"], probe["result"]) for probe in record["probes"]] == [
        ("new token", "accepted"),
        ("old token", "accepted"),
        ("leak", "accepted"),
    ]
    (window,) = [text for text in record["messages"] if text.startswith("overlap window")]
    assert "5 min jwks_max_age" in window
    (rotation,) = registry(stack.state_dir)["rotations"].values()
    ended, after = (
        time.mktime(time.strptime(rotation[name][:19], "%Y-%m-%dT%H:%M:%S")) for name in ("ended_at", "retire_after")
    )
    # 15 min of tokens, 5 min of the measured header, 1 min of clocks, from just before the rotation's end
    assert 960 < after - ended <= 1260

    early = controller.run(stack.inventory, "retire")
    assert early.code != 0
    assert f"may be retired after {rotation['retire_after'][:16]}" in early.output

    stack.logged(f"verified kid={second} client=web")
    stack.logged(f"verified kid={first} client=reports")
    used = controller.run(stack.inventory, "retire", confirm=_NAME)
    assert used.code != 0
    assert "the old version was used 1 times, by reports" in used.output
    assert stack.kids == [second, first]
    kept = registry(stack.state_dir)
    assert [each["status"] for each in kept["rotations"].values()] == ["overlap"], "the way back is still open"
    assert (kept["secrets"][_NAME]["open"], _evidence(stack, "failed")["rotation_id"]) == (None, *kept["rotations"])
    assert "Nothing was retired or removed, and the way back is open" in used.output

    stack.log.write_text("")
    stack.logged(f"verified kid={second} client=web")
    retired = controller.run(stack.inventory, "retire", confirm=_NAME)
    assert retired.code == 0, retired.output
    assert stack.kids == [second]
    for ran in (turned, early, used, retired):
        assert all(json.loads(key)["d"] not in ran.output for key in stack.keys)


def test_trap_46_headers_that_do_not_say_it_stop_the_run_before_anything_is_staged(
    stack: _Stack, controller: Controller
) -> None:
    before, stack.headers = stack.keys, {}
    ran = controller.run(stack.inventory, "rotate", only=_NAME)
    assert ran.code != 0
    assert "jwks_max_age is missing, and the headers of issuer do not say it" in ran.output
    assert stack.keys == before


def test_trap_17_an_edge_that_never_shows_the_new_key_brings_everything_back(
    stack: _Stack, controller: Controller
) -> None:
    before = stack.keys
    endpoints = [{"name": "edge", "url": stack.edge.url, "within": "2s"}]
    stack.write(jwks=endpoints)
    ran = controller.run(stack.inventory, "rotate", only=_NAME)
    assert ran.code != 0
    assert "is missing" in ran.output
    assert stack.keys == before
    (rotation,) = registry(stack.state_dir)["rotations"].values()
    assert rotation["status"] == "rolled_back"
