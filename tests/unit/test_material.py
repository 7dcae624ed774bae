# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private material is found in records and masked in what is shown."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.keyturn.rotation.plugins.filter.redact import FilterModule
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.record import check_record
from ansible_collections.keyturn.rotation.plugins.module_utils.material import MASK, find_material, mask_texts, redact
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.support.evidence import full_record, small_record

KEY = Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
SSH = KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
PUBLIC_PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
CANARY = "Zm9vYmFyYmF6cXV4cXV1eGNvcmdl"
JWK = {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "d": CANARY}
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJlLW9mLXRoaXMtdG9rZW4"

MATERIAL = {
    "pem": PEM,
    "openssh": SSH,
    "pem in a sentence": f"cannot load {PEM} here",
    "pem with escaped line feeds": json.dumps(PEM),
    "base64 of a pem": base64.b64encode(PEM.encode()).decode(),
    "jwk": JWK,
    "jwk as text": json.dumps(JWK),
    "jwk as text in text": json.dumps({"jwk": json.dumps(JWK)}),
    "symmetric jwk": {"kty": "oct", "k": CANARY},
    "compact token": TOKEN,
    "bearer header": f"Authorization: Bearer {CANARY}",
    "password in a url": f"postgresql://app:{CANARY}@db/app",
    "age key": "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQ",
}
HARMLESS = [
    PUBLIC_PEM,
    {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
    "postgresql://app@db/app",
    "http://127.0.0.1:8080/health@v2",
    "5b2f0c1de64a7b9c0a6f31d9f20bb1c6a1f6e0c8d6be3d8f8f2a4d2b4e4b9a10",
    "2026-11-21T10:00:00Z",
    "private key was replaced",
]


@pytest.mark.parametrize("place", ["messages", "health"])
@pytest.mark.parametrize("name", MATERIAL)
def test_trap_26_a_record_with_material_is_refused_and_the_error_does_not_show_it(name: str, place: str) -> None:
    material: Any = MATERIAL[name]
    text = material if isinstance(material, str) else json.dumps(material)
    content: dict[str, Any] = {"messages": [text]} if place == "messages" else {"health": {"before": {"api": material}}}
    with pytest.raises(KeyturnError) as caught:
        check_record(small_record(**content))
    assert caught.value.code == "evidence-material"
    assert caught.value.where.startswith(f"$.{place}")
    assert CANARY not in str(caught.value)
    assert PEM.splitlines()[1] not in str(caught.value)


def test_material_in_a_key_is_found_without_naming_the_key() -> None:
    found = list(find_material({"software": {PEM: "x"}}))
    assert found == ["$.software (a key)"]


@pytest.mark.parametrize("value", HARMLESS, ids=range(len(HARMLESS)))
def test_what_is_public_is_left_alone(value: Any) -> None:
    assert list(find_material({"messages": [value]})) == []


def test_a_full_record_is_not_taken_for_material() -> None:
    assert list(find_material(full_record())) == []


@pytest.mark.parametrize("name", MATERIAL)
def test_redact_leaves_no_material(name: str) -> None:
    masked = redact({"answer": [MATERIAL[name]]})
    assert list(find_material(masked)) == []
    assert CANARY not in json.dumps(masked)


@pytest.mark.parametrize("key", ["password", "db_password", "API_KEY", "apiKey", "token", "client_secret", "PGPASSWORD",
                                 "private_jwk", "dsn", "key", "signing_key", "pepper", "Authorization"])  # fmt: skip
def test_redact_masks_below_keys_that_name_a_secret(key: str) -> None:
    masked = redact({key: ["abc", {"n": 12345, "on": True, "none": None}], "name": "abc"})
    assert masked == {key: [MASK, {"n": MASK, "on": True, "none": None}], "name": "abc"}


@pytest.mark.parametrize("key", ["name", "host", "public_key", "passed", "monkey", "author", "spin", "keys_count"])
def test_redact_leaves_other_keys(key: str) -> None:
    assert redact({key: "abc"}) == {key: "abc"}


def test_redact_keeps_what_it_is_told_to_keep() -> None:
    masked = redact(
        {"keyturn_secrets": {"A": {"kind": "token", "value": "v", "password": "p"}}}, keep=["keyturn_secrets"]
    )
    assert masked == {"keyturn_secrets": {"A": {"kind": "token", "value": "v", "password": MASK}}}


@given(st.text(min_size=8), st.text(), st.text())
def test_redact_removes_a_known_value_in_every_form(value: str, before: str, after: str) -> None:
    raw = value.encode("utf-8", "surrogatepass")
    forms = [value, quote(raw, safe=""), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()]
    if value in MASK:
        return
    for form in forms:
        masked = redact({"stdout": [before + form + after]}, [value])["stdout"][0]
        assert value not in masked or value in before + MASK + after
        assert MASK in masked


def test_redact_masks_short_values_only_where_they_stand_alone() -> None:
    assert redact(["1", "2021", 1, 2021], ["1"]) == [MASK, "2021", MASK, 2021]


def test_redact_does_not_change_its_input() -> None:
    data = {"password": ["x"]}
    redact(data)
    assert data == {"password": ["x"]}


@pytest.mark.parametrize("name", [name for name, value in MATERIAL.items() if isinstance(value, str)])
def test_only_what_looks_like_material_is_masked_in_a_text(name: str) -> None:
    masked = mask_texts({"secrets": ["KEY"], "why": f"seen in a log: {MATERIAL[name]}", MATERIAL[name]: 3})
    assert list(find_material(masked)) == []
    assert CANARY not in json.dumps(masked)
    assert (masked["secrets"], masked["why"].startswith("seen in a log: "), 3 in masked.values()) == (
        ["KEY"],
        True,
        True,
    )


def test_a_text_that_is_no_unicode_can_be_put_on_record() -> None:
    assert mask_texts(["caf\udce9", 1, None, True]) == ["caf?", 1, None, True]


def test_the_filter_masks_and_refuses_a_text_for_a_list() -> None:
    filters = FilterModule().filters()
    assert filters["redact"]({"note": "abcdef"}, ["abcd"]) == {"note": f"{MASK}ef"}
    with pytest.raises(AnsibleFilterError, match="values has to be a list"):
        filters["redact"]({}, "abcd")
