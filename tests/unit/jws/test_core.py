# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of every kind, forms, documents, and the set of keys that is published."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jwt
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import generate
from ansible_collections.keyturn.rotation.plugins.module_utils.jws import (
    RefusedError,
    Signer,
    head,
    load_public,
    load_signer,
    parse_document,
    parse_form,
    parse_published,
    read,
    sign,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.published import fetch_published
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_KEYS = {
    "RS256": {"type": "rsa", "bits": 2048},
    "PS384": {"type": "rsa", "bits": 2048, "alg": "PS384"},
    "ES256": {"type": "ec"},
    "ES384": {"type": "ec", "curve": "P-384"},
    "ES512": {"type": "ec", "curve": "P-521"},
    "EdDSA": {"type": "ed25519"},
}
_NOW = datetime(2028, 2, 29, 12, tzinfo=timezone.utc)


def _signer(spec: dict[str, Any]) -> tuple[Signer, dict[str, Any]]:
    jwk = json.loads(generate(spec, os.urandom))
    return load_signer(json.dumps(jwk).encode(), jwk["kid"], "here"), jwk


def _signed(signer: Signer, payload: dict[str, Any]) -> bytes:
    return sign(signer, head(signer, {"typ": "JWT"}), payload).text


@pytest.mark.parametrize("algorithm", _KEYS)
def test_a_library_of_others_reads_what_is_signed(algorithm: str) -> None:
    signer, jwk = _signer(_KEYS[algorithm])
    made = _signed(signer, {"iat": 1, "a": "\u00e9"})
    public = {name: value for name, value in jwk.items() if name in ("kty", "crv", "x", "y", "n", "e", "alg", "kid")}
    assert jwt.decode(made, jwt.PyJWK(public).key, algorithms=[algorithm]) == {"iat": 1, "a": "\u00e9"}
    compact, verifier = read(made), load_public(public)
    assert compact is not None
    assert verifier is not None
    assert (compact.kid, compact.algorithm) == (jwk["kid"], algorithm)
    assert compact.holds(verifier)
    assert not compact._replace(signed=compact.signed + b"A").holds(verifier)
    assert not compact._replace(signature=compact.signature[:-1]).holds(verifier)


@pytest.mark.parametrize("spec", [{"type": "rsa"}, {"type": "ec"}, {"type": "ed25519"}])
def test_a_pem_signs_under_the_kid_it_is_given(spec: dict[str, Any]) -> None:
    signer = load_signer(generate({**spec, "format": "pem"}, os.urandom), "k7", "here")
    compact = read(_signed(signer, {}))
    assert compact is not None
    assert compact.kid == "k7"
    assert compact.holds(signer.verifier)


def test_a_private_key_without_its_primes_signs_too() -> None:
    _first, jwk = _signer({"type": "rsa", "bits": 2048})
    bare = {name: jwk[name] for name in ("kty", "n", "e", "d")}
    verifier = load_public(jwk)
    compact = read(_signed(load_signer(json.dumps(bare).encode(), "k", "here"), {}))
    assert verifier is not None
    assert compact is not None
    assert compact.holds(verifier)


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.BrainpoolP256R1(), ec.BrainpoolP384R1()])
def test_a_curve_that_is_only_as_long_as_another_one_is_refused(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    with pytest.raises(KeyturnError) as raised:
        load_signer(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "k1", "keys.new")
    assert raised.value.code == "signing-key-invalid"


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"{", b"-----BEGIN PRIVATE KEY-----\nCANARY\n", b'{"kty":"RSA","n":"CANARY","e":"AQAB","d":1}']
)
def test_trap_28_what_is_no_key_is_refused_without_being_shown(raw: bytes) -> None:
    with pytest.raises(KeyturnError) as raised:
        load_signer(raw, "k1", "keys.new")
    assert raised.value.code == "signing-key-invalid"
    assert "CANARY" not in str(raised.value)


def test_a_key_with_another_kid_is_refused() -> None:
    _signer_of, jwk = _signer({"type": "ec"})
    with pytest.raises(KeyturnError) as raised:
        load_signer(json.dumps(jwk).encode(), "another", "keys.new")
    assert raised.value.code == "kid-mismatch"


# -- forms and documents -----------------------------------------------------------------------------------------


def test_trap_35_a_year_after_29_february_is_the_28th() -> None:
    payload = parse_form({"lifetime": "1y"}, "here").payload({}, {}, _NOW)
    assert datetime.fromtimestamp(payload["exp"], timezone.utc) == datetime(2029, 2, 28, 12, tzinfo=timezone.utc)


def test_trap_32_dates_come_from_the_clock_and_the_lifetime() -> None:
    form = parse_form({"lifetime": "90d", "claims": {"iss": "us"}}, "here")
    payload = form.payload({"a": 1}, {}, _NOW)
    assert payload == {
        "iat": int(_NOW.timestamp()),
        "exp": int(_NOW.timestamp()) + 90 * 86400,
        "iss": "us",
        "a": 1,
    }
    assert list(payload) == ["iat", "exp", "iss", "a"]


def test_columns_fill_the_claims_and_an_empty_one_is_refused() -> None:
    form = parse_form({"claims": {"aud": "app:{account}:{app}", "n": 3}}, "here")
    assert form.columns == ("account", "app")
    assert form.payload({}, {"account": "a", "app": "b"}, _NOW)["aud"] == "app:a:b"
    for nothing in (None, ""):
        with pytest.raises(RefusedError, match="nothing in the column app"):
            form.payload({}, {"account": "a", "app": nothing}, _NOW)


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "tier"])
def test_trap_28_claims_of_a_document_are_refused_unless_allowed(name: str) -> None:
    entry: dict[str, Any] = {"claims": {"tier": "gold"}, "lifetime": "1d"}
    with pytest.raises(RefusedError) as raised:
        parse_form(entry, "here").payload({name: "CANARY", "x": 1}, {}, _NOW)
    assert str(raised.value) == f"has claims of its own: {name}"
    allowed = parse_form({**entry, "allow_claims": [name]}, "here").payload({name: "theirs", "x": 1}, {}, _NOW)
    assert allowed[name] == "theirs"


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"lifetime": "0d"}, "here.lifetime"),
        ({"lifetime": "soon"}, "here.lifetime"),
        ({"claims": {"exp": 1}}, "here.claims"),
        ({"header": {"alg": "none"}}, "here.header"),
        ({"header": {"crit": []}}, "here.header"),
        ({"header": {"who": "{account}"}}, "here.header.who"),
        ({"claims": {"n": float("nan")}}, "here"),
    ],
)
def test_a_wrong_form_is_refused_with_its_place(entry: dict[str, Any], place: str) -> None:
    with pytest.raises(KeyturnError) as raised:
        parse_form(entry, "here")
    assert (raised.value.code, raised.value.where) == ("documents-invalid", place)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "no JSON object"),
        ("nothing", "no JSON object"),
        ('{"a": NaN}', "no JSON object"),
        ('{"a": 1, "a": 2}', "a member twice"),
        ('{"a": 0.12345678901234567890}', "more digits"),
        ('{"a": 1e999}', "more digits"),
        ("[" * 100_000, "no JSON object"),
    ],
)
def test_what_cannot_be_signed_as_it_stands_is_refused(text: str, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        parse_document(text.encode())


def test_numbers_and_the_order_of_members_stay() -> None:
    document = parse_document(b'{"z": 1.10, "a": 123456789012345678901234567890, "b": {"y": 1, "x": 2.5e3}}')
    assert json.dumps(document) == '{"z": 1.1, "a": 123456789012345678901234567890, "b": {"y": 1, "x": 2500.0}}'


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "e30.e30.", "eyJraWQiOiJrIn0.e30.AA", "eyJhbGciOjF9.e30.AA"])
def test_what_is_no_jws_with_a_kid_is_not_read(text: str) -> None:
    assert read(text.encode()) is None


def test_another_way_of_writing_the_same_signature_is_not_read() -> None:
    signer, _jwk = _signer({"type": "ec"})
    made = _signed(signer, {})
    assert read(made) is not None
    assert read(made + b"=") is None


# -- what is published -------------------------------------------------------------------------------------------


class _Endpoint(http.server.BaseHTTPRequestHandler):
    answer = (200, b"")

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An address that answers what the class says."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
        server.shutdown()


def test_published_keys_come_from_an_address_or_a_file(endpoint: str, tmp_path: Path) -> None:
    _signer_of, jwk = _signer({"type": "ec"})
    text = json.dumps({"keys": [jwk, {"kty": "oct", "kid": "other"}, {"kid": 7}]}).encode()
    _Endpoint.answer = (200, text)
    (tmp_path / "jwks.json").write_bytes(text)
    assert list(fetch_published({"url": endpoint})) == [jwk["kid"]]
    assert list(fetch_published({"file": str(tmp_path / "jwks.json")})) == [jwk["kid"]]


def test_trap_38_keys_that_cannot_be_read_are_an_error(endpoint: str) -> None:
    for status, body, code in ((503, b"{}", "jwks-unreachable"), (200, b"<html>", "jwks-invalid")):
        _Endpoint.answer = (status, body)
        with pytest.raises(KeyturnError) as raised:
            fetch_published({"url": endpoint})
        assert raised.value.code == code
    with pytest.raises(KeyturnError) as raised:
        fetch_published({"url": "http://127.0.0.1:1/jwks.json"})
    assert raised.value.code == "jwks-unreachable"


def test_trap_33_two_keys_under_one_kid_are_refused() -> None:
    _first, one = _signer({"type": "ec"})
    _second, two = _signer({"type": "ec"})
    assert list(parse_published(json.dumps({"keys": [one, one]}), "here")) == [one["kid"]]
    with pytest.raises(KeyturnError) as raised:
        parse_published(json.dumps({"keys": [one, {**two, "kid": one["kid"]}]}), "here")
    assert raised.value.code == "jwks-invalid"


@pytest.mark.parametrize("source", [{}, {"url": "http://a/", "file": "/b"}])
def test_exactly_one_place_of_published_keys_is_named(source: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as raised:
        fetch_published(source)
    assert raised.value.code == "reference-invalid"
