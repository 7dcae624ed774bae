# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A keyset: keys by their kid, one of them active. Pure; no message holds a key.

A key is text, used as its UTF-8 bytes. White space around kids and keys does not count (readers trim both), and an
entry of which either part is blank is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["DEFAULT_KID", "KID_FORM", "Change", "Entry", "Keyset", "compare", "kid_for", "text_of", "trimmed"]

#: The active kid where a keyset names none.
DEFAULT_KID = "default"
#: The form of new kids where none is given (for ``strftime``, UTC).
KID_FORM = "%Y%m%dT%H%M%SZ"
_NEW_KID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: What Go's ``strings.TrimSpace`` takes away; Python's own ``strip`` takes four characters more.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


def trimmed(text: str) -> str:
    """Without white space around it."""
    return text.strip(_SPACE)


def _check_text(text: str, what: str, where: str) -> str:
    """A kid or key that every reader takes the same way.

    :raises KeyturnError: ``keyset-invalid``.
    """
    usable = bool(text) and text == trimmed(text) and not any(ord(sign) < 32 or ord(sign) == 127 for sign in text)
    try:
        text.encode()
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise KeyturnError(
            "keyset-invalid",
            f"{what} is blank, or holds control characters or broken Unicode",
            where=where,
            hint="Use printable text",
        )
    return text


def text_of(value: bytes, where: str) -> str:
    """A key as the text that keysets hold.

    :raises KeyturnError: ``keyset-invalid`` for bytes that are no UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise KeyturnError(
            "keyset-invalid", "a key is no text", where=where, hint="Generate it with an encoding"
        ) from None


@dataclass(frozen=True)
class Entry:
    """One key with its kid; this is the value that turns.

    :param key: the material, as text.
    """

    kid: str
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_text(self.kid, "a kid", "keyset")
        _check_text(self.key, "a key", f"kid {self.kid}")

    def encode(self) -> bytes:
        """One line of JSON: ``{"key": …, "kid": …}``."""
        return json.dumps({"kid": self.kid, "key": self.key}, sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, value: bytes, where: str = "keyset") -> Entry:
        """The entry that :meth:`encode` wrote.

        :raises KeyturnError: ``keyset-invalid``.
        """
        entry = cls.read(value)
        if entry is None:
            raise KeyturnError(
                "keyset-invalid", "is no key with its kid", where=where, hint='Write {"kid": "…", "key": "…"}'
            )
        return entry

    @classmethod
    def read(cls, value: bytes) -> Entry | None:
        """The entry in these bytes; None for what is something else, such as a key alone."""
        try:
            fields: Any = json.loads(value)
        except ValueError:
            return None
        if not isinstance(fields, Mapping) or set(fields) != {"kid", "key"}:
            return None
        if not all(isinstance(part, str) for part in fields.values()):
            return None
        return cls(fields["kid"], fields["key"])


@dataclass(frozen=True)
class Keyset:
    """Keys by kid, in their order, and the kid of the active one.

    :raises KeyturnError: ``keyset-invalid`` for none, for an unusable kid or key, and for an active kid without a key.
    """

    active: str
    keys: Mapping[str, str] = field(repr=False)
    where: str = field(default="keyset", compare=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise KeyturnError("keyset-invalid", "holds no key", where=self.where, hint="Put the key in use there")
        for kid, key in self.keys.items():
            _check_text(kid, "a kid", self.where)
            _check_text(key, f"the key of kid {kid}", self.where)
        if self.active not in self.keys:
            raise KeyturnError(
                "keyset-invalid",
                f"the active kid {self.active!r} names no key",
                where=self.where,
                hint=f"There are {', '.join(sorted(self.keys))}",
            )

    def entry(self, kid: str) -> Entry:
        """One key with its kid."""
        return Entry(kid, self.keys[kid])

    @property
    def active_entry(self) -> Entry:
        """The key that signs."""
        return self.entry(self.active)

    def with_key(self, entry: Entry) -> Keyset:
        """With one key more, which is not active.

        :raises KeyturnError: ``kid-taken`` where that kid has another key.
        """
        if self.keys.get(entry.kid, entry.key) != entry.key:
            raise KeyturnError(
                "kid-taken",
                f"kid {entry.kid} has another key already",
                where=self.where,
                hint="Choose another form of kids, or roll this rotation back and start a new one",
            )
        return Keyset(self.active, {**self.keys, entry.kid: entry.key}, self.where)

    def with_active(self, kid: str) -> Keyset:
        """With another active key.

        :raises KeyturnError: ``keyset-invalid`` where no key has this kid.
        """
        return Keyset(kid, self.keys, self.where)

    def without(self, kid: str) -> Keyset:
        """Without one key; nothing happens where it is not there.

        :raises KeyturnError: ``keyset-invalid`` for the active one.
        """
        return Keyset(self.active, {name: key for name, key in self.keys.items() if name != kid}, self.where)

    def canonical(self) -> bytes:
        """The same bytes for the same keys and active kid, in whatever form and order they were written."""
        content = {"active_kid": self.active, "keys": dict(self.keys)}
        return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Change:
    """What differs between two looks at a keyset, by fingerprints.

    :param state: ``initial`` (nothing to compare with), ``rotated`` (another active kid, or another key under a kid),
        ``unchanged``.
    :param changed: kids that have another key than before.
    """

    state: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def compare(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Change:
    """Compare two descriptions: each has ``active_kid``, and ``keys`` with ``kid`` and ``fingerprint``."""
    if not before:
        return Change("initial")
    was = {str(key["kid"]): str(key["fingerprint"]) for key in before["keys"]}
    now = {str(key["kid"]): str(key["fingerprint"]) for key in after["keys"]}
    changed = tuple(sorted(kid for kid in was.keys() & now.keys() if was[kid] != now[kid]))
    rotated = bool(changed) or before["active_kid"] != after["active_kid"]
    added, removed = sorted(now.keys() - was.keys()), sorted(was.keys() - now.keys())
    return Change("rotated" if rotated else "unchanged", tuple(added), tuple(removed), changed)


def kid_for(form: str, now: datetime, taken: Mapping[str, Any]) -> str:
    """A kid that no key has yet.

    :param form: for ``strftime``; empty for :data:`KID_FORM`.
    :param now: UTC.
    :param taken: kids that there are.
    :raises KeyturnError: ``kid-invalid``.
    """
    kid = now.strftime(form or KID_FORM)
    if not _NEW_KID.fullmatch(kid):
        raise KeyturnError(
            "kid-invalid",
            "this form makes a kid that not every reader takes",
            where=repr(form),
            hint="Use letters, digits, dot, dash and underscore: %Y-%m-%d",
        )
    number, free = 1, kid
    while free in taken:
        number += 1
        free = f"{kid}-{number}"
    return free
