# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""New values: form, randomness, and what is refused."""

from __future__ import annotations

import base64
import collections
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import generate as generate_module
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import (
    CHARSETS,
    check_spec,
    describe,
    generate,
    jwk_thumbprint,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

_TOKENS = json.loads((Path(__file__).parents[1] / "vectors" / "002_supabase_tokens_hs256.json").read_text())
_IAT, _EXP = 1739948400, 1897714800
_TOKEN = {"type": "jwt", "payload": {"role": "anon", "iss": "supabase"}, "lifetime": f"{_EXP - _IAT}s"}


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


@pytest.mark.parametrize("charset", sorted(CHARSETS))
def test_string_has_its_characters_and_length(charset: str) -> None:
    value = generate({"type": "string", "length": 500, "charset": charset}, os.urandom).decode()
    assert len(value) == 500
    assert set(value) <= set(CHARSETS[charset])
    assert len(set(value)) > len(CHARSETS[charset]) // 2


def test_string_default_is_letters_and_digits() -> None:
    assert generate({"type": "string", "length": 40}, os.urandom).decode().isalnum()


def test_string_is_unbiased() -> None:
    """Over all bytes each character comes up equally often; the eight that do not fit are thrown away."""
    every = bytes(range(256))
    kept: collections.Counter[str] = collections.Counter()
    spec = {"type": "string", "length": 248, "characters": CHARSETS["alnum"]}
    value = generate(spec, lambda count: (every * (count // 256 + 1))[:count]).decode()
    kept.update(value)
    assert set(kept.values()) == {4}, "248 usable bytes over 62 characters"


@given(characters=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=2, max_size=60).map(set))
@settings(max_examples=50, deadline=None)
def test_string_of_explicit_characters(characters: set[str]) -> None:
    if len(characters) < 2:
        characters |= {"a", "b"}
    value = generate({"type": "string", "length": 200, "characters": "".join(sorted(characters))}, os.urandom)
    assert len(value) == 200
    assert set(value.decode()) <= characters


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b"-_-_" * 4 + b"-w"),
        ({"padding": True}, b"-_-_" * 4 + b"-w=="),
        ({"encoding": "base64"}, b"+/+/" * 4 + b"+w=="),
        ({"encoding": "base64", "padding": False}, b"+/+/" * 4 + b"+w"),
        ({"encoding": "hex"}, b"fbffbf" * 4 + b"fb"),
        ({"encoding": "raw"}, b"\xfb\xff\xbf" * 4 + b"\xfb"),
    ],
)
def test_bytes_in_each_encoding(options: dict[str, Any], expected: bytes) -> None:
    spec = {"type": "bytes", "length": 13, "allow_weak": True, **options}
    assert generate(spec, lambda count: (b"\xfb\xff\xbf" * count)[:count]) == expected


@pytest.mark.parametrize("form", ["jwk", "pem"])
@pytest.mark.parametrize(
    ("options", "kty", "alg"),
    [
        ({"type": "rsa", "bits": 2048}, "RSA", "RS256"),
        ({"type": "ec"}, "EC", "ES256"),
        ({"type": "ec", "curve": "P-384"}, "EC", "ES384"),
        ({"type": "ec", "curve": "P-521"}, "EC", "ES512"),
        ({"type": "ed25519"}, "OKP", "EdDSA"),
    ],
)
def test_signing_keys_describe_themselves(options: dict[str, Any], kty: str, alg: str, form: str) -> None:
    spec = {**options, "format": form}
    value = generate(spec, os.urandom)
    facts = describe(spec, value)
    public = facts["public"]
    assert (public["kty"], public["alg"], public["use"]) == (kty, alg, "sig")
    assert facts["kid"] == public["kid"] == jwk_thumbprint(public)
    assert facts["length"] == len(value)
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(public)
    other = {**spec, "format": "pem" if form == "jwk" else "jwk"}
    for wrong in (other, {**spec, "type": "ed25519" if options["type"] != "ed25519" else "ec", "format": form}):
        with pytest.raises(KeyturnError) as caught:
            describe(wrong, value)
        assert caught.value.code == "value-other"


def test_rsa_jwk_is_a_whole_private_key() -> None:
    jwk = json.loads(generate({"type": "rsa", "bits": 2048, "alg": "PS256"}, os.urandom))
    assert jwk["alg"] == "PS256"
    numbers = {name: _number(jwk[name]) for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi")}
    public = rsa.RSAPublicNumbers(numbers["e"], numbers["n"])
    private = rsa.RSAPrivateNumbers(
        numbers["p"], numbers["q"], numbers["d"], numbers["dp"], numbers["dq"], numbers["qi"], public
    ).private_key()
    signature = private.sign(b"x", padding.PKCS1v15(), hashes.SHA256())
    assert private.key_size == 2048
    assert public.public_key().verify(signature, b"x", padding.PKCS1v15(), hashes.SHA256()) is None


@pytest.mark.parametrize(
    ("curve", "size", "cls"), [("P-256", 32, ec.SECP256R1), ("P-384", 48, ec.SECP384R1), ("P-521", 66, ec.SECP521R1)]
)
def test_ec_coordinates_keep_leading_zeros(curve: str, size: int, cls: type[ec.EllipticCurve]) -> None:
    for _attempt in range(40):
        jwk = json.loads(generate({"type": "ec", "curve": curve}, os.urandom))
        lengths = {len(base64.urlsafe_b64decode(jwk[name] + "==")) for name in ("x", "y", "d")}
        assert lengths == {size}
        key = ec.derive_private_key(_number(jwk["d"]), cls()).public_key().public_numbers()
        assert (key.x, key.y) == (_number(jwk["x"]), _number(jwk["y"]))


def test_pem_is_pkcs8_without_a_password() -> None:
    value = generate({"type": "ed25519", "format": "pem"}, os.urandom)
    assert value.startswith(b"-----BEGIN PRIVATE" + b" KEY-----\n")
    assert isinstance(load_pem_private_key(value, None), ed25519.Ed25519PrivateKey)


def test_default_rsa_size_is_3072() -> None:
    spec = {"type": "rsa", "format": "pem"}
    key = load_pem_private_key(generate(spec, os.urandom), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072


def test_thumbprints_of_the_standards() -> None:
    """RFC 7638 section 3.1 and RFC 8037 appendix A.3."""
    rsa_key = {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
            "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
            "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
            "nqDKgw"
        ),
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert jwk_thumbprint(rsa_key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert jwk_thumbprint(okp) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("case", _TOKENS["cases"], ids=lambda case: case["name"])
def test_tokens_are_those_of_the_application(case: dict[str, Any]) -> None:
    key = case["JWT_SECRET"].encode()
    for role, name in (("anon", "ANON_KEY"), ("service_role", "SERVICE_ROLE_KEY")):
        spec = {**_TOKEN, "payload": {"role": role, "iss": "supabase"}, "allow_weak": True}
        if not key:
            with pytest.raises(KeyturnError):
                generate(spec, os.urandom, key=key, clock=lambda: _IAT)
            continue
        token = generate(spec, os.urandom, key=key, clock=lambda: _IAT + 0.7)
        assert token.decode() == case[name]
        assert describe(spec, token)["public"] == {"role": role, "iss": "supabase", "iat": _IAT, "exp": _EXP}


@pytest.mark.parametrize("case", _TOKENS["negative_cases"], ids=lambda case: case["why"][:30])
def test_tokens_are_not_those_that_the_application_refuses(case: dict[str, Any]) -> None:
    token = generate(_TOKEN, os.urandom, key=case["JWT_SECRET"].encode(), clock=lambda: _IAT)
    assert token.decode() != case["value"]


def test_trap_32_dates_come_from_the_clock_and_the_lifetime() -> None:
    spec = {**_TOKEN, "lifetime": "2d"}
    first = describe(spec, generate(spec, os.urandom, key=b"k" * 32, clock=lambda: 1_000))["public"]
    later = describe(spec, generate(spec, os.urandom, key=b"k" * 32, clock=lambda: 5_000))["public"]
    assert (first["iat"], first["exp"], later["iat"], later["exp"]) == (1_000, 173_800, 5_000, 177_800)
    for claim in ("iat", "exp"):
        with pytest.raises(KeyturnError) as caught:
            check_spec({**_TOKEN, "payload": {"role": "anon", claim: 1}})
        assert caught.value.code == "generate-invalid"


def test_token_key_below_256_bits_is_refused_without_showing_it() -> None:
    for key in (None, b"", b"short-signing-key"):
        with pytest.raises(KeyturnError) as caught:
            generate(_TOKEN, os.urandom, key=key)
        assert caught.value.code == "generate-invalid"
        assert "short-signing-key" not in str(caught.value)
    assert generate({**_TOKEN, "allow_weak": True}, os.urandom, key=b"short").count(b".") == 2


@pytest.mark.parametrize(
    ("spec", "part_of_message"),
    [
        ({}, "type"),
        ({"type": "des"}, "type"),
        ({"type": ["bytes"]}, "type"),
        ({"type": "bytes"}, "length"),
        ({"type": "bytes", "length": 15}, "120 bits"),
        ({"type": "bytes", "length": 0, "allow_weak": True}, "length"),
        ({"type": "bytes", "length": 10**9}, "length"),
        ({"type": "bytes", "length": True}, "int"),
        ({"type": "bytes", "length": 32, "encoding": "base32"}, "base32"),
        ({"type": "bytes", "length": 32, "encoding": "hex", "padding": True}, "padding"),
        ({"type": "bytes", "length": 32, "charset": "hex"}, "charset"),
        ({"type": "string", "length": 21}, "use a length of 22"),
        ({"type": "string", "length": 31, "charset": "hex"}, "124 bits"),
        ({"type": "string", "length": 40, "charset": "greek"}, "greek"),
        ({"type": "string", "length": 40, "charset": "hex", "characters": "ab"}, "exclude"),
        ({"type": "string", "length": 400, "characters": "a"}, "characters"),
        ({"type": "string", "length": 400, "characters": "aab"}, "different"),
        ({"type": "string", "length": 400, "characters": "a\n"}, "printable"),
        ({"type": "rsa", "bits": 1024}, "bits"),
        ({"type": "rsa", "format": "pem", "alg": "RS256"}, "alg"),
        ({"type": "ec", "curve": "secp256k1"}, "secp256k1"),
        ({"type": "ed25519", "format": "der"}, "der"),
        ({"type": "jwt", "payload": {}}, "lifetime"),
        ({"type": "jwt", "payload": {}, "lifetime": "0d"}, "zero"),
        ({"type": "jwt", "payload": {}, "lifetime": "5 years"}, "lifetime"),
        ({"type": "jwt", "payload": {"x": float("nan")}, "lifetime": "1d"}, "JSON"),
    ],
)
def test_refuses_what_cannot_or_should_not_be_made(spec: dict[str, Any], part_of_message: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        check_spec(spec, "keyturn_secrets.X.generate")
    assert caught.value.code == "generate-invalid"
    assert caught.value.where.startswith("keyturn_secrets.X.generate")
    assert part_of_message.lower() in str(caught.value).lower()
    with pytest.raises(KeyturnError):
        generate(spec, os.urandom, key=b"k" * 32)


def test_weak_values_can_be_asked_for() -> None:
    assert len(generate({"type": "string", "length": 6, "charset": "hex", "allow_weak": True}, os.urandom)) == 6


def test_description_shows_nothing_of_a_random_value() -> None:
    assert describe({"type": "string"}, b"value") == {"type": "string", "length": 5}


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"type": "jwt"}, b"no token"),
        ({"type": "jwt"}, b"a.!!!!.c"),
        ({"type": "rsa"}, b"[]"),
        ({"type": "rsa"}, b"{}"),
        ({"type": "ec"}, b'{"kty": "oct", "k": "AAAA"}'),
        ({"type": "ec", "format": "pem"}, b"-----BEGIN NOTHING-----"),
    ],
)
def test_description_refuses_another_value_without_showing_it(spec: dict[str, Any], value: bytes) -> None:
    with pytest.raises(KeyturnError) as caught:
        describe(spec, value, "/etc/key")
    assert caught.value.code == "value-other"
    assert value.decode() not in str(caught.value)
    assert str(caught.value).startswith("/etc/key: ")


def test_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_module, "HAS_CRYPTOGRAPHY", False)
    with pytest.raises(KeyturnError) as caught:
        generate({"type": "ec"}, os.urandom)
    assert caught.value.code == "library-missing"
    assert len(generate({"type": "bytes", "length": 32}, os.urandom)) == 43
