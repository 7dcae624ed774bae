# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often something stands in a log, and who is named there. Lines go in, numbers and names come out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.logs.sources import Line
from ansible_collections.keyturn.rotation.plugins.module_utils.material import JWK_PRIVATE, redact, written_forms

__all__ = ["Counted", "count", "holding", "names"]

#: A shorter text may stand in a log by chance.
_LEAST = 12
_NAME_LENGTH = 60
_MOST_NAMES = 10


@dataclass(frozen=True)
class Counted:
    """What was found.

    :param lines: how many lines there were.
    :param matches: how many of them match, those of an unknown time too.
    :param dated: how many match and are known to be of the time that was asked for.
    :param who: what the group ``who`` of the pattern took in, in the order of its first appearance.
    """

    lines: int = 0
    matches: int = 0
    dated: int = 0
    who: tuple[str, ...] = ()


def count(lines: Iterable[Line], pattern: str) -> Counted:
    """Count the lines in which a regular expression is found."""
    form = re.compile(pattern)
    total = matches = dated = 0
    who: dict[str, None] = {}
    for line in lines:
        total += 1
        found = form.search(line.text)
        if found:
            matches += 1
            dated += line.is_dated
            name = found.groupdict().get("who")
            if name:
                who.setdefault(name)
    return Counted(total, matches, dated, tuple(who))


def names(counted: Counted) -> str:
    """Who was named, for people: masked where it looks like a secret, at most ten."""
    shown = [str(redact(name))[:_NAME_LENGTH] for name in counted.who[:_MOST_NAMES]]
    more = len(counted.who) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _parts(value: bytes) -> list[str]:
    """What of a value tells it: itself; the lines of a PEM; the private members of a JWK."""
    text = value.decode("utf-8", "surrogateescape")
    parts = [text, json.dumps(text)[1:-1]]
    if text.startswith("-----BEGIN "):
        parts += [line for line in text.splitlines() if not line.startswith("-----")]
    if text.startswith("{"):
        try:
            jwk = json.loads(text)
        except ValueError:
            jwk = {}
        parts += [jwk[name] for name in sorted(JWK_PRIVATE & set(jwk)) if isinstance(jwk[name], str)]
    return [part for part in parts if len(part) >= _LEAST]


def holding(lines: Iterable[Line], value: bytes) -> Counted:
    """Count the lines that hold a value: as it is, percent-encoded, in base64, or a part of a key that tells it.

    :raises KeyturnError: ``value-short`` for a value that may stand in a log by chance.
    """
    forms = written_forms(_parts(value))
    if not forms:
        raise KeyturnError(
            "value-short", "this value is too short to be told from chance", where="log", hint="Use a longer value"
        )
    total = matches = 0
    for line in lines:
        total += 1
        matches += any(form in line.text for form in forms)
    return Counted(total, matches, matches)
