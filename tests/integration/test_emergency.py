# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compromised signing key is replaced at once, forward only: a gateway fails, a run is killed, nothing goes back."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from demo.postgres import Database, PostgresServer
from jwt.algorithms import ECAlgorithm

from tests.support.controller import Controller, Ended, kill_marked, registry
from tests.support.endpoint import Asked, endpoint
from tests.support.identity import Gateway
from tests.support.local import LOCAL
from tests.support.signing import EC, KEY, Keys

_NAME = "JWT_SIGNING"


def _jwk(pem: str) -> dict[str, Any]:
    public = load_pem_public_key(pem.replace("\\n", "\n").encode())
    assert isinstance(public, EllipticCurvePublicKey)
    return ECAlgorithm.to_jwk(public, as_dict=True)


class _Stack:
    """An issuer that reads its table when it is started, an edge that caches, a log, and signed documents."""

    def __init__(self, folder: Path, database: Database, entered: ExitStack) -> None:
        folder.mkdir()
        self.state_dir, self.inventory = folder / "state", folder / "inventory.yml"
        self.log, self.starts, self.key_file = folder / "edge.log", folder / "starts", folder / "kek"
        self.edge_starts, self._edge_started = folder / "edge_starts", ""
        self.edge_starts.write_text("")
        self.state_dir.mkdir(mode=0o700)
        self.key_file.touch(0o600)
        self.key_file.write_text(KEY)
        self.starts.write_text("")
        self.keys = Keys(database.owner_dsn, folder / "unused", "flags")
        self.keys.sql.execute("CREATE TABLE notes (id int PRIMARY KEY, body jsonb NOT NULL, jws text)")
        self._held: tuple[str, str] = ("", "")
        self.is_down = False
        issuer = entered.enter_context(endpoint(self._publish))
        self.edge = Gateway(f"{issuer.url}/jwks.json")
        self.edge.here = entered.enter_context(endpoint(self._at_the_edge))

    def _publish(self, _asked: Asked) -> tuple[int, Mapping[str, str], str]:
        started = self.starts.read_text() or "first"
        if self._held[0] != started:
            with psycopg.connect(self.keys.dsn) as link:
                rows = link.execute("SELECT kid, public_pem FROM signing_keys WHERE enabled").fetchall()
            found = [{**_jwk(pem), "kid": kid, "use": "sig", "alg": "ES256"} for kid, pem in rows]
            self._held = started, json.dumps({"keys": found})
        return 200, {"Cache-Control": "max-age=3"}, self._held[1]

    def _at_the_edge(self, asked: Asked) -> tuple[int, Mapping[str, str], str]:
        if self.edge_starts.read_text() != self._edge_started:
            self._edge_started = self.edge_starts.read_text()
            self.edge.purge()
        answer = (503, {}, "") if self.is_down else self.edge.answer(asked)
        self.logged(f"{asked.method} {asked.path} {answer[0]}")
        return answer

    def logged(self, line: str) -> None:
        """One line in the edge's log, of now."""
        with self.log.open("a") as stream:
            stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")

    def document(self, number: int, kid: str) -> None:
        """A document under a kid."""
        private: Any = self.keys.private_key(kid)
        signed = jwt.encode({"n": number}, private, "ES256", headers={"kid": kid})
        self.keys.sql.execute("INSERT INTO notes VALUES (%s, %s, %s)", (number, json.dumps({"n": number}), signed))

    @property
    def document_kids(self) -> set[str]:
        """Under which the documents are signed."""
        found = self.keys.sql.execute("SELECT jws FROM notes").fetchall()
        return {jwt.get_unverified_header(row[0])["kid"] for row in found}

    def lets_in(self, kid: str) -> bool:
        """Whether the edge takes a token of this key."""
        private: Any = self.keys.private_key(kid)
        token = jwt.encode({"iss": "identity"}, private, "ES256", headers={"kid": kid})
        return self.edge.answer(Asked("GET", "/api", {"Authorization": f"Bearer {token}"}, b""))[0] == 200

    def write(self, restarts_edge: bool = False, **more: Any) -> None:
        """The inventory; ``more`` are fields of the signing key.

        :param restarts_edge: whether the edge is restarted for a new key, and not only its cache emptied.
        """
        figures = {"token_lifetime": "15m", "refresh_lifetime": "0s", "gateway_cache": "10m", "reload": "5m"}
        purge = {"url": f"{self.edge.here.url}/purge", "method": "POST"}
        edge = {"name": "edge", "url": self.edge.url, "refresh": "purge", "purge": purge, "within": "20s"}
        if restarts_edge:
            edge = {**edge, "refresh": "restart", "service": "edge"}
            del edge["purge"]
        token = {"type": "token", "hosts": "one", "url": self.edge.api, "token": {"claims": {"iss": "identity"}}}
        failures = {"type": "log", "hosts": "one", "path": str(self.log), "pattern": "GET /api 401", "at_most": 2}
        secret = {
            "kind": "signing_key",
            "generate": EC,
            "key_table": {"database": "app", "shape": "flags", "key_from": {"file": str(self.key_file)}},
            "consumers": ["issuer"],
            "window": {**figures, "skew": "2s"},
            "jwks": [edge],
            "documents": [{"database": "app", "table": "notes", "document": "body", "signature": "jws"}],
            "probes": [{"name": "edge", "version": "new", **token}, {"name": "failures", **failures}],
            **more,
        }

        def service(starts: Path) -> dict[str, Any]:
            started = ["/bin/sh", "-c", f"echo started >> {starts}"]
            commands = {"start": started, "stop": ["true"], "restart": started}
            return {"hosts": "one", "manager": "command", **commands, "health": {"command": ["true"]}}

        catalog = {
            "keyturn_state_host": "one",
            "keyturn_state_dir": str(self.state_dir),
            "keyturn_databases": {"app": {"hosts": "one", "dsn": self.keys.dsn}},
            "keyturn_services": {"issuer": service(self.starts), "edge": service(self.edge_starts)},
            "keyturn_secrets": {_NAME: secret},
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": {"one": {}}}}))

    @property
    def statuses(self) -> list[str]:
        """Of all rotations, in the order in which they began."""
        found = registry(self.state_dir)["rotations"].values()
        return [rotation["status"] for rotation in sorted(found, key=lambda each: str(each["started_at"]))]

    def evidence(self, event: str) -> list[dict[str, Any]]:
        """What was sealed of an event."""
        return [json.loads(path.read_text()) for path in self.state_dir.glob(f"evidence/*.{event}*/evidence.json")]


@pytest.fixture
def stack(tmp_path: Path, server: PostgresServer) -> Iterator[_Stack]:
    name = f"t{uuid.uuid4().hex[:12]}"
    try:
        with ExitStack() as entered:
            made = _Stack(tmp_path / name, server.create_database(name), entered)
            made.write()
            yield made
            made.keys.sql.close()
    finally:
        server.drop_database(name)


def _ok(ended: Ended) -> str:
    assert ended.code == 0, ended.output
    return ended.output


@contextmanager
def _clients(stack: _Stack) -> Iterator[None]:
    """Somebody who asks the edge all the time, so that its log is not silent."""
    ends = threading.Event()

    def ask() -> None:
        while not ends.wait(0.5):
            stack.logged("GET /api 200")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _killed_in(stack: _Stack, controller: Controller, phase: str) -> None:
    """Run the emergency and kill everything of it once it is in this phase."""
    process = controller.start(stack.inventory, "emergency", only=_NAME, confirm=_NAME, watch="3s")
    for _attempt in range(3000):
        open_ones = registry(stack.state_dir)["rotations"].values()
        if process.poll() is not None or any(each["holder"] and each["phase"] == phase for each in open_ones):
            break
        time.sleep(0.02)
    assert process.poll() is None
    kill_marked(controller)
    process.communicate()


def test_trap_44_a_compromised_key_is_replaced_at_once_and_nothing_brings_it_back(
    stack: _Stack, controller: Controller
) -> None:
    stack.keys.fill()
    old = stack.keys.signing()[""]
    stack.document(1, old)
    assert stack.lets_in(old)

    unsaid = controller.run(stack.inventory, "emergency", only=_NAME)
    assert unsaid.code != 0
    assert f"keyturn_confirm={_NAME}" in unsaid.output
    looked = _ok(controller.run(stack.inventory, "emergency", "--check", only=_NAME))
    assert "tokens of the old key can still be accepted for 5.0 s = 3.0 s jwks_max_age (edge) + 2.0 s skew" in looked
    assert stack.keys.signing() == {"": old}
    assert stack.statuses == []

    stack.is_down = True
    failed = controller.run(stack.inventory, "emergency", only=_NAME, confirm=_NAME, watch="3s")
    assert failed.code != 0
    new = stack.keys.signing()[""]
    assert new != old
    assert old not in stack.keys.published()
    assert "The new key signs and the former one is disabled; nothing was brought back" in failed.output
    assert stack.statuses == ["replacing"]
    for playbook in ("rollback", "rotate"):
        refused = controller.run(stack.inventory, playbook, only=_NAME)
        assert refused.code != 0
        assert "goes forward only" in refused.output
    assert stack.keys.signing() == {"": new}

    stack.is_down = False
    _killed_in(stack, controller, "prove")
    with _clients(stack):
        done = _ok(controller.run(stack.inventory, "emergency", only=_NAME, confirm=_NAME, watch="3s"))
    assert stack.keys.signing() == {"": new}
    assert (stack.lets_in(new), stack.lets_in(old)) == (True, False)
    assert stack.document_kids == {new}
    assert stack.statuses == ["replaced"]
    (record,) = stack.evidence("replaced")
    assert [(entry["version"], entry["state"]) for entry in record["secrets"][0]["versions"]] == [
        ("new", "primary"),
        ("old", "compromised"),
    ]
    assert [(probe["name"], probe["version"], probe["result"]) for probe in record["probes"]] == [
        ("edge", "new", "accepted"),
        ("edge, refused for the old version", "old", "refused"),
        ("failures", "new", "accepted"),
    ]
    (exposed,) = record["exposed"]
    assert (exposed["seconds"], [part["name"] for part in exposed["parts"]]) == (5, ["jwks_max_age", "skew"])
    assert exposed["until"] > record["when"]["started_at"]

    gone = controller.run(stack.inventory, "rollback", only=_NAME)
    assert gone.code != 0
    assert "nothing brings that one back" in gone.output
    shown = _ok(controller.run(stack.inventory, "status"))
    assert "the version before was compromised and is disabled" in shown
    turned = _ok(controller.run(stack.inventory, "rotate", only=_NAME))
    assert stack.keys.signing()[""] not in (old, new)
    assert (stack.lets_in(new), stack.lets_in(old)) == (True, False)
    assert stack.statuses == ["replaced", "overlap"]
    said = "".join([looked, failed.output, done, turned]) + json.dumps([record, *stack.evidence("failed")])
    for kid in (old, new):
        private = stack.keys.private(kid).decode()
        assert private.replace("\\n", "\n").split("\n")[1] not in said
    assert KEY not in said


def test_an_empty_table_gets_its_first_key_when_that_is_said_and_an_emergency_waits_for_no_rotation(
    stack: _Stack, controller: Controller
) -> None:
    stack.write(documents=[], probes=[])
    lost = controller.run(stack.inventory, "emergency", only=_NAME, confirm=_NAME)
    assert lost.code != 0
    assert "Restore the table, or make the first key with initial" in lost.output
    assert "The emergency was refused. Nothing was replaced" in lost.output
    assert stack.keys.rows() == []
    assert stack.statuses == ["rolled_back"]

    table = {"database": "app", "shape": "flags", "key_from": {"file": str(stack.key_file)}}
    stack.write(documents=[], probes=[], key_table={**table, "initial": True})
    _ok(controller.run(stack.inventory, "emergency", only=_NAME, confirm=_NAME))
    first = stack.keys.signing()[""]
    assert stack.lets_in(first)
    assert stack.statuses == ["rolled_back", "replaced"]

    stack.write(documents=[], probes=[])
    _ok(controller.run(stack.inventory, "rotate", only=_NAME, until="stage"))
    (waiting,) = stack.keys.published() - {first}
    by_hand = stack.keys.add(1, current=False)  # no rotation of ours knows of it
    _ok(controller.run(stack.inventory, "emergency", only=_NAME, confirm=_NAME))
    (new,) = stack.keys.published() - {by_hand}
    assert stack.keys.signing() == {"": new}
    assert new not in (first, waiting)
    assert stack.statuses == ["rolled_back", "replaced", "superseded", "replaced"]

    stack.write(restarts_edge=True, documents=[], probes=[])
    assert (stack.lets_in(new), stack.edge_starts.read_text()) == (True, "")
    _ok(controller.run(stack.inventory, "emergency", only=_NAME, confirm=_NAME, disable="all"))
    (last,) = stack.keys.published()
    assert last not in (new, by_hand)
    assert stack.edge_starts.read_text() == "started\n"
    assert (stack.lets_in(last), stack.lets_in(new), stack.lets_in(by_hand)) == (True, False, False)
