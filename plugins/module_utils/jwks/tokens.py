# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A short-lived token, signed by one version of a key, to be shown to a gateway (RFC 7515, RFC 7518, RFC 8037)."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import DURATION, Field, Shape, parse_duration

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
except ImportError:
    if TYPE_CHECKING:
        raise
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

if TYPE_CHECKING:
    _Key = Union[bytes, rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey]

__all__ = ["ALGORITHMS", "TOKEN", "check_token", "sign_token"]

_HMAC = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EC = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_CURVES = {"P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1"}
#: Every algorithm that a token can be signed with.
ALGORITHMS = (*_HMAC, *_RSA, *_EC.values(), "EdDSA")
_LIFETIME = "60s"

TOKEN = Shape(
    "token of a probe",
    {
        "claims": Field("map", "Its claims but for iat and exp"),
        "lifetime": Field("str", "How long it is valid; 60s by default", pattern=DURATION),
        "algorithm": Field("str", "How it is signed; what fits the key by default", choices=ALGORITHMS),
        "typ": Field("str", "The typ in its header; JWT by default"),
    },
)


def check_token(spec: Any, where: str) -> None:
    """Refuse what :func:`sign_token` cannot make.

    :raises KeyturnError: ``probe-invalid``.
    """
    try:
        TOKEN.check(spec, where)
        json.dumps(spec.get("claims") or {}, allow_nan=False)
        dated = {"iat", "exp"} & set(spec.get("claims") or {})
        none = parse_duration(spec.get("lifetime") or _LIFETIME) == 0
    except (KeyturnError, TypeError, ValueError):
        raise _invalid("token is not of the right form", where, "See docs/overlap.md") from None
    if dated or none:
        raise _invalid("iat and exp come from the clock and the lifetime", where, "Leave them out of claims")


def _invalid(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("probe-invalid", message, where=where, hint=hint)


def sign_token(value: bytes, spec: Mapping[str, Any], kid: str, now: float) -> bytes:
    """A compact token.

    :param value: a private JWK, a PKCS #8 PEM, or for HS256 and its like the secret as its bytes stand.
    :param spec: see :data:`TOKEN`.
    :param kid: goes into the header unless empty.
    :param now: seconds since 1970.
    :raises KeyturnError: ``key-unusable`` where the value is no key for the algorithm; ``library-missing``.
    """
    key, named = _load(value)
    algorithm = str(spec.get("algorithm") or named)
    header = {"alg": algorithm, "typ": spec.get("typ") or "JWT", **({"kid": kid} if kid else {})}
    issued = int(now)
    expires = issued + parse_duration(spec.get("lifetime") or _LIFETIME)
    payload = {**(spec.get("claims") or {}), "iat": issued, "exp": expires}
    signed = b".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, payload))
    return signed + b"." + _base64url(_signature(key, algorithm, signed))


def _base64url(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def _unusable(message: str) -> KeyturnError:
    return KeyturnError("key-unusable", message, where="token", hint="Look at the value and at token.algorithm")


# -- keys --------------------------------------------------------------------------------------------------------------


def _load(value: bytes) -> tuple[_Key, str]:
    """The key, and the algorithm that fits it."""
    text = value.strip()
    if not text.startswith((b"{", b"-----BEGIN ")):
        return value, "HS256"
    if not HAS_CRYPTOGRAPHY:
        raise KeyturnError(
            "library-missing",
            "the Python library cryptography is not installed on this host",
            where="token",
            hint="Install python3-cryptography",
        )
    try:
        jwk = json.loads(text) if text.startswith(b"{") else {}
        key = _from_jwk(jwk) if jwk else load_pem_private_key(text, None)
    except (ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        raise _unusable("this is no private key") from None
    if isinstance(key, bytes):
        return key, str(jwk.get("alg") or "HS256")
    if isinstance(key, rsa.RSAPrivateKey):
        return key, str(jwk.get("alg") or "RS256")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _EC:
        return key, _EC[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key, "EdDSA"
    raise _unusable("nothing is signed with a key of this type")


def _bytes_of(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _from_jwk(jwk: Mapping[str, Any]) -> _Key:
    def number(name: str) -> int:
        return int.from_bytes(_bytes_of(jwk[name]), "big")

    if jwk["kty"] == "oct":
        return _bytes_of(jwk["k"])
    if jwk["kty"] == "RSA":
        public = rsa.RSAPublicNumbers(number("e"), number("n"))
        numbers = {"p": number("p"), "q": number("q"), "d": number("d"), "dmp1": number("dp"), "dmq1": number("dq")}
        return rsa.RSAPrivateNumbers(**numbers, iqmp=number("qi"), public_numbers=public).private_key()
    if jwk["kty"] == "EC":
        curves = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1()}
        public_point = ec.EllipticCurvePublicNumbers(number("x"), number("y"), curves[_CURVES[jwk["crv"]]])
        return ec.EllipticCurvePrivateNumbers(number("d"), public_point).private_key()
    if jwk["kty"] == "OKP" and jwk["crv"] == "Ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(_bytes_of(jwk["d"]))
    raise ValueError


# -- signatures --------------------------------------------------------------------------------------------------------


def _signature(key: _Key, algorithm: str, signed: bytes) -> bytes:
    if isinstance(key, bytes):
        if algorithm not in _HMAC:
            raise _unusable(f"{algorithm} needs a private key, and this value is none")
        return hmac.digest(key, signed, f"sha{algorithm[2:]}")
    if isinstance(key, rsa.RSAPrivateKey) and algorithm in _RSA:
        digest = _hash(algorithm)
        if algorithm.startswith("RS"):
            return key.sign(signed, padding.PKCS1v15(), digest)
        return key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    if isinstance(key, ec.EllipticCurvePrivateKey) and algorithm == _EC.get(key.curve.name):
        size = (key.key_size + 7) // 8
        pair = decode_dss_signature(key.sign(signed, ec.ECDSA(_hash(algorithm))))
        return b"".join(part.to_bytes(size, "big") for part in pair)
    if isinstance(key, ed25519.Ed25519PrivateKey) and algorithm == "EdDSA":
        return key.sign(signed)
    raise _unusable(f"this key does not sign {algorithm}")


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    return {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[2:]]
