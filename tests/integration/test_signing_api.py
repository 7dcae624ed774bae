# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing keys that only their issuer can write turn by its admin API: published, promoted, taken back, disabled."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.admin_issuer import AdminIssuer, admin_issuer
from tests.support.canaries import Canaries, Search
from tests.support.controller import Controller, Ended, registry
from tests.support.identity import Gateway, gateway
from tests.support.local import LOCAL

_NAME = "JWT_SIGNING"
_DISABLE = {"path": "/api/v1/admin/keys/{kid}/disable"}
_CODE = "a-code-of-this-minute"


class _Project:
    """Two hosts: one keeps the state, the other asks the issuer. An edge in front of it has to be purged."""

    def __init__(self, folder: Path, one: AdminIssuer, edge: Gateway) -> None:
        self.one, self.edge, self.folder = one, edge, folder
        self.inventory, self.log, self.codes = folder / "inventory.yml", folder / "edge.log", folder / "codes.env"
        self.state = {host: folder / host for host in ("one", "idp")}
        for path in self.state.values():
            path.mkdir(mode=0o700)
        self.codes.touch(0o600)
        self.codes.write_text(f"MFA={_CODE}\n")
        self.log.touch()

    def write(self, **more: Any) -> None:
        """The inventory; ``more`` are fields of ``key_api``."""
        log = {"type": "log", "hosts": "one", "path": str(self.log), "since": "1h"}
        secret = {
            "kind": "signing_key",
            "key_api": {
                "shape": "by_path",
                "base": self.one.here.url,
                "hosts": "idp",
                "token": {"path": "/oauth2/token", "client": "probe", "scope": "api"},
                "bearer": {"env": "ADMIN_TOKEN"},
                "client_secret": {"variable": "vault_probe_secret"},
                "headers": [
                    {"name": "X-MFA", "env_file": str(self.codes), "variable": "MFA"},
                    {"name": "X-Request-Id", "text": "{uuid}"},
                ],
                **more,
            },
            "window": {
                "token_lifetime": "15m",
                "refresh_lifetime": "0s",
                "gateway_cache": "15m",
                "reload": "0s",
                "skew": "60s",
            },
            "jwks": [
                {"name": "issuer", "url": f"{self.one.here.url}/.well-known/jwks.json", "within": "10s"},
                {
                    "name": "edge",
                    "url": self.edge.url,
                    "within": "10s",
                    "refresh": "purge",
                    "purge": {"url": f"{self.edge.here.url}/purge", "method": "POST"},
                },
            ],
            "probes": [
                {"name": "a new token", "type": "token", "version": "new", "url": self.edge.api},
                {"name": "a live token", "type": "token", "version": "old", "url": self.edge.api},
                {"name": "no failed signatures", "pattern": "signature verification failed", "at_most": 0, **log},
                {
                    "name": "use",
                    "version": "old",
                    "refused": True,
                    "pattern": r"verified kid={kid} client=(?P<who>\S+)",
                    **log,
                },
            ],
            "cryptoperiod": "7d",
        }
        restart = self.one.restart
        service = {
            "hosts": "one",
            "manager": "command",
            "start": restart,
            "stop": ["true"],
            "restart": restart,
            "health": {"url": f"{self.one.here.url}/.well-known/jwks.json"},
        }
        variables = {
            **LOCAL,
            "keyturn_state_host": "one",
            "keyturn_services": {"identity": service},
            "keyturn_secrets": {_NAME: secret},
            "vault_probe_secret": self.one.secret,
        }
        hosts = {host: {"keyturn_state_dir": str(path)} for host, path in self.state.items()}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": variables, "hosts": hosts}}))

    def logged(self, line: str) -> None:
        """One line in the edge's log, of now."""
        with self.log.open("a") as stream:
            stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")

    @property
    def statuses(self) -> list[str]:
        return [rotation["status"] for rotation in registry(self.state["one"])["rotations"].values()]

    def message(self, event: str) -> str:
        """What the evidence of the last event of a kind says of these keys."""
        folders = sorted(self.state["one"].glob(f"evidence/*.{event}"), key=lambda folder: folder.stat().st_mtime)
        messages = json.loads((folders[-1] / "evidence.json").read_text())["messages"]
        said = [text for text in messages if text.startswith(f"signing keys of {_NAME} at ")]
        return str(said[-1]).partition(f"{self.one.here.url}: ")[2]

    def probes(self, event: str) -> list[tuple[str, str]]:
        """The tokens that were shown, and what became of it."""
        (path,) = self.state["one"].glob(f"evidence/*.{event}/evidence.json")
        asked = json.loads(path.read_text())["probes"]
        return sorted({(one["name"], one["result"]) for one in asked if one["type"] == "token"})

    @property
    def enabled(self) -> list[str]:
        return [kid for kid, key in self.one.stored.items() if key.enabled]


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[_Project]:
    """The parameter says whether the issuer reads its keys only when it starts."""
    folder = tmp_path / "project"
    folder.mkdir()
    with ExitStack() as entered:
        one = entered.enter_context(admin_issuer(folder, in_memory=request.param))
        edge = entered.enter_context(gateway(f"{one.here.url}/.well-known/jwks.json"))
        yield _Project(folder, one, edge)


def _ok(ended: Ended) -> str:
    assert ended.code == 0, ended.output
    return ended.output


def _canaries(one: AdminIssuer) -> Canaries:
    canaries = Canaries()
    for number, value in enumerate(one.privates):
        canaries.add(f"private {number}", value)
    for number, token in enumerate(one.tokens):
        canaries.add(f"token {number}", token.split(".")[2])
    for name, value in (("bearer", one.bearer), ("secret", one.secret), ("code", _CODE)):
        canaries.add(name, value)
    return canaries


@pytest.mark.parametrize("project", [True], indirect=True)
def test_an_issuer_with_its_keys_in_memory_turns_goes_back_and_disables(project: _Project, tmp_path: Path) -> None:
    one = project.one
    controller = Controller(tmp_path / "home", {"ADMIN_TOKEN": one.bearer})
    project.write(disable=_DISABLE, restart="identity")
    first = one.signing()
    project.logged("started")

    project.logged("signature verification failed")
    failed = controller.run(project.inventory, "rotate", "-vvvv", only=_NAME)
    assert failed.code != 0
    assert "no failed signatures: failed (1 lines match, at most 0 may)" in failed.output
    assert (project.statuses, one.signing(), len(one.stored)) == (["rolled_back"], first, 2)
    unused = next(kid for kid in one.stored if kid != first)
    assert project.message("rolled_back").startswith(f"{first} signs again, {unused} stays listed; ")
    # made, promoted, and taken back: an issuer that does not show it is restarted each time, and never twice for one
    assert (one.restarts, [len(one.asked(step)) for step in ("generate", "promote")]) == (3, [1, 2])

    project.log.write_text("")
    project.logged("started")
    turned = _ok(controller.run(project.inventory, "rotate", "-vvvv", only=_NAME))
    second = one.signing()
    assert (second != first, project.enabled.count(first), len(one.stored)) == (True, 1, 3)
    before, now = ", ".join(list(one.stored)[:2]), ", ".join(one.stored)
    said = f"{first} -> {second}; listed before: {before}; now: {now} (3); a token issued now has {second}"
    assert project.message("rotated") == said
    assert said in turned
    assert project.probes("rotated") == [("a live token", "accepted"), ("a new token", "accepted")]
    assert (one.restarts, one.asked("generate")[-1].headers["X-Mfa"]) == (5, _CODE)

    project.log.write_text("")
    project.logged(f"verified kid={second} client=web")
    retired = _ok(controller.run(project.inventory, "retire", confirm=_NAME))
    assert project.message("retired") == f"{first} is disabled"
    assert (first in project.enabled, one.restarts, project.statuses[-1]) == (False, 6, "retired")

    replaced = _ok(controller.run(project.inventory, "emergency", only=_NAME, confirm=_NAME, watch="0s"))
    third = one.signing()
    assert (third in (first, second), second in project.enabled, project.statuses[-1]) == (False, False, "replaced")
    assert project.message("replaced").startswith(f"{second} -> {third}; listed before: ")
    assert f"{second} is disabled" in replaced
    assert ("exposed" in replaced, one.restarts) == (True, 7)

    found, canaries = Search(), _canaries(one)
    project.inventory.unlink()
    project.codes.unlink()
    canaries.search_bytes(found, "output", "".join([failed.output, turned, retired, replaced]).encode())
    canaries.search_files(found, [tmp_path])
    assert (found.found, found.files > 10) == ({}, True)


@pytest.mark.parametrize("project", [False], indirect=True)
def test_an_api_that_disables_nothing_leaves_the_former_key_and_says_so(project: _Project, tmp_path: Path) -> None:
    one = project.one
    controller = Controller(tmp_path / "home", {"ADMIN_TOKEN": one.bearer})
    project.write(shape="by_query")
    first = one.signing()
    project.logged("started")

    _ok(controller.run(project.inventory, "rotate", only=_NAME))
    second = one.signing()
    assert second != first
    _ok(controller.run(project.inventory, "rollback", only=_NAME))
    assert (one.signing(), project.statuses) == (first, ["rolled_back"])
    assert project.message("rolled_back").startswith(f"{first} signs again, {second} stays listed; ")

    _ok(controller.run(project.inventory, "rotate", only=_NAME))
    third = one.signing()
    project.logged(f"verified kid={third} client=web")
    _ok(controller.run(project.inventory, "retire", confirm=_NAME))
    assert project.message("retired") == f"{first} stays listed and accepted: this API disables no keys"
    assert (project.enabled, one.restarts, project.statuses) == ([first, second, third], 0, ["rolled_back", "retired"])
