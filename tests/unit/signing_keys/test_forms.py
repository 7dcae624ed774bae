# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kids and forms of keys, against vectors and against PyJWT."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import jwk_thumbprint
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.forms import (
    KID_RULES,
    KeyForm,
    algorithm,
    check_generate,
    make_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

_VECTORS = Path(__file__).parents[2] / "vectors"
_PEMS = json.loads((_VECTORS / "001_private_pem_enc.json").read_text())
_JWKS = json.loads((_VECTORS / "000_jwks_document.json").read_text())
_PRIVATE = json.loads((_VECTORS / "000_private_jwk_aesgcm.json").read_text())
_KINDS: list[dict[str, Any]] = [
    {"type": "rsa", "bits": 2048, "alg": "RS256"},
    {"type": "rsa", "bits": 3072, "alg": "PS384"},
    {"type": "rsa", "bits": 4096, "alg": "RS512"},
    {"type": "ec", "curve": "P-256"},
    {"type": "ec", "curve": "P-384"},
    {"type": "ec", "curve": "P-521"},
    {"type": "ed25519"},
]


def _spki(pem: str) -> bytes:
    return load_pem_public_key(pem.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _rule(name: str, spki: bytes, jwk: Mapping[str, Any]) -> str:
    rule = KID_RULES[name]
    assert rule is not None
    return rule(spki, jwk)


@pytest.mark.parametrize("case", [case for case in _PEMS["cases"] if "kid" in case], ids=lambda case: case["name"])
def test_the_kid_is_the_beginning_of_the_hash_of_the_public_key_info(case: dict[str, Any]) -> None:
    assert _rule("spki-sha256-16", _spki(case["public_pem"]), {}) == case["kid"]


@pytest.mark.parametrize("case", _PEMS["kid_negative_cases"], ids=lambda case: case["why"])
def test_the_kid_of_another_key_or_hash_does_not_match(case: dict[str, Any]) -> None:
    assert _rule("spki-sha256-16", _spki(case["public_pem"]), {}) != case["kid"]


def test_pems_in_one_line_have_the_form_of_the_vector() -> None:
    made = make_key({"type": "ec"}, KeyForm("spki-sha256-16", "pem-one-line", "pem-one-line"))
    case = _PEMS["cases"][0]
    private = base64.b64decode(case["plaintext"]).decode()
    for ours, theirs in ((made.public, case["public_pem"]), (made.private.decode(), private)):
        assert [ours.splitlines()[0], ours.splitlines()[2]] == [theirs.splitlines()[0], theirs.splitlines()[2]]
        assert ours.count("\n") == theirs.count("\n") == 2
    assert made.kid == _rule("spki-sha256-16", _spki(made.public), {})


def test_a_published_key_gives_an_entry_with_the_members_of_the_vector() -> None:
    entry = _JWKS["cases"][1]["body"]["keys"][0]
    row = _JWKS["cases"][1]["rows"][0]["public_jwk"]
    made = json.loads(make_key(_KINDS[0], KeyForm("uuid", "jwk", "jwk")).public)
    assert list(made) == list(row)
    assert set(made) | {"kid", "iat"} == set(entry)
    assert made["alg"] == row["alg"]


def test_a_private_jwk_has_the_members_and_the_spelling_of_the_vector() -> None:
    opened = Envelope(load_spec("aes256gcm-b64"), _PRIVATE["new_key"]["value"].encode()).open(
        next(c for c in _PRIVATE["cases_under_new_key"] if c["name"].startswith("rsa"))["ciphertext"].encode()
    )
    assert opened is not None
    theirs = json.loads(opened)
    private = make_key(_KINDS[0], KeyForm("uuid", "jwk", "jwk")).private
    assert set(json.loads(private)) == set(theirs)
    assert private.decode() == json.dumps(json.loads(private))
    assert opened.decode() == json.dumps(theirs)


@pytest.mark.parametrize(
    ("generate", "written"),
    [*((kind, "jwk") for kind in _KINDS), *((kind, "pem") for kind in (_KINDS[0], *_KINDS[3:]))],
)
def test_what_the_private_part_signs_the_public_part_verifies(generate: dict[str, Any], written: str) -> None:
    check_generate(generate, "here")
    made = make_key(generate, KeyForm("thumbprint", written, "jwk", ("kid", "use")))
    public = json.loads(made.public)
    assert public["kid"] == made.kid == jwk_thumbprint(public)
    assert public["use"] == "sig"
    assert "d" not in public
    private = jwt.PyJWK(json.loads(made.private)).key if written == "jwk" else made.private
    token = jwt.encode({"sub": "x"}, private, algorithm(generate), headers={"kid": made.kid})
    assert jwt.decode(token, jwt.PyJWK(public).key, [algorithm(generate)]) == {"sub": "x"}


@pytest.mark.parametrize(
    "generate", [{"type": "bytes", "length": 32}, {"type": "rsa", "bits": 1024}, {"type": "ec", "format": "pem"}]
)
def test_what_makes_no_signing_key_is_refused(generate: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as refused:
        check_generate(generate, "here")
    assert refused.value.code == "generate-invalid"


def test_trap_28_a_new_key_does_not_show_its_private_part() -> None:
    made = make_key({"type": "ed25519"}, KeyForm("uuid", "jwk", "jwk"))
    assert json.loads(made.private)["d"] not in repr(made) + str(made)
