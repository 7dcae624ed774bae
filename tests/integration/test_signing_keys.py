# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing keys of a real issuer turn in its table: published, promoted, taken back, disabled."""

from __future__ import annotations

import base64
import json
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from demo.postgres import Database, PostgresServer

from tests.support.controller import Controller, Ended, registry
from tests.support.documents import PolicyRig
from tests.support.endpoint import Asked, endpoint
from tests.support.local import LOCAL
from tests.support.signing import KEY, Keys, published_jwks

_NAME = "JWT_SIGNING"


class _Issuer:
    """Publishes the keys of its table and signs with the newest of each account, as it finds them."""

    def __init__(self, dsn: str, env_file: Path) -> None:
        self._dsn, self._env_file = dsn, env_file

    def answer(self, asked: Asked) -> tuple[int, Mapping[str, str], str]:
        """``/jwks.json`` or ``/token/<account>``."""
        with psycopg.connect(self._dsn) as link:
            if asked.path == "/jwks.json":
                rows = link.execute(
                    "SELECT kid::text, public_jwk FROM jwks_keys WHERE public_jwk IS NOT NULL"
                ).fetchall()
                return 200, {}, json.dumps({"keys": [{**jwk, "kid": kid} for kid, jwk in rows]})
            query = """
                SELECT kid::text, private_jwk FROM jwks_keys WHERE account_id = %s
                ORDER BY created_at DESC LIMIT 1"""
            row = link.execute(query, (asked.path.rpartition("/")[2],)).fetchone()
        key = self._env_file.read_text().partition("JWK_AES_KEY=")[2].strip()
        opened = Envelope(load_spec("aes256gcm-b64"), key.encode()).open(row[1].encode()) if row else None
        if row is None or opened is None:
            return 500, {}, "no key"
        private: Any = jwt.PyJWK(json.loads(opened)).key
        return 200, {}, jwt.encode({"sub": asked.path}, private, json.loads(opened)["alg"], headers={"kid": row[0]})


class _Project:
    """One host with the issuer's table and the key of its private parts."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.state_dir = folder / "state"
        self.env_file = folder / ".env"
        self.inventory = folder / "inventory.yml"
        self.state_dir.mkdir(mode=0o700, parents=True)
        self.env_file.touch(0o600)
        self.env_file.write_text(f"JWK_AES_KEY={KEY}\n")
        self.dsn = database.owner_dsn

    def write(self, table: dict[str, Any], generate: dict[str, Any], **more: Any) -> None:
        """Write the inventory; ``more`` are fields of the signing key."""
        catalog = {
            "keyturn_state_host": "one",
            "keyturn_state_dir": str(self.state_dir),
            "keyturn_databases": {"app": {"hosts": "one", "dsn": self.dsn}},
            "keyturn_secrets": {
                "JWK_AES_KEY": {
                    "kind": "encryption_key",
                    "stores": [{"hosts": "one", "type": "env_file", "path": str(self.env_file)}],
                    "data": [
                        {"database": "app", "table": "jwks_keys", "column": "private_jwk", "envelope": "aes256gcm-b64"}
                    ],
                },
                _NAME: {
                    "kind": "signing_key",
                    "generate": generate,
                    "key_table": {"database": "app", **table},
                    "overlap_min": "1h",
                    **more,
                },
            },
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": {"one": {}}}}))

    @property
    def statuses(self) -> list[str]:
        return [rotation["status"] for rotation in registry(self.state_dir)["rotations"].values()]

    @property
    def evidence(self) -> list[dict[str, Any]]:
        """What was sealed, the oldest first."""
        found = [json.loads(path.read_text()) for path in self.state_dir.glob("evidence/*/evidence.json")]
        return sorted(found, key=lambda record: str(record["when"]["ended_at"]))


@pytest.fixture
def project(tmp_path: Path, server: PostgresServer) -> Iterator[_Project]:
    name = f"t{uuid.uuid4().hex[:12]}"
    try:
        yield _Project(tmp_path / name, server.create_database(name))
    finally:
        server.drop_database(name)


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode())


class _Client:
    """Gets tokens of some accounts and verifies them with what the issuer publishes."""

    def __init__(self, url: str, accounts: list[str]) -> None:
        self._url, self._accounts = url, accounts

    def tokens(self) -> list[str]:
        return [_fetch(f"{self._url}/token/{account}") for account in self._accounts]

    @property
    def kids(self) -> list[str]:
        return [jwt.get_unverified_header(token)["kid"] for token in self.tokens()]

    def published(self) -> dict[str, Any]:
        return {key["kid"]: key for key in json.loads(_fetch(f"{self._url}/jwks.json"))["keys"]}

    def accepts(self, tokens: list[str]) -> list[bool]:
        keys = self.published()
        return [self._accepts(token, keys) for token in tokens]

    @staticmethod
    def _accepts(token: str, keys: dict[str, Any]) -> bool:
        jwk = keys.get(jwt.get_unverified_header(token)["kid"])
        return jwk is not None and bool(jwt.decode(token, jwt.PyJWK(jwk).key, [jwk["alg"]]))


def _ok(ended: Ended) -> str:
    assert ended.code == 0, ended.output
    return ended.output


_PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming-from" / "rotate-all-jwks.md"


def _documented() -> dict[str, Any]:
    """The signing key of the catalog that the page shows."""
    catalog = yaml.safe_load(_PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0])
    secret: dict[str, Any] = catalog["keyturn_secrets"][_NAME]
    return secret


class _Policies:
    """Two active policies of each of two accounts, and a draft."""

    def __init__(self, keys: Keys, folder: Path) -> None:
        self.keys = keys
        self.rig = PolicyRig(keys.dsn, folder)
        for number, account in enumerate((keys.tenant(1), keys.tenant(2)) * 2):
            kid = keys.signing()[account]
            private: Any = jwt.PyJWK(json.loads(keys.private(kid))).key
            signed = jwt.encode({"n": number}, private, "ES256", headers={"kid": kid})
            self._add(account, f"app-{number}", False, signed, kid)
        self._add(keys.tenant(1), "app-0", True, None, None, version=2)

    def _add(self, account: str, app: str, draft: bool, signed: str | None, kid: str | None, version: int = 1) -> None:
        query = """INSERT INTO policies (account_id, app_name, version, bundle, jws, is_draft, signed_with_kid)
                   VALUES (%s, %s, %s, '{"rule": 1}', %s, %s, %s)"""
        self.rig.sql.execute(query, (account, app, version, signed, draft, kid))

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """All of them by id."""
        return self.rig.rows()

    def hold(self, published: dict[str, Any]) -> list[tuple[str, str, int]]:
        """Account, kid and version of each active policy, each checked with what is published."""
        found = []
        for row in self.rows.values():
            if row["is_draft"]:
                assert row["jws"] is None
                continue
            kid = jwt.get_unverified_header(row["jws"])["kid"]
            jwk = published[kid]
            audience = f"d2-policy:{row['account_id']}:{row['app_name']}"
            claims = jwt.decode(row["jws"], jwt.PyJWK(jwk).key, [jwk["alg"]], audience=audience)
            assert (claims["rule"], claims["iss"]) == (1, "d2-policy-service")
            assert row["signed_with_kid"] == kid
            found.append((row["account_id"], kid, row["version"]))
        return sorted(found)


def test_the_signing_keys_of_an_issuer_turn_go_back_turn_again_and_the_former_ones_end(
    project: _Project, controller: Controller, tmp_path: Path
) -> None:
    keys = Keys(project.dsn, tmp_path / "unused", "newest")
    keys.fill(2)
    policies = _Policies(keys, tmp_path)
    before = policies.rows
    page = _documented()
    project.write(page["key_table"], page["generate"], documents=page["documents"])
    said = []
    with ExitStack() as stack:
        issuer = stack.enter_context(endpoint(_Issuer(project.dsn, project.env_file).answer))
        client = _Client(issuer.url, [keys.tenant(1), keys.tenant(2)])
        first, first_kids = client.tokens(), client.kids

        said.append(_ok(controller.run(project.inventory, "rotate", only=_NAME, until="stage")))
        assert client.kids == first_kids
        assert len(client.published()) == 6

        said.append(_ok(controller.run(project.inventory, "rotate", only=_NAME)))
        second, second_kids = client.tokens(), client.kids
        assert not set(first_kids) & set(second_kids)
        assert client.accepts([*first, *second]) == [True] * 4
        # the draft has version 2 of one of the four
        accounts = [keys.tenant(1), keys.tenant(2)]
        turned = [(account, kid, 2) for account, kid in zip(accounts, second_kids) for _twice in "12"]
        turned[1] = (*turned[1][:2], 3)
        assert policies.hold(client.published()) == sorted(turned)

        early = controller.run(project.inventory, "retire", only=_NAME)
        assert early.code != 0
        assert "may be retired after" in early.output
        assert client.accepts(first) == [True, True]

        # The state host's clock is ahead, and the database's is right
        register = registry(project.state_dir)
        (turned_in,) = register["rotations"].values()
        turned_in["retire_after"] = turned_in["started_at"]
        (project.state_dir / "registry.json").write_text(json.dumps(register))
        ahead = controller.run(project.inventory, "retire", only=_NAME)
        assert ahead.code != 0
        assert "Nothing was retired or removed, and the way back is open" in ahead.output
        assert "the new keys sign for " in ahead.output
        assert client.accepts(first) == [True, True]

        said.append(_ok(controller.run(project.inventory, "rollback", only=_NAME)))
        assert client.kids == first_kids
        assert policies.rows == before
        assert client.accepts([*first, *second]) == [True] * 4

        said.append(_ok(controller.run(project.inventory, "rotate", only=_NAME)))
        third = client.tokens()
        said.append(_ok(controller.run(project.inventory, "retire", only=_NAME, confirm=_NAME)))
        assert client.accepts([*first, *second, *third]) == [False] * 4 + [True] * 2
        new_kids = client.kids
        assert [kid for _account, kid, _version in policies.hold(client.published())] == sorted(
            new_kids * 2, key=new_kids.index
        )

    assert project.statuses == ["rolled_back", "retired"]
    notes = [text for record in project.evidence for text in record["messages"]]
    for words in ("2 made", "2 sign now", "2 taken out of use again and still accepted", "4 of before disabled"):
        assert f"signing keys of {_NAME}: {words}" in notes
    private = json.loads(keys.private(new_kids[0]))
    keys.sql.close()
    policies.rig.sql.close()
    for secret in (KEY, base64.b64decode(KEY).hex(), private["d"]):
        assert secret not in "".join(said) + json.dumps(project.evidence)


class _Notes:
    """Documents of an issuer that publishes every enabled key of a table of the shape ``flags``."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        keys.sql.execute("CREATE TABLE notes (id int PRIMARY KEY, body jsonb NOT NULL, jws text)")

    def publish(self, _asked: Asked) -> tuple[int, Mapping[str, str], str]:
        """The JWKS; it may be kept for a second."""
        with psycopg.connect(self.keys.dsn) as link:
            return 200, {"Cache-Control": "max-age=1"}, json.dumps({"keys": published_jwks(link)})

    def add(self, number: int, kid: str) -> None:
        """A document under a kid."""
        private: Any = self.keys.private_key(kid)
        signed = jwt.encode({"n": number}, private, "ES256", headers={"kid": kid})
        self.keys.sql.execute("INSERT INTO notes VALUES (%s, %s, %s)", (number, json.dumps({"n": number}), signed))

    @property
    def signatures(self) -> list[str]:
        """Of all documents."""
        return [row[0] for row in self.keys.sql.execute("SELECT jws FROM notes ORDER BY id").fetchall()]

    @property
    def kids(self) -> list[str]:
        """Under which the documents are signed, each checked with what is published."""
        published = {key["kid"]: key for key in json.loads(self.publish(Asked("GET", "/", {}, b""))[2])["keys"]}
        kids = [jwt.get_unverified_header(text)["kid"] for text in self.signatures]
        for text, kid in zip(self.signatures, kids):
            jwt.decode(text, jwt.PyJWK(published[kid]).key, ["ES256"])
        return kids


def test_documents_are_signed_again_with_their_key_and_go_back_with_it(
    project: _Project, controller: Controller, tmp_path: Path
) -> None:
    keys = Keys(project.dsn, tmp_path / "unused", "flags")
    keys.fill()
    notes, first = _Notes(keys), keys.signing()[""]
    older = keys.published() - {first}  # of a time before any rotation, so none may end it
    for number in (1, 2):
        notes.add(number, first)
    before = notes.signatures
    key_file = tmp_path / "kek"
    key_file.touch(0o600)
    key_file.write_text(KEY)
    figures = dict.fromkeys(("token_lifetime", "refresh_lifetime", "gateway_cache", "reload", "skew"), "0s")
    said = []
    with ExitStack() as stack:
        issuer = stack.enter_context(endpoint(notes.publish))
        project.write(
            {"shape": "flags", "key_from": {"file": str(key_file)}},
            {"type": "ec", "curve": "P-256"},
            window=figures,
            jwks=[{"name": "issuer", "url": f"{issuer.url}/jwks.json", "within": "10s"}],
            documents=[{"database": "app", "table": "notes", "document": "body", "signature": "jws"}],
        )
        said.append(_ok(controller.run(project.inventory, "rotate", only=_NAME)))
        second = keys.signing()[""]
        assert notes.kids == [second, second] != [first, first]
        (row,) = project.evidence[-1]["coverage"]
        assert (row["database"], row["total"], row["new"], row["old"]) == ("app", 2, 2, 0)
        (signing,) = project.evidence[-1]["signing_keys"]
        assert [(key["kid"], key["state"]) for key in signing["keys"]] == [(second, "primary"), (first, "previous")]

        said.append(_ok(controller.run(project.inventory, "rollback", only=_NAME)))
        assert keys.signing() == {"": first}
        assert notes.signatures == before

        said.append(_ok(controller.run(project.inventory, "rotate", only=_NAME)))
        third = keys.signing()[""]
        notes.add(3, first)
        refused = controller.run(project.inventory, "retire", only=_NAME, confirm=_NAME)
        assert refused.code != 0
        assert "1 rows are still, or again, under the old kid" in refused.output
        assert first in keys.published()

        keys.sql.execute("DELETE FROM notes WHERE id = 3")
        said.append(_ok(controller.run(project.inventory, "retire", only=_NAME, confirm=_NAME)))
        assert notes.kids == [third, third]
        assert keys.published() == {third, *older}
    assert project.statuses == ["rolled_back", "retired"]
    told = [text for record in project.evidence for text in record["messages"]]
    assert f"signing keys of {_NAME}: its address shows {first} no more" in told
    private = keys.private(third).decode()
    keys.sql.close()
    for secret in (KEY, private, private.replace("\\n", "\n").split("\n")[1]):
        assert secret not in "".join([*said, refused.output]) + json.dumps(project.evidence)


def test_a_row_under_a_cloud_kms_keeps_a_turn_from_beginning_and_is_named(
    project: _Project, controller: Controller, tmp_path: Path
) -> None:
    keys = Keys(project.dsn, tmp_path / "unused", "flags")
    keys.fill()
    kid = keys.add(1, current=False, cell=b"\x01\x02\x02\x00" + bytes(80))
    key_file = tmp_path / "kek"
    key_file.touch(0o600)
    key_file.write_text(KEY)
    project.write({"shape": "flags", "key_from": {"file": str(key_file)}}, {"type": "ec", "curve": "P-256"})
    before = keys.rows()
    ended = controller.run(project.inventory, "rotate", only=_NAME)
    assert ended.code != 0
    assert kid in ended.output
    assert "AWS KMS" in ended.output
    assert KEY not in ended.output
    assert keys.rows() == before
    assert project.statuses == ["rolled_back"]
    keys.ask("DELETE FROM {} WHERE kid = %s RETURNING 1", (kid,))
    former = keys.signing()
    _ok(controller.run(project.inventory, "rotate", only=_NAME))
    assert keys.signing() != former
    assert keys.published() == {*keys.signing().values(), *(row[0] for row in keys.ask("SELECT kid FROM {}"))}
    keys.sql.close()
