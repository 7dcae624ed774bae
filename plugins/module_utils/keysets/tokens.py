# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens for probes of keysets: signed with one key, or only looked at for the kid that signed them. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.generate import hs256
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry

__all__ = ["kids_in", "sign"]

_TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]+(?=\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)")
_MEMBERS = ("active_kid", "kid")


def sign(entry: Entry, claims: Mapping[str, Any], now: float, lifetime: int) -> bytes:
    """A compact HS256 token whose header names the kid.

    :param claims: all but ``iat`` and ``exp``, which come from ``now`` and ``lifetime`` (seconds).
    """
    payload = {**claims, "exp": int(now) + lifetime, "iat": int(now)}
    header = {"alg": "HS256", "kid": entry.kid, "typ": "JWT"}
    return hs256(header, dict(sorted(payload.items())), entry.key.encode())


def kids_in(answer: str) -> set[str]:
    """The kids that an answer tells of: of the tokens in it, and of its JSON members ``active_kid`` and ``kid``."""
    found = set()
    for token in _TOKEN.finditer(answer):
        text = token.group()
        try:
            header = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except ValueError:
            continue
        found |= set(_named(header)) if isinstance(header, Mapping) else set()
    try:
        content: Any = json.loads(answer)
    except ValueError:
        content = None
    if isinstance(content, Mapping):
        found |= set(_named(content))
    return found


def _named(content: Mapping[str, Any]) -> Iterator[str]:
    for member in _MEMBERS:
        if isinstance(content.get(member), str):
            yield content[member]
