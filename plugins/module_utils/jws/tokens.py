# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of probes (RFC 7515, RFC 7518, RFC 8037).

A short-lived one is signed by one version of a key, to be shown to a reader; one in an answer is looked at for the kid
that signed it.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.base64url import decode
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import compact_jws, require_library
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.keys import ALGORITHMS as _PUBLIC_ALGORITHMS
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.keys import read_signer
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import DURATION, Field, Shape, parse_duration

__all__ = ["ALGORITHMS", "TOKEN", "check_token", "issued_at", "kids_in", "sign_token"]

_HMAC = ("HS256", "HS384", "HS512")
#: Every algorithm that a token can be signed with.
ALGORITHMS = (*_HMAC, *_PUBLIC_ALGORITHMS)
_LIFETIME = "60s"
#: By how much a token is dated back at most.
_BACK_SECONDS = 30.0

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
        json.dumps(spec.get("claims") or {}, allow_nan=False, sort_keys=True)
        dated = {"iat", "exp"} & set(spec.get("claims") or {})
        none = parse_duration(spec.get("lifetime") or _LIFETIME) == 0
    except (KeyturnError, TypeError, ValueError):
        raise _invalid("token is not of the right form", where, "See docs/overlap.md") from None
    if dated or none:
        raise _invalid("iat and exp come from the clock and the lifetime", where, "Leave them out of claims")


def _invalid(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("probe-invalid", message, where=where, hint=hint)


# -- signing -----------------------------------------------------------------------------------------------------------


def issued_at(spec: Mapping[str, Any], now: float) -> float:
    """When a token is said to be issued that is shown now: before it, within its lifetime.

    Verifiers refuse a token of the future, and the clock of this host may be ahead of theirs as well as behind it.
    """
    return now - min(_BACK_SECONDS, parse_duration(spec.get("lifetime") or _LIFETIME) / 2)


def sign_token(value: bytes, spec: Mapping[str, Any], kid: str, now: float) -> bytes:
    """A compact token, members sorted by name.

    :param value: a private JWK, a PKCS #8 PEM, a key of a keyset with its kid (:class:`keysets.model.Entry`), or for
        HS256 and its like the secret as its bytes stand.
    :param spec: see :data:`TOKEN`.
    :param kid: goes into the header unless empty.
    :param now: seconds since 1970; :func:`issued_at` for a token that is shown to somebody.
    :raises KeyturnError: ``key-unusable`` where the value is no key for the algorithm; ``library-missing``.
    """
    sign, algorithm = _signing(value, spec.get("algorithm"))
    header = {"alg": algorithm, **({"kid": kid} if kid else {}), "typ": spec.get("typ") or "JWT"}
    issued = int(now)
    expires = issued + parse_duration(spec.get("lifetime") or _LIFETIME)
    payload = {**(spec.get("claims") or {}), "iat": issued, "exp": expires}
    return compact_jws(header, dict(sorted(payload.items())), sign)


def _unusable(message: str) -> KeyturnError:
    return KeyturnError("key-unusable", message, where="token", hint="Look at the value and at token.algorithm")


def _signing(value: bytes, named: str | None) -> tuple[Callable[[bytes], bytes], str]:
    """How a version signs, and the algorithm."""
    secret, own = _secret_of(value)
    if secret is not None:
        algorithm = str(named or own)
        if algorithm not in _HMAC:
            raise _unusable(f"{algorithm} needs a private key, and this value is none")
        return partial(hmac.digest, secret, digest=f"sha{algorithm[2:]}"), algorithm
    require_library("token")
    try:
        signer, _own = read_signer(value, "", named)
    except ValueError:
        raise _unusable(f"this is no private key that signs {named}" if named else "this is no private key") from None
    return signer.sign, signer.algorithm


def _secret_of(value: bytes) -> tuple[bytes | None, str]:
    """The secret that HMAC uses, and its algorithm; None for a private key."""
    text = value.strip()
    if text.startswith(b"-----BEGIN "):
        return None, ""
    if not text.startswith(b"{"):
        return value, "HS256"
    entry = Entry.read(text)
    if entry is not None:
        return entry.key.encode(), "HS256"
    try:
        jwk = json.loads(text)
        octets = jwk["kty"] == "oct"
        return (decode(jwk["k"].encode()), str(jwk.get("alg") or "HS256")) if octets else (None, "")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _unusable("this is no private key") from None


# -- reading -----------------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"\beyJ[A-Za-z0-9_-]+(?=\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)")
_MEMBERS = ("active_kid", "kid")


def kids_in(answer: str) -> set[str]:
    """The kids that an answer tells of: of the tokens in it, and of its JSON members ``active_kid`` and ``kid``."""
    found = set()
    for header in _HEADER.findall(answer):
        try:
            found |= set(_named(json.loads(decode(header.encode()))))
        except ValueError:
            continue
    with contextlib.suppress(ValueError):
        found |= set(_named(json.loads(answer)))
    return found


def _named(content: Any) -> Iterator[str]:
    for member in _MEMBERS if isinstance(content, Mapping) else ():
        if isinstance(content.get(member), str):
            yield content[member]
