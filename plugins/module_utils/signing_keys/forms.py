# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a signing key is written in a row, and how its kid is found. Pure but for the library's key generator."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import (
    SigningKey,
    check_spec,
    jwk_thumbprint,
    new_signing_key,
    private_members,
    public_jwk,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.keys import load_public

try:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = [
    "FORMS",
    "JWK_EXTRAS",
    "KID_RULES",
    "KeyForm",
    "NewKey",
    "algorithm",
    "check_generate",
    "make_key",
    "public_sha256",
]

#: How either half of a key is written. C(pem-one-line) has its base64 in one line and no line end behind the last one.
FORMS = ("jwk", "pem", "pem-one-line")
#: Members that a JWK may have besides the key and its algorithm.
JWK_EXTRAS = ("kid", "use")
_EC_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_TYPES = ("rsa", "ec", "ed25519")


def _spki_16(spki: bytes, _jwk: Mapping[str, Any]) -> str:
    """First 16 characters of base64url(SHA-256(SubjectPublicKeyInfo in DER)): 96 bits."""
    return base64.urlsafe_b64encode(hashlib.sha256(spki).digest())[:16].decode()


def _thumbprint(_spki: bytes, jwk: Mapping[str, Any]) -> str:
    return jwk_thumbprint(jwk)


#: From SubjectPublicKeyInfo (DER) and public JWK to the kid; None where chance decides.
KID_RULES: Mapping[str, Callable[[bytes, Mapping[str, Any]], str] | None] = {
    "uuid": None,
    "thumbprint": _thumbprint,
    "spki-sha256-16": _spki_16,
}


@dataclass(frozen=True)
class KeyForm:
    """How a new key is written.

    :param kid: one of :data:`KID_RULES`.
    :param private: one of :data:`FORMS`; so is ``public``.
    :param extras: of :data:`JWK_EXTRAS`, what either JWK also has.
    """

    kid: str
    private: str
    public: str
    extras: Sequence[str] = ()


@dataclass(frozen=True)
class NewKey:
    """A key that was made; ``private`` is in clear and goes nowhere but into an envelope."""

    kid: str
    public: str
    private: bytes

    def __repr__(self) -> str:
        return f"NewKey(kid={self.kid!r})"


def algorithm(generate: Mapping[str, Any]) -> str:
    """The JWS algorithm (RFC 7518, RFC 8037) of keys made so."""
    if generate["type"] == "rsa":
        return str(generate.get("alg", "RS256"))
    return _EC_ALGORITHMS[generate.get("curve", "P-256")] if generate["type"] == "ec" else "EdDSA"


def check_generate(generate: Mapping[str, Any], where: str) -> None:
    """Refuse what makes no signing key.

    :raises KeyturnError: ``generate-invalid``.
    """
    check_spec(generate, where)
    if generate["type"] not in _TYPES or "format" in generate:
        hint = "Use type rsa, ec or ed25519, without format: the table says how keys are written"
        raise KeyturnError("generate-invalid", "makes no signing key for a table", where=where, hint=hint)


def make_key(generate: Mapping[str, Any], form: KeyForm) -> NewKey:
    """A new key pair in the forms of a table.

    :param generate: as :func:`check_generate` accepts it.
    :raises KeyturnError: ``library-missing``.
    """
    key = new_signing_key(generate)
    public = public_jwk(key, algorithm(generate))
    public["kid"] = _kid(form.kid, key, public)
    return NewKey(public["kid"], _public_text(key, public, form), _private_text(key, public, form))


def _kid(rule: str, key: SigningKey, jwk: Mapping[str, Any]) -> str:
    found = KID_RULES[rule]
    if found is None:
        return str(uuid.uuid4())
    return found(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), jwk)


def _jwk(public: Mapping[str, Any], more: Mapping[str, str], extras: Sequence[str]) -> str:
    """JSON as Python writes it, the algorithm first."""
    members = {"alg": public["alg"], **{k: v for k, v in public.items() if k not in ("alg", *JWK_EXTRAS)}, **more}
    return json.dumps({**members, **{name: public[name] for name in extras}})


def _public_text(key: SigningKey, public: Mapping[str, Any], form: KeyForm) -> str:
    if form.public == "jwk":
        return _jwk(public, {}, form.extras)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return _lines(pem, form.public).decode()


def _private_text(key: SigningKey, public: Mapping[str, Any], form: KeyForm) -> bytes:
    if form.private == "jwk":
        return _jwk(public, private_members(key), form.extras).encode()
    return _lines(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), form.private)


def _lines(pem: bytes, form: str) -> bytes:
    if form == "pem":
        return pem
    head, *body, tail = pem.splitlines()
    return b"\n".join((head, b"".join(body), tail))


def public_sha256(text: str) -> str | None:
    """SHA-256 of a public key's SubjectPublicKeyInfo, in hexadecimal: the same for a PEM and for a JWK.

    :param text: in one of :data:`FORMS`.
    :returns: None for what is no public key that is known here.
    """
    try:
        if text.startswith("-----BEGIN PUBLIC KEY-----"):
            der = base64.b64decode(text.replace("\\n", "").split("-----")[2], validate=False)
        else:
            verifier = load_public(json.loads(text))
            der = verifier.der() if verifier else b""
    except ValueError:
        return None
    return hashlib.sha256(der).hexdigest() if der else None
