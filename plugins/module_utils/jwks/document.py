# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A JSON Web Key Set as it is published (RFC 7517 section 5). Pure: text in, public keys out.

Stricter than a verifier needs to be, since a rotation rests on it: each key has a kid of its own, and an empty set is
an error (some services serve one, with status 200, when their database is down).
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import jwk_thumbprint
from ansible_collections.keyturn.rotation.plugins.module_utils.material import JWK_PRIVATE, find_material

__all__ = ["PublicKey", "check_kid", "parse_jwks"]

_KID = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
#: Required members by key type (RFC 7518 section 6, RFC 8037 section 2).
_REQUIRED = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
#: Bytes of a coordinate by curve: neither less nor more (RFC 7518 section 6.2.1.2, RFC 8812, RFC 8037).
_SIZES = {"P-256": 32, "P-384": 48, "P-521": 66, "secp256k1": 32, "Ed25519": 32, "Ed448": 57, "X25519": 32, "X448": 56}


@dataclass(frozen=True)
class PublicKey:
    """One published key.

    :param alg: empty where the set does not say.
    :param thumbprint: RFC 7638, SHA-256: two endpoints have the same key under a kid only if this is the same. Empty
        for a key type that is not known, which verifiers leave out.
    """

    kid: str
    kty: str
    alg: str = ""
    use: str = ""
    thumbprint: str = ""


def check_kid(kid: Any, where: str) -> str:
    """A kid of 1 to 255 printable characters, without a blank at either end.

    :raises KeyturnError: ``jwks-invalid``.
    """
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise _invalid("a kid is missing or not usable", where, "Each key needs a kid of 1 to 255 printable characters")
    return kid


def parse_jwks(text: str, where: str) -> list[PublicKey]:
    """The public keys of a set, in its order.

    :param where: the endpoint's name, for errors.
    :raises KeyturnError: ``jwks-invalid``, ``jwks-empty``, ``jwks-private`` (names the kid, never the material),
        ``jwks-duplicate``.
    """
    document = _load(text, where)
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise _invalid("has no list of keys", where, "A JWKS is an object with the member keys")
    _refuse_private(document, entries, where)
    keys = [_public_key(entry, f"{where}, key {number}") for number, entry in enumerate(entries, 1)]
    if not keys:
        raise KeyturnError(
            "jwks-empty", "holds no key at all", where=where, hint="Look at the issuer's log and its database"
        )
    kids = [key.kid for key in keys]
    twice = sorted({kid for kid in kids if kids.count(kid) > 1})
    if twice:
        raise KeyturnError(
            "jwks-duplicate",
            f"several keys have the kid {', '.join(map(repr, twice))}",
            where=where,
            hint="A verifier may take either of them. Give each key a kid of its own",
        )
    return keys


def _invalid(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("jwks-invalid", message, where=where, hint=hint)


def _load(text: str, where: str) -> Any:
    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise _invalid(
            "is no JSON, or a member stands in it twice", where, "Look at what the address answers"
        ) from None


def _refuse_private(document: Any, entries: Sequence[Any], where: str) -> None:
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            continue
        members = sorted(JWK_PRIVATE & set(entry))
        if members or entry.get("kty") == "oct" or next(find_material(entry), None):
            kid = entry.get("kid")
            is_name = isinstance(kid, str) and _KID.fullmatch(kid) and not next(find_material({"kid": kid}), None)
            is_name = is_name and kid not in [entry[member] for member in members]
            name = repr(kid) if is_name else f"number {number}"
            raise _leak(f"the key {name} is published with its private part ({', '.join(members) or 'as text'})", where)
    if next(find_material(document), None):
        raise _leak("private material stands beside the keys", where)


def _leak(message: str, where: str) -> KeyturnError:
    return KeyturnError(
        "jwks-private", message, where=where, hint="That key is compromised: take it out and rotate it at once"
    )


def _public_key(entry: Any, where: str) -> PublicKey:
    if not isinstance(entry, Mapping):
        raise _invalid("is no key", where, "A key is an object with kty and kid")
    kid = check_kid(entry.get("kid"), where)
    facts = {name: entry.get(name, "") for name in ("kty", "alg", "use", "crv")}
    if not facts["kty"] or not all(isinstance(value, str) for value in facts.values()):
        raise _invalid(f"{kid!r} has no usable kty, alg, use or crv", where, "They are texts; kty must be there")
    kty, curve = facts["kty"], facts["crv"]
    for name in _REQUIRED.get(kty, ()):
        if not entry.get(name) or not (name == "crv" or _is_right(entry[name], name, curve)):
            raise _invalid(f"{kid!r} has no usable member {name!r}", where, "It is needed to verify with this key")
    thumbprint = jwk_thumbprint(entry) if kty in _REQUIRED else ""
    return PublicKey(kid, kty, facts["alg"], facts["use"], thumbprint)


def _is_right(value: Any, name: str, curve: str) -> bool:
    """Whether a member is base64url without padding, and as long as the curve says."""
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        return False
    try:
        raw = urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except binascii.Error:
        return False
    return name not in ("x", "y") or curve not in _SIZES or len(raw) == _SIZES[curve]
