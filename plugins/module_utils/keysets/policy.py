# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a production keyset must be: strong keys, none that others know, from outside of the environment. Pure.

A finding names the place, the kid and what is wrong, never a key.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Keyset, trimmed

__all__ = ["POLICY_OPTIONS", "SOURCES", "Policy", "Sources", "judge_file", "judge_keys", "judge_sources", "strength"]

#: The argument spec of a policy.
POLICY_OPTIONS: dict[str, dict[str, Any]] = {
    "external": {"type": "bool", "default": True},
    "min_bytes": {"type": "int", "default": 32},
    "min_bits": {"type": "int", "default": 100},
    "max_keys": {"type": "int", "default": 0, "no_log": False},
    "defaults": {"type": "list", "elements": "str", "default": ["dev-insecure-change-me"]},
    "owner": {"type": "str"},
}
#: Where readers look for a keyset, in this order; the last one is a single key.
SOURCES = ("file", "command", "inline", "secret")
#: Words of texts that people write until they have a key.
_PLACEHOLDERS = ("change-me", "changeme", "change_me", "insecure", "password", "placeholder", "example", "your-")

Finding = dict[str, str]


@dataclass(frozen=True)
class Policy:
    """What is asked for.

    :param external: keys come from a file or a command, not from the environment.
    :param min_bytes: the least length of a key (RFC 7518 section 3.2 asks for 32 for HS256).
    :param min_bits: the least :func:`strength` of a key.
    :param max_keys: how many keys a keyset holds at most; 0 for any number.
    :param defaults: keys that stand in documents and sources, so that everybody knows them.
    :param owner: who owns a keyset file; empty for anybody.
    """

    external: bool = True
    min_bytes: int = 32
    min_bits: int = 100
    max_keys: int = 0
    defaults: Sequence[str] = ("dev-insecure-change-me",)
    owner: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Policy:
        """From the option ``policy``."""
        known = {name: value for name, value in options.items() if name in POLICY_OPTIONS and value is not None}
        return cls(**known)


@dataclass(frozen=True)
class Sources:
    """What a service is given: a path, a command line, an inline keyset, and a single key for when there is none."""

    file: str = ""
    command: str = ""
    inline: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    def in_use(self) -> str:
        """The one that counts, or an empty text."""
        return next((name for name in SOURCES if trimmed(getattr(self, name))), "")


def _finding(code: str, where: str, text: str) -> Finding:
    return {"code": code, "where": where, "msg": f"{where}: {text}"}


def strength(key: str) -> float:
    """Bits of randomness that a key's characters show at most: its length times the entropy of their frequencies.

    A guess from above: a sentence has more than it is worth, a random text of 32 hexadecimal digits about 115.
    """
    counts = Counter(key)
    return -sum(count * math.log2(count / len(key)) for count in counts.values())


def _judge_key(key: str, policy: Policy, where: str, who: str) -> list[Finding]:
    if key in policy.defaults or any(word in key.lower() for word in _PLACEHOLDERS):
        return [_finding("key-default", where, f"the key of {who} is a default that others know. Turn it.")]
    length, bits = len(key.encode()), int(strength(key))
    if length < policy.min_bytes:
        text = f"the key of {who} has {length} bytes, {policy.min_bytes} are the least. Turn it."
        return [_finding("key-short", where, text)]
    if bits < policy.min_bits:
        text = f"the key of {who} looks like {bits} bits of randomness, {policy.min_bits} are the least. Turn it."
        return [_finding("key-weak", where, text)]
    return []


def judge_keys(keyset: Keyset, policy: Policy, where: str) -> list[Finding]:
    """What is wrong with the keys: ``key-default``, ``key-short``, ``key-weak``, ``key-twice``, ``keys-many``."""
    found = [
        finding for kid, key in sorted(keyset.keys.items()) for finding in _judge_key(key, policy, where, f"kid {kid}")
    ]
    by_key: dict[str, list[str]] = {}
    for kid, key in sorted(keyset.keys.items()):
        by_key.setdefault(key, []).append(kid)
    found += [
        _finding("key-twice", where, f"{' and '.join(kids)} have the same key. Remove one.")
        for kids in by_key.values()
        if len(kids) > 1
    ]
    if policy.max_keys and len(keyset.keys) > policy.max_keys:
        text = f"holds {len(keyset.keys)} keys, {policy.max_keys} are the most. Retire what is not needed."
        found.append(_finding("keys-many", where, text))
    return found


def judge_sources(sources: Sources, policy: Policy, where: str) -> list[Finding]:
    """What is wrong with where a service takes its keys from.

    ``external-missing``, ``inline-material`` (also beside a file, where it waits for the file to be gone), and what is
    wrong with a single key that is in use.
    """
    found: list[Finding] = []
    used = sources.in_use()
    if policy.external and used not in ("file", "command"):
        text = "names neither a keyset file nor a command. Set one of them."
        found.append(_finding("external-missing", where, text))
    if policy.external and trimmed(sources.inline):
        found.append(_finding("inline-material", where, "holds keys. Move them to a file of mode 0600 or a command."))
    if used == "secret":
        found += _judge_key(sources.secret, policy, where, "the single secret")
    if not used:
        found.append(_finding("keys-missing", where, "names no key at all. Set a keyset file or a command."))
    return found


def judge_file(owner: str, policy: Policy, where: str) -> list[Finding]:
    """``file-owner`` where a keyset file belongs to somebody else; its mode is refused before it is read."""
    if policy.owner and owner != policy.owner:
        return [_finding("file-owner", where, f"belongs to {owner}, not to {policy.owner}. Run chown.")]
    return []
