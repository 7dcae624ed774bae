# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API answered: a kid, a list of keys, a token. Nothing of an answer is shown but kids. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jwks.document import check_kid
from ansible_collections.keyturn.rotation.plugins.module_utils.material import find_material

__all__ = ["Issued", "Listed", "has_ended", "issued", "kid_made", "listed"]


@dataclass(frozen=True)
class Listed:
    """What the list shows.

    :param states: by kid, in the list's order: ``current``, ``usable`` or ``disabled``.
    :param tells: whether the list says which key is current.
    """

    states: Mapping[str, str]
    tells: bool = False

    @property
    def usable(self) -> list[str]:
        """The kids that are accepted."""
        return [kid for kid, state in self.states.items() if state != "disabled"]

    @property
    def current(self) -> str:
        """The kid that signs; empty where there is none, or the list does not say."""
        return next((kid for kid, state in self.states.items() if state == "current"), "")


def _answer(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("signing-api-answer", message, where=where, hint=hint)


def _load(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _answer("the answer is no JSON", where, "Look at what the address answers") from None


def _at(document: Any, place: str) -> Any:
    """What stands at ``a.b``; None where nothing does."""
    for member in filter(None, place.split(".")):
        document = document.get(member) if isinstance(document, Mapping) else None
    return document


def kid_made(text: str, place: str, where: str) -> str:
    """The kid in the answer to a generate. It is not shown before the list has it too.

    :raises KeyturnError: ``signing-api-answer``; nothing of the answer is in it, which may hold the private part.
    """
    kid = _at(_load(text, where), place)
    try:
        return check_kid(kid, where)
    except KeyturnError:
        raise _answer(f"no usable kid at {place!r}", where, "Correct api.generate.kid, or leave it empty") from None


def listed(text: str, request: Mapping[str, Any], where: str) -> Listed:
    """The keys of a list.

    :raises KeyturnError: ``signing-api-answer``, ``jwks-private``, ``jwks-duplicate``, ``jwks-invalid``,
        ``signing-api-current`` for two current keys.
    """
    document = _load(text, where)
    if next(find_material(document), None):
        hint = "That key is compromised: take it out and rotate it at once"
        raise KeyturnError("jwks-private", "the list holds private material", where=where, hint=hint)
    entries = _at(document, request.get("keys") or "")
    if not isinstance(entries, list):
        raise _answer("no list of keys is there", where, "Correct api.list.keys")
    states: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        kid = check_kid(_at(entry, request.get("kid") or "kid"), f"{where}, key {number}")
        if kid in states:
            raise KeyturnError(
                "jwks-duplicate", f"several keys have the kid {kid!r}", where=where, hint="Give each its own"
            )
        states[kid] = _state(entry, request)
    current = [kid for kid, state in states.items() if state == "current"]
    if len(current) > 1:
        raise KeyturnError(
            "signing-api-current", f"{len(current)} keys are current", where=where, hint="Promote one of them again"
        )
    return Listed(states, bool(request.get("current")))


def _state(entry: Any, request: Mapping[str, Any]) -> str:
    if request.get("usable") and not _holds(entry, request["usable"]):
        return "disabled"
    return "current" if request.get("current") and _holds(entry, request["current"]) else "usable"


def _holds(entry: Any, rule: Mapping[str, Any]) -> bool:
    value = _at(entry, rule["member"])
    return any(type(value) is type(wanted) and value == wanted for wanted in rule["is"])


@dataclass(frozen=True)
class Issued:
    """A token that was issued now, and the kid in its header; the token is shown nowhere."""

    kid: str
    token: str = field(repr=False)


def issued(text: str, where: str) -> Issued:
    """The token in an answer (RFC 6749 section 5.1).

    :raises KeyturnError: ``signing-api-token``.
    """
    try:
        token = str(json.loads(text)["access_token"])
        return Issued(check_kid(_part(token, 0)["kid"], where), token)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, KeyturnError):
        raise KeyturnError(
            "signing-api-token", "no token with a kid was issued", where=where, hint="See what the issuer answers"
        ) from None


def has_ended(token: str, now: float) -> bool:
    """Whether a token says of itself that its time is over; one that says nothing has no end.

    :param now: seconds since 1970.
    """
    try:
        return float(_part(token, 1)["exp"]) <= now
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def _part(token: str, number: int) -> Any:
    part = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
