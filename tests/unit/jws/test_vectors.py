# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another program signed: read, checked, and signed again to the same bytes."""

from __future__ import annotations

import base64
import functools
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.jws import (
    RefusedError,
    Signer,
    Verifier,
    head,
    load_public,
    load_signer,
    parse_document,
    parse_form,
    parse_published,
    read,
    sign,
)

_VECTORS = Path(__file__).resolve().parents[2] / "vectors"
POLICY: dict[str, Any] = json.loads((_VECTORS / "000_policy_jws_rs256.json").read_text())
PUBLISHED = json.dumps({"keys": [{**key["public_jwk"], "kid": key["kid"]} for key in POLICY["key"]["keys"]]})
CASES = {case["name"]: case for case in POLICY["cases"]}
NEGATIVE = {case["why"]: case["value"] for case in POLICY["negative_cases"]}
HEADER = {
    "typ": "JWT",
    "jwks_refresh": True,
    "refresh_reason": "automated_key_rotation",
    "refresh_timestamp": "{now}",
    "rotation_id": "{rotation_id}",
}


@functools.cache
def signers() -> dict[str, Signer]:
    """The private keys of the vectors."""
    return {
        key["kid"]: load_signer(base64.b64decode(key["private_jwk_base64_json"]), key["kid"], "vector")
        for key in POLICY["key"]["keys"]
    }


def form_of(case: dict[str, Any], allowed: tuple[str, ...] = ()) -> Any:
    """The declaration that makes such a policy."""
    audience = case["audience_argument"] or "d2.policy"
    again = case["mode"] == "re-signed by rotation"
    entry = {
        "claims": {"iss": "d2-policy-service", "aud": audience},
        "lifetime": "1y",
        "header": HEADER if again else None,
        "allow_claims": allowed,
    }
    return parse_form(entry, case["name"])


def moment_of(case: dict[str, Any]) -> datetime:
    """When it was signed."""
    stamp = json.loads(case["header_json"]).get("refresh_timestamp")
    if stamp:
        return datetime.fromisoformat(stamp)
    return datetime.fromtimestamp(json.loads(case["payload_json"])["iat"], timezone.utc)


@pytest.mark.parametrize("name", CASES)
def test_a_policy_is_signed_to_the_same_bytes(name: str) -> None:
    case = CASES[name]
    form, now = form_of(case, ("iss", "aud", "iat", "exp")), moment_of(case)
    document = parse_document(json.dumps(case["bundle"]).encode())
    signer = signers()[case["kid"]]
    first = head(signer, form.header_at(case["rotation_id"] or "", now))
    made = sign(signer, first, form.payload(document, {}, now))
    assert made.text.decode() == case["jws"]
    assert made.payload.decode() == case["payload_json"]
    assert read(made.text) == made


@pytest.mark.parametrize("name", CASES)
def test_its_signature_holds_under_the_published_key_and_no_other(name: str) -> None:
    case, published = CASES[name], parse_published(PUBLISHED, "vector")
    compact = read(case["jws"].encode())
    assert compact is not None
    assert {kid: compact.holds(key) for kid, key in published.items()} == {kid: kid == case["kid"] for kid in published}


def _holds(value: str, published: dict[str, Verifier]) -> bool:
    compact = read(value.encode())
    return compact is not None and compact.kid in published and compact.holds(published[compact.kid])


@pytest.mark.parametrize("why", NEGATIVE)
def test_what_nobody_signed_does_not_hold(why: str) -> None:
    assert not _holds(NEGATIVE[why], parse_published(PUBLISHED, "vector"))


def test_a_document_that_overwrites_claims_is_refused_by_their_names() -> None:
    case = CASES["bundle_overwrites_claims"]
    with pytest.raises(RefusedError, match=r"^has claims of its own: aud, exp, iat, iss$") as raised:
        form_of(case).payload(case["bundle"], {}, moment_of(case))
    assert "evil" not in str(raised.value)


def test_a_public_key_reads_as_the_one_that_signs() -> None:
    for key in POLICY["key"]["keys"]:
        public = load_public(key["public_jwk"])
        assert public is not None
        assert public.is_same(signers()[key["kid"]].verifier)
