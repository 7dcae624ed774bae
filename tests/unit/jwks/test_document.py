# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A published key set: what is taken, what is refused, and what its headers promise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import describe, generate
from ansible_collections.keyturn.rotation.plugins.module_utils.jwks.caching import freshness
from ansible_collections.keyturn.rotation.plugins.module_utils.jwks.document import parse_jwks
from hypothesis import given
from hypothesis import strategies as st

_VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "000_jwks_document.json").read_text(encoding="utf-8"))
_KEY = _VECTOR["cases"][1]["body"]["keys"][0]
_CANARY = "canary4Zr9pQ2xW7vK1mB8"


def refused(document: Any) -> KeyturnError:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(KeyturnError) as caught:
        parse_jwks(text, "issuer")
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def made(kind: str) -> dict[str, Any]:
    spec = {"type": kind}
    public: dict[str, Any] = describe(spec, generate(spec, bytes))["public"]
    return public


# -- documents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", _VECTOR["cases"], ids=lambda case: str(case["name"]))
def test_the_documents_of_a_real_issuer(case: dict[str, Any]) -> None:
    if not case["body"]["keys"]:
        assert refused(case["body"]).code == "jwks-empty"
        return
    keys = parse_jwks(json.dumps(case["body"]), "issuer")
    assert [(key.kid, key.kty, key.alg) for key in keys] == [
        (key["kid"], "RSA", "RS256") for key in case["body"]["keys"]
    ]
    assert ",".join(key.kid for key in keys) == case["headers"]["x-jwks-key-ids"]
    assert freshness(case["headers"]).longest == 60


def test_trap_38_an_empty_set_with_status_200_is_an_error() -> None:
    assert refused({"keys": []}).code == "jwks-empty"


@pytest.mark.parametrize("case", _VECTOR["negative_cases"], ids=lambda case: str(case["why"])[:30])
def test_what_must_not_count_as_published(case: dict[str, Any]) -> None:
    if "expect_missing_kid" in case:
        assert case["expect_missing_kid"] not in [key.kid for key in parse_jwks(json.dumps(case["value"]), "issuer")]
        return
    expected = {
        "two keys with the same kid": "jwks-duplicate",
        "carries a private member (d)": "jwks-private",
        "RSA key without n": "jwks-invalid",
        "no keys member": "jwks-invalid",
    }
    assert refused(case["value"]).code == expected.get(case["why"], "jwks-empty")


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_trap_28_a_leaked_private_member_is_named_by_its_kid_and_not_shown(member: str) -> None:
    error = refused({"keys": [{**_KEY, "kid": "k1"}, {**_KEY, "kid": "k2", member: _CANARY}]})
    assert error.code == "jwks-private"
    assert "'k2'" in error.message
    assert f"({member})" in error.message


def test_leaks_in_other_places_are_seen_too() -> None:
    pem = f"-----BEGIN PRIVATE KEY-----\n{_CANARY}\n-----END PRIVATE KEY-----"
    assert refused({"keys": [{**_KEY, "comment": pem}]}).code == "jwks-private"
    assert refused({"keys": [_KEY], "next": {**_KEY, "d": _CANARY}}).code == "jwks-private"


def test_trap_28_a_kid_that_is_the_material_itself_is_not_shown() -> None:
    pem = f"-----BEGIN PRIVATE KEY-----{_CANARY}"
    for entry in ({**_KEY, "kid": pem}, {**_KEY, "kid": _CANARY, "d": _CANARY}):
        error = refused({"keys": [entry]})
        assert (error.code, _CANARY in str(error)) == ("jwks-private", False)
        assert "the key number 1 is published" in str(error)
    assert refused({"keys": [{"kty": "oct", "kid": _CANARY * 20, "k": _CANARY}]}).message.startswith("the key number 1")


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        {**_KEY, "kid": None},
        {key: value for key, value in _KEY.items() if key != "kid"},
        {**_KEY, "kid": 7},
        {**_KEY, "kid": ""},
        {**_KEY, "kid": " padded"},
        {**_KEY, "kid": "a\nb"},
        {**_KEY, "kid": "x" * 256},
        {**_KEY, "kty": ["RSA"]},
        {**_KEY, "kty": None},
        {**_KEY, "n": "not base64url!"},
        {**_KEY, "e": "AQAB=="},
        {"kty": "EC", "kid": "k", "crv": "P-256", "x": "AQAB", "y": "AQAB"},
        {"kty": "OKP", "kid": "k", "crv": "Ed25519"},
    ],
)
def test_a_key_that_nobody_can_verify_with_is_refused(entry: Any) -> None:
    assert refused({"keys": [_KEY, entry]}).code == "jwks-invalid"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"keys": {}}', '{"keys": null}', '{"keys": [], "keys": []}', "[" * 100_000, "\ufeff{}"],
)
def test_what_is_no_set_is_refused(text: str) -> None:
    assert refused(text).code == "jwks-invalid"


def test_trap_33_kids_are_texts_whatever_stands_in_them() -> None:
    kid = 'k"1\\{}'
    assert [key.kid for key in parse_jwks(json.dumps({"keys": [{**_KEY, "kid": kid}]}), "issuer")] == [kid]


@pytest.mark.parametrize("kind", ["ec", "ed25519", "rsa"])
def test_keys_of_every_type_have_their_thumbprint(kind: str) -> None:
    public = made(kind)
    (key,) = parse_jwks(json.dumps({"keys": [public]}), "issuer")
    assert (key.kid, key.thumbprint, key.use) == (public["kid"], public["kid"], "sig")


def test_a_key_type_of_the_future_is_listed_without_a_thumbprint() -> None:
    (key,) = parse_jwks('{"keys": [{"kty": "AKP", "kid": "pq1", "alg": "ML-DSA-44", "pub": "x"}]}', "issuer")
    assert (key.kid, key.kty, key.thumbprint) == ("pq1", "AKP", "")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["keys", "kty", "kid", "x"]), inner),
    max_leaves=8,
)


@given(st.one_of(_JSON.map(json.dumps), st.text(max_size=40)))
def test_whatever_is_served_is_keys_or_an_error_with_a_code(text: str) -> None:
    try:
        code = f"jwks-{len(parse_jwks(text, 'issuer'))}"
    except KeyturnError as error:
        code = error.code
    assert re.fullmatch(r"jwks-([1-9]\d*|[a-z]+)", code)


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "longest"),
    [
        ({}, None),
        ({"cache-control": "public"}, None),
        ({"cache-control": "max-age=soon"}, None),
        ({"cache-control": "max-age=-1"}, None),
        ({"cache-control": "public, max-age=60, must-revalidate"}, 60),
        ({"cache-control": "MAX-AGE=300"}, 300),
        ({"cache-control": 'max-age="300"'}, 300),
        ({"cache-control": "max-age=0"}, 0),
        ({"cache-control": "max-age=60, s-maxage=600"}, 600),
        ({"cache-control": "max-age=600, s-maxage=60"}, 600),
        ({"cache-control": "no-store"}, 0),
        ({"cache-control": "no-cache, max-age=600"}, 0),
        ({"cache-control": "max-age=60, stale-while-revalidate=30"}, 90),
        ({"cache-control": "max-age=60, stale-while-revalidate=30, stale-if-error=86400"}, 86460),
        ({"cache-control": "max-age=60, stale-if-error=86400, must-revalidate"}, 60),
        ({"cache-control": "max-age=60, max-age=90"}, 90),
        ({"cache-control": "max-age=99999999999999999999"}, 2**31),
        ({"expires": "Sat, 21 Nov 2026 10:05:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 300),
        ({"expires": "0", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 0),
        ({"expires": "Sat, 21 Nov 2026 10:05:00 GMT"}, None),
        (
            {
                "cache-control": "max-age=60",
                "expires": "Sat, 21 Nov 2026 12:00:00 GMT",
                "date": "Sat, 21 Nov 2026 10:00:00 GMT",
            },
            60,
        ),
    ],
)
def test_how_long_a_cache_may_show_it(headers: dict[str, str], longest: int | None) -> None:
    assert freshness(headers).longest == longest


def test_the_parts_are_told_apart() -> None:
    seen = freshness({"cache-control": "max-age=60, s-maxage=600", "age": "45"})
    assert (seen.max_age, seen.shared_max_age, seen.age) == (60, 600, 45)
    assert freshness({"age": "x"}).age == 0
