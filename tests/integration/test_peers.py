# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signing key of an OpenID provider turns, and tokens are judged by gateways and libraries that others wrote."""

from __future__ import annotations

import json
import re
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.tokens import sign_token
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.forms import make_key
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.mapping import parse_table
from demo.postgres import PostgresServer

from tests.support.controller import Controller, Ended, registry
from tests.support.local import LOCAL
from tests.support.peers import AUDIENCE, ISSUER_NAME, LEEWAY, Peers, until, verified_by_joserfc
from tests.support.signing import KEY
from tests.support.token_client import TokenClient

_ROOT = Path(__file__).resolve().parents[2]
_NAME = "JWT_SIGNING"
_ENVELOPE = Envelope(load_spec("aes256gcm-b64"), KEY.encode())


def _example(name: str) -> str:
    """The block of the page about the overlap that begins with this file name."""
    text = (_ROOT / "docs/overlap.md").read_text()
    found = re.search(rf"```\w+\n# {re.escape(name)}\n(.*?)```", text, re.DOTALL)
    assert found is not None, name
    return found.group(1)


@pytest.fixture
def peers(tmp_path: Path, server: PostgresServer) -> Iterator[Peers]:
    name = f"t{uuid.uuid4().hex[:12]}"
    dsn = server.create_database(name).owner_dsn
    with ExitStack() as stack:
        stack.callback(server.drop_database, name)
        provider = yaml.safe_load(_example("envoy.yaml"))
        yield stack.enter_context(Peers(tmp_path / "peers", dsn, provider, _example("nginx.conf")))


class _Project:
    """The documented catalog, with the addresses and times of these peers."""

    def __init__(self, folder: Path, peers: Peers) -> None:
        self.peers, self.state_dir, self.inventory = peers, folder / "state", folder / "inventory.yml"
        self.state_dir.mkdir(mode=0o700, parents=True)
        text = _example("catalog.yml").replace("hosts: edge", "hosts: one")
        for documented, here in (
            ("https://identity.example.com/jwks", peers.jwks["issuer"]),
            ("https://edge.example.com/.well-known/jwks.json", peers.jwks["nginx"]),
            ("https://api.example.com/ping", peers.url("envoy", "/ping")),
        ):
            text = text.replace(documented, here)
        catalog = yaml.safe_load(text)
        secret = catalog["keyturn_secrets"][_NAME]
        secret["window"].update(
            token_lifetime=f"{peers.token_lifetime}s", gateway_cache=f"{peers.cache}s", skew=f"{LEEWAY}s"
        )
        catalog["keyturn_secrets"]["JWK_AES_KEY"] = {
            "kind": "encryption_key",
            "stores": [{"hosts": "one", "type": "env_file", "path": str(peers.env_file)}],
            "data": [
                {"database": "identity", "table": "jwks_keys", "column": "private_jwk", "envelope": "aes256gcm-b64"}
            ],
        }
        catalog.update(
            keyturn_state_host="one",
            keyturn_state_dir=str(self.state_dir),
            keyturn_databases={"identity": {"hosts": "one", "dsn": peers.dsn}},
        )
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": {"one": {}}}}))

    @property
    def rotation(self) -> dict[str, Any]:
        """The only one there is."""
        (found,) = registry(self.state_dir)["rotations"].values()
        return dict(found)

    def wait_until_due(self) -> None:
        """Wait for the end of the overlap."""
        due = _stamp(self.rotation["retire_after"])
        until(lambda: time.time() > due, "the end of the overlap")


def _stamp(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _ok(ended: Ended) -> str:
    assert ended.code == 0, ended.output
    return ended.output


def _private(peers: Peers, kid: str) -> bytes:
    """The private JWK of a key, as the issuer reads it."""
    with psycopg.connect(peers.dsn) as link:
        row = link.execute("SELECT private_jwk FROM jwks_keys WHERE kid = %s", (kid,)).fetchone()
    opened = _ENVELOPE.open(row[0].encode()) if row else None
    assert opened is not None
    return opened


def _probe(private: bytes, kid: str) -> str:
    """A token as our probes sign it, valid for longer than any test."""
    claims = {"iss": ISSUER_NAME, "aud": AUDIENCE, "sub": "probe"}
    return sign_token(private, {"claims": claims, "lifetime": "1h"}, kid, time.time()).decode()


def _verified_by_pyjwt(token: str, jwks: dict[str, Any]) -> dict[str, Any] | None:
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(jwks).keys}
    key = keys.get(jwt.get_unverified_header(token)["kid"])
    if key is None:
        return None
    return dict(jwt.decode(token, key, ["RS256"], audience=AUDIENCE, issuer=ISSUER_NAME, leeway=LEEWAY))


def _verdicts(peers: Peers, token: str) -> set[bool]:
    """What the libraries say of a token, with what the issuer publishes, and the gateways."""
    jwks = peers.published()
    said = {check(token, jwks) is not None for check in (_verified_by_pyjwt, verified_by_joserfc)}
    return said | {peers.present(gateway, token) == 200 for gateway in peers.gateways}


def test_no_request_fails_while_the_key_of_an_openid_provider_turns(
    peers: Peers, controller: Controller, tmp_path: Path
) -> None:
    project = _Project(tmp_path / "project", peers)
    (first,) = peers.kids()
    former = _private(peers, first)
    kept = _probe(former, first)
    with TokenClient(peers) as client:
        said = [_ok(controller.run(project.inventory, "rotate", only=_NAME))]
        second = next(kid for kid in peers.kids("nginx") if kid != first)
        until(lambda: client.kids == {first, second}, "tokens of the new key")
        assert set(peers.kids()) == set(peers.kids("nginx")) == {first, second}
        current = _private(peers, second)
        for token in (kept, _probe(current, second), peers.token()):
            assert _verdicts(peers, token) == {True}

        project.wait_until_due()
        said.append(_ok(controller.run(project.inventory, "retire", only=_NAME)))
        assert peers.kids() == peers.kids("nginx") == [second]
        assert [peers.present(gateway, kept) for gateway in ("envoy", "nginx")] == [401, 401]
        until(lambda: _verdicts(peers, kept) == {False}, "the former key to be refused everywhere")
        assert _verdicts(peers, _probe(current, second)) == {True}

        assert peers.fetches("failed") == (0, 0)

    assert client.failures == []
    for gateway in peers.gateways:
        accepted = client.accepted(gateway)
        assert len(accepted) > 100
        assert sum(one.is_aged for one in accepted) > 30
    assert len(peers.api.asked) >= sum(len(client.accepted(gateway)) for gateway in peers.gateways)
    assert project.rotation["status"] == "retired"
    evidence = "".join(path.read_text() for path in project.state_dir.glob("evidence/*/evidence.json"))
    for secret in (KEY, json.loads(former)["d"], json.loads(current)["d"]):
        assert secret not in "".join(said) + evidence


def _last(client: TokenClient, token: str) -> dict[str, float]:
    """By gateway, when a request with a token was last sent that was let in."""
    return {
        gateway: max(one.sent for one in client.accepted(gateway) if one.token.text == token)
        for gateway in client.peers.gateways
    }


def test_tokens_of_a_compromised_key_end_within_the_time_that_was_announced(
    peers: Peers, controller: Controller, tmp_path: Path
) -> None:
    project = _Project(tmp_path / "project", peers)
    (first,) = peers.kids()
    stolen = _probe(_private(peers, first), first)
    with TokenClient(peers, (stolen,)) as client:
        until(lambda: client.kids == {first}, "tokens to be let in")
        began = time.time()
        said = _ok(controller.run(project.inventory, "emergency", only=_NAME, confirm=_NAME, watch="0s"))
        assert _verdicts(peers, stolen) == {False}
        (second,) = peers.kids()
        until(lambda: client.kids == {first, second}, "tokens of the new key")

    (path,) = project.state_dir.glob("evidence/*/evidence.json")
    evidence = json.loads(path.read_text())
    (exposed,) = evidence["exposed"]
    ended = _stamp(exposed["until"])
    assert exposed["seconds"] == peers.max_age + peers.cache + 1 + LEEWAY
    assert all(last <= ended for last in _last(client, stolen).values())
    assert client.without == []
    for one in client.log:
        if one.is_failure:
            assert one.status == "401"
            assert one.sent >= began
            assert one.token.kid == first or one.sent <= ended
    assert project.rotation["status"] == "replaced"
    current = _private(peers, second)
    for secret in (KEY, json.loads(current)["d"]):
        assert secret not in said + json.dumps(evidence)


def _publish_another(peers: Peers) -> str:
    """A key that signs at once, as somebody makes it who waits for nobody; its kid."""
    table = parse_table({"database": "identity", "shape": "newest", "columns": {"tenant": ""}})
    key = make_key({"type": "rsa", "bits": 2048, "alg": "RS256"}, table.form)
    query = """
        INSERT INTO jwks_keys (id, kid, public_jwk, private_jwk)
        VALUES (gen_random_uuid(), %s, %s, %s)"""
    with psycopg.connect(peers.dsn) as link:
        link.execute(query, (key.kid, key.public, _ENVELOPE.seal(key.private).decode()))
    until(lambda: key.kid in peers.kids(), "the issuer to publish a key")
    return key.kid


def _is_accepted(peers: Peers, number: int, token: str, before: tuple[int, int]) -> bool:
    """Whether a gateway has come to know a kid, which it can only by a fetch."""
    status = peers.present(peers.gateways[number], token)
    assert status == 401 or peers.fetches()[number] > before[number]
    return status == 200


def test_what_the_caches_of_gateways_do_is_what_is_documented(peers: Peers) -> None:
    envoy, ahead, nginx = peers.gateways
    (first,) = peers.kids()
    known = _probe(_private(peers, first), first)
    assert _verdicts(peers, known) == {True}

    before, began = peers.fetches(), time.monotonic()
    nobody = _probe(_private(peers, first), str(uuid.uuid4()))
    assert {peers.present(gateway, nobody) for gateway in (envoy, ahead) * 10} == {401}
    elapsed, after = time.monotonic() - began, peers.fetches()
    assert after[0] - before[0] <= 1 + elapsed // peers.cache
    assert after[1] - before[1] <= 1 + elapsed // (peers.cache - 5)

    before = peers.fetches()
    kid = _publish_another(peers)
    unknown = _probe(_private(peers, kid), kid)
    until(lambda: _is_accepted(peers, 0, unknown, before), "Envoy to fetch after its cache has ended")
    until(lambda: _is_accepted(peers, 1, unknown, before), "Envoy to fetch ahead of time")
    assert peers.present(nginx, unknown) == 401
    refresh = urllib.request.Request(peers.jwks["nginx"], headers={"X-Refresh-Keys": "1"})
    with urllib.request.urlopen(refresh) as answer:
        assert kid in {key["kid"] for key in json.load(answer)["keys"]}
    assert _verdicts(peers, unknown) == {True}

    peers.stop_issuer()
    until(lambda: peers.present(envoy, known) == 401, "Envoy to be without keys")
    until(lambda: peers.fetches("failed")[1] > peers.cache, "Envoy to have failed for longer than its cache lasts")
    assert [peers.present(gateway, known) for gateway in peers.gateways] == [401, 200, 200]
    peers.start_issuer()
    until(lambda: peers.present(envoy, known) == 200, "Envoy to have keys again")
