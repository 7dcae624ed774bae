# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys that sign and check: PEM or JWK in, bytes out. RFC 7517, RFC 7518 (RS, PS, ES), RFC 8037 (EdDSA)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Union

from ansible_collections.keyturn.rotation.plugins.module_utils.base64url import decode
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import require_library

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )
except ImportError:
    if TYPE_CHECKING:
        raise

if TYPE_CHECKING:
    _Private = Union[rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey]
    _Public = Union[rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey]

__all__ = ["ALGORITHMS", "Signer", "Verifier", "load_public", "load_signer", "read_signer"]

#: What may stand in ``alg`` of a header.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

_CURVES = {"P-256": ("ES256", 32), "P-384": ("ES384", 48), "P-521": ("ES512", 66)}
#: By the library's name: other curves have as many bits, and none of these algorithms.
_BY_NAME = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def _number(jwk: Mapping[str, Any], name: str) -> int:
    return int.from_bytes(decode(jwk[name].encode()), "big")


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    found: dict[str, type[hashes.HashAlgorithm]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
    return found[algorithm[2:]]()


class Verifier:
    """A public key with its algorithm."""

    def __init__(self, public: _Public, algorithm: str) -> None:
        self.algorithm = algorithm
        self._public = public
        self._check = _checking(public, algorithm)

    def holds(self, signature: bytes, signed: bytes) -> bool:
        """Whether this key signed these bytes."""
        try:
            self._check(signature, signed)
        except (InvalidSignature, ValueError):
            return False
        return True

    def is_same(self, other: Verifier) -> bool:
        """Whether it is the same key, used in the same way."""
        return self.algorithm == other.algorithm and self.der() == other.der()

    def der(self) -> bytes:
        """The key as SubjectPublicKeyInfo (RFC 5280)."""
        return self._public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _checking(public: _Public, algorithm: str) -> Callable[[bytes, bytes], object]:
    if isinstance(public, rsa.RSAPublicKey):
        digest = _hash(algorithm)
        padding = PKCS1v15() if algorithm.startswith("RS") else PSS(MGF1(digest), digest.digest_size)
        return lambda signature, signed: public.verify(signature, signed, padding, digest)
    if isinstance(public, ec.EllipticCurvePublicKey):
        rule, size = ec.ECDSA(_hash(algorithm)), _CURVES[_BY_NAME[public.curve.name]][1]

        def check(signature: bytes, signed: bytes) -> None:
            if len(signature) != 2 * size:
                raise ValueError
            r, s = (int.from_bytes(half, "big") for half in (signature[:size], signature[size:]))
            public.verify(encode_dss_signature(r, s), signed, rule)

        return check
    return public.verify


class Signer:
    """A private key with its algorithm and the kid that goes into the header."""

    def __init__(self, private: _Private, algorithm: str, kid: str) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.verifier = Verifier(private.public_key(), algorithm)
        self.sign = _signing(private, algorithm)


def _signing(private: _Private, algorithm: str) -> Callable[[bytes], bytes]:
    if isinstance(private, rsa.RSAPrivateKey):
        digest = _hash(algorithm)
        padding = PKCS1v15() if algorithm.startswith("RS") else PSS(MGF1(digest), digest.digest_size)
        return lambda signed: private.sign(signed, padding, digest)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        rule, size = ec.ECDSA(_hash(algorithm)), _CURVES[_BY_NAME[private.curve.name]][1]

        def sign(signed: bytes) -> bytes:
            r, s = decode_dss_signature(private.sign(signed, rule))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")

        return sign
    return private.sign


def _algorithm(key: _Private | _Public, named: str | None) -> str:
    """The algorithm of a key; the named one where it can be that.

    :raises ValueError: where it cannot.
    :raises KeyError: for a curve that no algorithm here has.
    """
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        possible: tuple[str, ...] = ALGORITHMS[:6]
    elif isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        possible = (_CURVES[_BY_NAME[key.curve.name]][0],)
    else:
        possible = ("EdDSA",)
    if named is not None and named not in possible:
        raise ValueError
    return named or possible[0]


# -- reading keys ------------------------------------------------------------------------------------------------


def _rsa_private(jwk: Mapping[str, Any]) -> rsa.RSAPrivateKey:
    public = rsa.RSAPublicNumbers(_number(jwk, "e"), _number(jwk, "n"))
    d = _number(jwk, "d")
    if "p" in jwk:
        p, q = _number(jwk, "p"), _number(jwk, "q")
    else:
        p, q = rsa.rsa_recover_prime_factors(public.n, public.e, d)
    dp, dq, qi = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key(unsafe_skip_rsa_key_validation=True)


def _curve(jwk: Mapping[str, Any]) -> ec.EllipticCurve:
    known: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
    return known[jwk["crv"]]()


def _private_from_jwk(jwk: Mapping[str, Any]) -> _Private:
    if jwk["kty"] == "RSA":
        return _rsa_private(jwk)
    if jwk["kty"] == "EC":
        point = ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), _curve(jwk))
        return ec.EllipticCurvePrivateNumbers(_number(jwk, "d"), point).private_key()
    if (jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519"):
        return ed25519.Ed25519PrivateKey.from_private_bytes(decode(jwk["d"].encode()))
    raise ValueError


def _public_from_jwk(jwk: Mapping[str, Any]) -> _Public:
    if jwk["kty"] == "RSA":
        return rsa.RSAPublicNumbers(_number(jwk, "e"), _number(jwk, "n")).public_key()
    if jwk["kty"] == "EC":
        return ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), _curve(jwk)).public_key()
    if (jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519"):
        return ed25519.Ed25519PublicKey.from_public_bytes(decode(jwk["x"].encode()))
    raise ValueError


def read_signer(raw: bytes, kid: str, algorithm: str | None = None) -> tuple[Signer, str | None]:
    """A signer, and the kid that the key gives itself.

    The numbers of an RSA key are not examined, which takes longer than a hundred signatures: whoever signs with it
    checks what comes of it.

    :param raw: PEM (PKCS #8 or PKCS #1, without passphrase) or the JSON text of a JWK.
    :param kid: what the header is to name it.
    :param algorithm: goes before that of a JWK.
    :raises ValueError: for what is no private key, or none for the algorithm.
    """
    try:
        if raw.lstrip().startswith(b"{"):
            jwk = json.loads(raw)
            private, named, own = _private_from_jwk(jwk), jwk.get("alg"), jwk.get("kid")
        else:
            loaded = load_pem_private_key(raw, None, unsafe_skip_rsa_key_validation=True)
            if not isinstance(loaded, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
                raise ValueError
            private, named, own = loaded, None, None
        return Signer(private, _algorithm(private, algorithm or named), kid), own
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
        raise ValueError("no private key") from None


def load_signer(raw: bytes, kid: str, where: str) -> Signer:
    """A private key as PEM (PKCS #8 or PKCS #1, without passphrase) or as JSON text of a JWK.

    :param kid: what the header is to name it; a JWK that has another kid is refused.
    :raises KeyturnError: ``signing-key-invalid``, ``kid-mismatch``, ``library-missing``.
    """
    require_library(where)
    try:
        signer, own = read_signer(raw, kid)
    except ValueError:
        raise KeyturnError(
            "signing-key-invalid",
            f"what should be the private key {kid} is none",
            where=where,
            hint="A PEM without passphrase or a private JWK, of RSA, EC or Ed25519",
        ) from None
    if own is not None and own != kid:
        raise KeyturnError("kid-mismatch", f"calls itself otherwise than {kid}", where=where, hint="Name the right key")
    return signer


def load_public(jwk: Any) -> Verifier | None:
    """A public JWK; None for one that cannot check signatures here (another kind, or for encryption)."""
    try:
        public = _public_from_jwk(jwk)
        return Verifier(public, _algorithm(public, jwk.get("alg")))
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
        return None
