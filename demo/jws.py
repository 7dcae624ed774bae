# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RSA keys as JWKs (RFC 7517) and RS256 signatures as compact JWS (RFC 7515, RFC 7518 section 3.3)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

__all__ = ["SignatureError", "generate_jwk", "public_part", "sign", "unverified_kid", "verify"]

_PUBLIC_MEMBERS = ("alg", "kty", "n", "e", "kid")


class SignatureError(ValueError):
    """A JWS that is malformed or was not signed by the key."""


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode_int(number: int) -> str:
    return _encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _decode_int(text: str) -> int:
    return int.from_bytes(_decode(text), "big")


def generate_jwk(bits: int = 2048) -> dict[str, str]:
    """A fresh private RSA key as a JWK without ``kid``."""
    numbers = generate_private_key(65537, bits).private_numbers()
    parts = {
        "n": numbers.public_numbers.n,
        "e": numbers.public_numbers.e,
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    }
    return {"alg": "RS256", "kty": "RSA", **{name: _encode_int(number) for name, number in parts.items()}}


def public_part(jwk: dict[str, Any]) -> dict[str, Any]:
    """The members of a JWK that everybody may see."""
    return {name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}


def sign(jwk: dict[str, Any], payload: dict[str, Any]) -> str:
    """A compact JWS over ``payload``; the key is our own, so its numbers are not checked for primality again."""
    public = RSAPublicNumbers(_decode_int(jwk["e"]), _decode_int(jwk["n"]))
    p, q, d, dp, dq, qi = (_decode_int(jwk[name]) for name in ("p", "q", "d", "dp", "dq", "qi"))
    key = RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key(unsafe_skip_rsa_key_validation=True)
    header = {"alg": "RS256", "typ": "JWT", "kid": jwk["kid"]}
    text = ".".join(_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, payload))
    return f"{text}.{_encode(key.sign(text.encode(), PKCS1v15(), SHA256()))}"


def unverified_kid(jws: str) -> str:
    """The ``kid`` that a JWS claims.

    :raises SignatureError: when its header is malformed.
    """
    try:
        return str(json.loads(_decode(jws.split(".")[0]))["kid"])
    except (KeyError, TypeError, ValueError):
        raise SignatureError("the header is malformed") from None


def verify(jws: str, public_jwk: dict[str, Any]) -> dict[str, Any]:
    """The payload of a JWS that this key signed.

    :raises SignatureError: when it did not.
    """
    try:
        text, signature = jws.rsplit(".", 1)
        key = RSAPublicNumbers(_decode_int(public_jwk["e"]), _decode_int(public_jwk["n"])).public_key()
        key.verify(_decode(signature), text.encode(), PKCS1v15(), SHA256())
        payload: dict[str, Any] = json.loads(_decode(text.split(".")[1]))
    except (InvalidSignature, IndexError, ValueError, binascii.Error):
        raise SignatureError("the signature does not verify") from None
    return payload
