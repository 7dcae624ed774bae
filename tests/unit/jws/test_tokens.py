# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens signed by a version: PyJWT verifies them, and gateways let them in or refuse them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import describe, generate
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.tokens import (
    ALGORITHMS,
    check_token,
    issued_at,
    sign_token,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.probes import run_probes
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import parse_duration
from ansible_collections.keyturn.rotation.plugins.modules import secret_probe
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.identity import gateway, issuer
from tests.support.modules import run_module_process

NOW = 1_800_000_000.5
SECRET = b"canary-5e1f0a7c93d24b68a1c0e7f25d9b"


def made(**spec: Any) -> tuple[bytes, dict[str, Any]]:
    value = generate(spec, os.urandom)
    return value, describe(spec, value)["public"]


def opened(token: bytes, key: Any, algorithm: str) -> dict[str, Any]:
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=options)
    return claims


# -- signing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jwk", "pem"])
@pytest.mark.parametrize(
    ("spec", "algorithm"),
    [
        ({"type": "rsa", "bits": 2048}, "RS256"),
        ({"type": "ec"}, "ES256"),
        ({"type": "ec", "curve": "P-384"}, "ES384"),
        ({"type": "ec", "curve": "P-521"}, "ES512"),
        ({"type": "ed25519"}, "EdDSA"),
    ],
)
def test_what_fits_the_key_is_taken(spec: dict[str, Any], algorithm: str, form: str) -> None:
    value, public = made(**spec, format=form)
    token = sign_token(value, {"claims": {"iss": "a"}}, "k1", NOW)
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT", "kid": "k1"}
    assert opened(token, jwt.PyJWK({**public, "alg": algorithm}), algorithm) == {
        "iss": "a",
        "iat": int(NOW),
        "exp": int(NOW) + 60,
    }


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name[:2] in ("RS", "PS")])
def test_every_algorithm_of_rsa(algorithm: str) -> None:
    value, public = made(type="rsa", bits=2048)
    token = sign_token(value, {"algorithm": algorithm, "lifetime": "5m", "typ": "at+jwt"}, "", NOW)
    assert opened(token, jwt.PyJWK({**public, "alg": algorithm}), algorithm)["exp"] == int(NOW) + 300
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "at+jwt"}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_secrets_that_are_used_as_they_are(algorithm: str) -> None:
    value = SECRET * 2
    token = sign_token(value, {"algorithm": algorithm}, "", NOW)
    assert opened(token, value, algorithm)["iat"] == int(NOW)
    octets = json.dumps({"kty": "oct", "k": jwt.utils.base64url_encode(value).decode(), "alg": algorithm})
    assert opened(sign_token(octets.encode(), {}, "", NOW), value, algorithm)["iat"] == int(NOW)


@pytest.mark.parametrize(("lifetime", "back"), [(None, 30), ("5m", 30), ("10s", 5)])
def test_a_token_that_is_shown_is_valid_where_the_clock_is_behind_and_where_it_is_ahead(
    lifetime: str | None, back: int
) -> None:
    spec = {"algorithm": "HS256", "lifetime": lifetime}
    claims = opened(sign_token(SECRET * 2, spec, "", issued_at(spec, NOW)), SECRET * 2, "HS256")
    assert claims["iat"] == int(NOW) - back
    assert claims["exp"] - claims["iat"] == parse_duration(lifetime or "60s")
    assert claims["exp"] >= int(NOW) + back


def test_trap_28_what_is_no_key_for_the_algorithm_is_refused_without_showing_it() -> None:
    rsa_key = made(type="rsa", bits=2048)[0]
    other = x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for value, algorithm in (
        (b'{"kty": "RSA", "d": "' + SECRET + b'"}', "RS256"),
        (b'{"kty": "EC", "crv": "P-256", "d": "AQAB", "x": "AQAB", "y": "AQAB"}', "ES256"),
        (b'{"kty": "none"}', "RS256"),
        (b"-----BEGIN PRIVATE KEY-----\n" + SECRET + b"\n-----END PRIVATE KEY-----", "RS256"),
        (other, "EdDSA"),
        (SECRET, "RS256"),
        (rsa_key, "HS256"),
        (rsa_key, "ES256"),
    ):
        with pytest.raises(KeyturnError) as caught:
            sign_token(value, {"algorithm": algorithm}, "", NOW)
        assert caught.value.code == "key-unusable"
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "spec",
    [
        "text",
        {"algorithm": "none"},
        {"lifetime": "0s"},
        {"lifetime": "soon"},
        {"claims": {"exp": 1}},
        {"claims": {"x": float("nan")}},
        {"payload": {}},
    ],
)
def test_a_token_that_cannot_be_made_is_refused(spec: Any) -> None:
    with pytest.raises(KeyturnError) as caught:
        check_token(spec, "probe")
    assert caught.value.code == "probe-invalid"


def test_the_module_knows_every_algorithm() -> None:
    assert tuple(secret_probe.TOKEN["algorithm"]["choices"]) == ALGORITHMS


# -- gateways ----------------------------------------------------------------------------------------------------------

OLD, NEW = made(type="ec"), made(type="ec")
VALUES = {"old": OLD[0], "new": NEW[0]}


def shown(url: str, *asked: tuple[str, bool]) -> list[tuple[str, bool]]:
    """What a gateway makes of tokens: version, and whether a refusal is expected."""
    probes = [
        {"type": "token", "secret": "KEY", "url": url, "version": version, **({"refused": True} if refused else {})}
        for version, refused in asked
    ]
    results = run_probes(probes, lambda _secret, version: VALUES[version])
    for private in (json.loads(value)["d"] for value in VALUES.values()):
        assert private not in str(results)
    assert "eyJ" not in str(results)
    return [(result["result"], result["passed"]) for result in results]


def test_a_whole_life_at_a_gateway() -> None:
    """Published, promoted, retired: what it lets in at each step, with the cache that it has."""
    with issuer(OLD[1]) as one, gateway(one.url) as edge:
        assert shown(edge.api, ("old", False), ("new", False)) == [("accepted", True), ("refused", False)]
        one.keys = [OLD[1], NEW[1]]
        assert shown(edge.api, ("new", False)) == [("refused", False)], "its cache does not know the new key yet"
        edge.purge()
        assert shown(edge.api, ("new", False), ("old", False)) == [("accepted", True), ("accepted", True)]
        one.keys = [NEW[1]]
        assert shown(edge.api, ("old", True)) == [("accepted", False)], "its cache still has the old key"
        edge.purge()
        assert shown(edge.api, ("old", True), ("new", False)) == [("refused", True), ("accepted", True)]


def test_trap_20_a_gateway_that_knows_the_current_key_only_is_seen() -> None:
    with issuer(NEW[1]) as one, gateway(one.url) as edge:
        assert shown(edge.api, ("new", False), ("old", False)) == [("accepted", True), ("refused", False)]


def test_trap_22_whether_both_are_accepted_is_shown_and_not_believed() -> None:
    with issuer(OLD[1], NEW[1]) as one, gateway(one.url) as both, issuer(OLD[1]) as late, gateway(late.url) as other:
        assert all(passed for _result, passed in shown(both.api, ("old", False), ("new", False)))
        assert shown(other.api, ("old", False), ("new", False)) == [("accepted", True), ("refused", False)]


def test_trap_46_a_gateway_that_refuses_everybody_does_not_show_that_the_old_key_is_retired() -> None:
    with issuer(made(type="ec")[1]) as one, gateway(one.url) as edge:
        assert shown(edge.api, ("old", True)) == [("unproven", False)]
    assert shown(edge.api, ("old", True)) == [("unproven", False)], "nor does one that is down"


def test_a_gateway_that_fetches_for_an_unknown_kid() -> None:
    with issuer(OLD[1]) as one, gateway(one.url, unknown_kid=True) as edge:
        assert shown(edge.api, ("old", False)) == [("accepted", True)]
        one.keys = [OLD[1], NEW[1]]
        assert shown(edge.api, ("new", False)) == [("accepted", True)]


def test_the_module_shows_tokens_and_neither_them_nor_the_key(tmp_path: Path) -> None:
    references = {}
    for version, (value, _public) in (("old", OLD), ("new", NEW)):
        path = tmp_path / version
        path.write_bytes(value)
        path.chmod(0o600)
        references[version] = {"file": str(path)}
    probe = {"type": "token", "token": {"claims": {"aud": "api"}}}
    with issuer({**NEW[1], "kid": "k2"}) as one, gateway(one.url) as edge:
        probes = [{**probe, "url": edge.api, "version": "old", "refused": True, "name": "edge"}]
        arguments = {"state_dir": str(tmp_path / "state"), "values": {"KEY": references}, "probes": probes}
        ran = run_module_process("secret_probe", {**arguments, "kids": {"KEY": {"old": "k1", "new": "k2"}}})
    assert (ran["passed"], ran["probes"][0]["result"]) == (True, "refused")
    for value in VALUES.values():
        assert json.loads(value)["d"] not in ran.printed
    assert "eyJ" not in ran.printed
