# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a signed document looks like, as data: its header, the claims before the document's own, and its lifetime.

The payload is ``iat``, ``exp``, the declared claims in their order, then the members of the document. A document that
would put a member of its own in the place of one of those is refused, unless that member is allowed by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import LIFETIME, expires

__all__ = ["REGISTERED", "Form", "RefusedError", "parse_document", "parse_form"]

#: Claims that a verifier goes by (RFC 7519 section 4.1).
REGISTERED = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_IN_HEADER = ("rotation_id", "now")
_DATES = ("iat", "exp")
_OURS = ("alg", "kid", "crit")


class RefusedError(ValueError):
    """A document that is not to be signed; the text says why and holds no value of it."""


@dataclass(frozen=True)
class Form:
    """How the documents of a table are signed.

    :param claims: name and value; ``{column}`` in a text stands for the value of that column in the document's row.
    :param lifetime: ``90d``, ``1y``; empty for documents without ``exp``.
    :param header: members beside ``alg`` and ``kid``; ``{rotation_id}`` and ``{now}`` in a text are filled in.
    :param allowed: claims that a document may put in the place of ours, or add.
    """

    claims: tuple[tuple[str, Any], ...] = ()
    lifetime: str = ""
    header: Mapping[str, Any] = field(default_factory=lambda: {"typ": "JWT"})
    allowed: frozenset[str] = frozenset()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that claims name, each once."""
        texts = [value for _name, value in self.claims if isinstance(value, str)]
        return tuple(dict.fromkeys(name for text in texts for name in _PLACEHOLDER.findall(text)))

    def payload(self, document: Mapping[str, Any], values: Mapping[str, str | None], now: datetime) -> dict[str, Any]:
        """The payload of a document.

        :param values: of :attr:`columns`, as the database writes them.
        :param now: with its zone; ``iat`` is in whole seconds.
        :raises RefusedError: when the document has claims of its own that are not allowed, or a column is empty.
        """
        whole: dict[str, Any] = dict(_dates(self.lifetime, now))
        for name, value in self.claims:
            whole[name] = self._filled(value, values)
        own = [name for name in document if (name in whole or name in REGISTERED) and name not in self.allowed]
        if own:
            raise RefusedError(f"has claims of its own: {', '.join(sorted(own))}")
        whole.update(document)
        return whole

    @staticmethod
    def _filled(value: Any, values: Mapping[str, str | None]) -> Any:
        if not isinstance(value, str):
            return value

        def fill(found: re.Match[str]) -> str:
            text = values[found[1]]
            if not text:
                raise RefusedError(f"has nothing in the column {found[1]}")
            return text

        return _PLACEHOLDER.sub(fill, value)

    def header_at(self, rotation_id: str, now: datetime) -> dict[str, Any]:
        """The header but for ``alg`` and ``kid``."""
        known = {"rotation_id": rotation_id, "now": now.isoformat()}
        return {
            name: _PLACEHOLDER.sub(lambda found: known[found[1]], value) if isinstance(value, str) else value
            for name, value in self.header.items()
        }


@lru_cache(maxsize=16)
def _dates(lifetime: str, now: datetime) -> tuple[tuple[str, int], ...]:
    """``iat`` and ``exp`` of all that is signed at one moment."""
    issued = int(now.timestamp())
    if not lifetime:
        return (("iat", issued),)
    return (("iat", issued), ("exp", expires(issued, lifetime, "lifetime")))


def _invalid(where: str, message: str, hint: str) -> KeyturnError:
    return KeyturnError("documents-invalid", message, where=where, hint=hint)


def parse_form(entry: Mapping[str, Any], where: str) -> Form:
    """The form in ``claims``, ``lifetime``, ``header`` and ``allow_claims`` of a declaration.

    :raises KeyturnError: ``documents-invalid``.
    """
    claims: Mapping[str, Any] = entry.get("claims") or {}
    header: Mapping[str, Any] = entry["header"] if entry.get("header") is not None else {"typ": "JWT"}
    lifetime: str = entry.get("lifetime") or ""
    allowed: Sequence[str] = entry.get("allow_claims") or ()
    if lifetime and not (re.match(LIFETIME, lifetime) and expires(0, lifetime, f"{where}.lifetime") > 0):
        raise _invalid(f"{where}.lifetime", "is no lifetime", "Write 1y or 90d")
    if set(claims) & set(_DATES):
        raise _invalid(f"{where}.claims", "iat and exp come from the clock and the lifetime", "Leave them out")
    if set(header) & set(_OURS):
        raise _invalid(f"{where}.header", "alg and kid come from the key, crit is not supported", "Leave them out")
    for name, value in header.items():
        for found in _PLACEHOLDER.findall(value) if isinstance(value, str) else ():
            if found not in _IN_HEADER:
                known = "Known are {rotation_id} and {now}"
                raise _invalid(f"{where}.header.{name}", f"{{{found}}} stands for nothing", known)
    try:
        json.dumps([dict(claims), dict(header)], allow_nan=False)
    except (TypeError, ValueError):
        raise _invalid(where, "claims and header cannot be written as JSON", "Use texts, numbers, lists") from None
    return Form(tuple(claims.items()), lifetime, dict(header), frozenset(allowed))


# -- documents ---------------------------------------------------------------------------------------------------


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RefusedError("names a member twice")
    return members


def _float(text: str) -> float:
    """Signed is what was stored: a number that would be written as another one is no number to sign."""
    value = float(text)
    if not math.isfinite(value) or Decimal(text) != Decimal(repr(value)):
        raise RefusedError("holds a number with more digits than JSON readers keep")
    return value


def _constant(_name: str) -> float:
    raise RefusedError("is no JSON object")


def parse_document(raw: bytes) -> dict[str, Any]:
    """A document from its JSON text, members in their order.

    :raises RefusedError: for anything but an object, and for what could not be signed as it stands.
    """
    try:
        document = json.loads(raw, object_pairs_hook=_members, parse_float=_float, parse_constant=_constant)
    except RefusedError:
        raise
    except (ValueError, RecursionError):
        raise RefusedError("is no JSON object") from None
    if not isinstance(document, dict):
        raise RefusedError("is no JSON object")
    return document
