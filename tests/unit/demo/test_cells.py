# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells, lookups and signatures against values that other programs made."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from demo import cells, jws
from demo.dotenv import parse_env
from hypothesis import given
from hypothesis import strategies as st

_VECTORS = Path(__file__).parents[2] / "vectors"


def _load(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((_VECTORS / name).read_text(encoding="utf-8"))
    return value


_JWK = _load("000_private_jwk_aesgcm.json")
_LOOKUP = _load("000_token_lookup_hmac.json")
_OLD = cells.parse_key(_JWK["key"]["value"])
_NEW = cells.parse_key(_JWK["new_key"]["value"])


def _named(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[str(case.get("name", case.get("why"))) for case in cases])


@_named(_JWK["cases"])
def test_a_cell_of_the_original_opens(case: dict[str, Any]) -> None:
    """Every known cell gives its known plaintext."""
    plaintext = cells.open_cell(case["ciphertext"], _OLD)
    assert plaintext == base64.b64decode(case["plaintext"])
    assert hashlib.sha256(plaintext).hexdigest() == case["plaintext_sha256"]
    assert cells.read_jwk(case["ciphertext"], _OLD) == json.loads(plaintext)


@_named(_JWK["cases_under_new_key"])
def test_a_rotated_cell_opens_under_the_new_key_only(case: dict[str, Any]) -> None:
    """The key decides, by authentication."""
    assert cells.open_cell(case["ciphertext"], _NEW) == base64.b64decode(case["plaintext"])
    with pytest.raises(cells.CellError):
        cells.open_cell(case["ciphertext"], _OLD)


@_named(_JWK["negative_cases"])
def test_trap_11_and_12_what_is_no_cell_is_refused(case: dict[str, Any]) -> None:
    """Wrong key, changed bytes, other formats."""
    with pytest.raises(cells.CellError):
        cells.read_jwk(case["value"], _OLD)


@_named([case for case in _JWK["plaintext_rows"] if case["value_json_type"] == "string"])
def test_a_cell_in_clear_is_read_with_and_without_a_key(case: dict[str, Any]) -> None:
    """Bare and marked JSON."""
    cell = base64.b64decode(case["value"]).decode()
    assert cells.is_plaintext(cell)
    for key in (_OLD, None):
        assert cells.read_jwk(cell, key) == json.loads(base64.b64decode(case["jwk"]))


@_named(_JWK["bad_keys"])
def test_a_bad_key_is_refused_without_being_repeated(case: dict[str, Any]) -> None:
    """The message names the fault, not the value."""
    with pytest.raises(cells.KeyTextError) as caught:
        cells.parse_key(case["value"])
    assert case["value"] not in str(caught.value)


@_named(_JWK["key_forms"])
def test_the_forms_of_a_key_mean_the_same(case: dict[str, Any]) -> None:
    """Either alphabet, with padding or without."""
    key = cells.parse_key(case["key_text"])
    assert key.hex() == case["key_bytes_hex"]
    assert cells.parse_key(case["key_text"].rstrip("=")) == key
    assert cells.open_cell(case["ciphertext"], key).decode() == case["plaintext"]


def test_an_encrypted_cell_without_a_key_is_unreadable() -> None:
    """Plaintext mode does not guess."""
    with pytest.raises(cells.CellError):
        cells.read_jwk(_JWK["cases"][0]["ciphertext"], None)


@given(st.binary(max_size=300), st.binary(min_size=32, max_size=32))
def test_sealing_and_opening_are_inverse(plaintext: bytes, key: bytes) -> None:
    """And no two cells of the same plaintext are equal."""
    cell = cells.seal_cell(plaintext, key)
    assert cells.open_cell(cell, key) == plaintext
    assert cells.seal_cell(plaintext, key) != cell


@_named(_LOOKUP["cases"])
def test_a_lookup_is_that_of_the_original(case: dict[str, Any]) -> None:
    """Under both keys, and the stored digest matches whatever the key."""
    token = case["raw_token"]
    assert cells.token_digest(token) == case["sha256_hex"]
    assert cells.token_lookup(token, cells.parse_key(_LOOKUP["key"]["value"])) == case["token_lookup_old_key"]
    assert cells.token_lookup(token, cells.parse_key(_LOOKUP["new_key"]["value"])) == case["token_lookup_new_key"]
    for stored in (case["sha256_hex"], case.get("token_sha256_column", case["sha256_hex"])):
        assert cells.token_matches(token, stored)
        assert not cells.token_matches(f"{token}x", stored)


@_named(_LOOKUP["negative_cases"])
def test_a_wrong_lookup_is_not_made(case: dict[str, Any]) -> None:
    """Other peppers and other inputs give other values."""
    made = {cells.token_lookup(case["raw_token"], cells.parse_key(_LOOKUP[key]["value"])) for key in ("key", "new_key")}
    assert case["value"] not in made


def test_a_signature_is_one_for_other_programs_too(jwks: list[dict[str, str]]) -> None:
    """PyJWT accepts it under the public part."""
    jwk = {**jwks[0], "kid": "k1"}
    signed = jws.sign(jwk, {"sub": "x"})
    public = jws.public_part(jwk)
    assert jwt.decode(signed, jwt.PyJWK(public).key, algorithms=["RS256"]) == {"sub": "x"}
    assert jwt.get_unverified_header(signed) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert jws.verify(signed, public) == {"sub": "x"}
    assert jws.unverified_kid(signed) == "k1"
    assert set(public) == {"alg", "kty", "n", "e", "kid"}


def test_a_signature_of_another_key_is_refused(jwks: list[dict[str, str]]) -> None:
    """As is a payload that was changed, and what is no JWS."""
    signed = jws.sign({**jwks[0], "kid": "k1"}, {"sub": "x"})
    head, _first, tail = signed.split(".")
    changed = f"{head}.{base64.urlsafe_b64encode(b'{}').decode()}.{tail}"
    for text, key in ((signed, jwks[1]), (changed, jwks[0]), ("nonsense", jwks[0])):
        with pytest.raises(jws.SignatureError):
            jws.verify(text, key)
    with pytest.raises(jws.SignatureError):
        jws.unverified_kid("nonsense")


def test_trap_31_the_dotenv_reader_knows_the_usual_forms() -> None:
    """Export, quotes, comments, equals signs, CRLF, no final newline; the last of several wins."""
    text = "A=1\r\nexport B=\"two # 2\"\n# C=3\nD='x=y' # note\nE=a=b#c # d\nF=\nA=9\nG = $x"
    assert parse_env(text) == {"A": "9", "B": "two # 2", "D": "x=y", "E": "a=b#c", "F": "", "G": "$x"}
