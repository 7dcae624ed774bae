# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two written forms of a keyset: a JSON document, and ``kid:key,kid:key`` with the active kid apart. Pure.

What readers do not agree about is refused: a kid that stands twice, a member whose name differs in case only, data
behind the object. Members that are none of a keyset's stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import (
    DEFAULT_KID,
    Keyset,
    trimmed,
)

__all__ = ["parse_document", "parse_inline", "render_document", "render_inline"]

_ACTIVE, _KEYS = "active_kid", "keys"
_INDENT = re.compile(r"\A\s*\{\r?\n([ \t]+)")
_SPACED = re.compile(r"\"\s*:\s")
_AGREED = "Readers do not agree about it: correct it by hand"


def _refuse(message: str, where: str, hint: str) -> NoReturn:
    raise KeyturnError("keyset-invalid", message, where=where, hint=hint)


class _TwiceError(ValueError):
    """A name that stands twice in one object."""


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _TwiceError
        found[name] = value
    return found


def _no_number(_word: str) -> NoReturn:
    raise ValueError


def _members(content: bytes, where: str) -> dict[str, Any]:
    """The object in a document."""
    try:
        found: Any = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except _TwiceError:
        _refuse("a name stands twice in it", where, _AGREED)
    except (ValueError, RecursionError):
        _refuse("is not JSON, or not whole", where, 'Write {"active_kid": "…", "keys": {"…": "…"}}')
    if not isinstance(found, dict):
        _refuse("is no JSON object", where, 'Write {"active_kid": "…", "keys": {"…": "…"}}')
    for name in found:
        if name not in (_ACTIVE, _KEYS) and name.lower() in (_ACTIVE, _KEYS):
            _refuse("a member is active_kid or keys but for upper case", where, _AGREED)
    return found


def _collect(pairs: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """Trimmed, without blank entries.

    :raises KeyturnError: ``keyset-invalid`` for a kid that stands twice.
    """
    found: dict[str, str] = {}
    for kid, key in ((trimmed(kid), trimmed(key)) for kid, key in pairs):
        if kid in found:
            _refuse(f"kid {kid!r} stands twice in it", where, _AGREED)
        if kid and key:
            found[kid] = key
    return found


def parse_document(content: bytes, where: str) -> Keyset:
    """The keyset in a JSON document ``{"active_kid": …, "keys": {kid: key}}``.

    :raises KeyturnError: ``keyset-invalid`` with the place, never with a key.
    """
    members = _members(content, where)
    keys, active = members.get(_KEYS), members.get(_ACTIVE, "")
    if not isinstance(keys, dict):
        _refuse("has no object 'keys'", where, 'Write {"active_kid": "…", "keys": {"…": "…"}}')
    for kid, key in keys.items():
        if not isinstance(key, str):
            _refuse(f"the key of kid {kid!r} is no text", where, "Write it in quotes")
    if not isinstance(active, str):
        _refuse("active_kid is no text", where, "Write it in quotes")
    return Keyset(trimmed(active) or DEFAULT_KID, _collect(keys.items(), where), where)


def _written(value: Any, like: str) -> str:
    """JSON in the style of another text: indent, blanks, escapes, line ends."""
    indent = _INDENT.match(like)
    style: dict[str, Any] = {"ensure_ascii": bool(like) and like.isascii()}
    if not like or indent:
        style["indent"] = indent.group(1) if indent else 2
    elif not _SPACED.search(like):
        style["separators"] = (",", ":")
    text = json.dumps(value, **style) + ("\n" if not like or like.endswith("\n") else "")
    return text.replace("\n", "\r\n") if "\r\n" in like else text


def render_document(keyset: Keyset, like: bytes | None = None) -> bytes:
    """A JSON document with this keyset.

    :param like: the document it takes the place of: its style, its order and its other members stay.
    """
    members = _members(like, keyset.where) if like else {}
    former = [kid for kid in map(trimmed, members.get(_KEYS, {})) if kid in keyset.keys]
    kids = [*former, *(kid for kid in keyset.keys if kid not in former)]
    ours: dict[str, Any] = {_ACTIVE: keyset.active, _KEYS: {kid: keyset.keys[kid] for kid in kids}}
    before = {} if _ACTIVE in members else {_ACTIVE: keyset.active}
    result = _written({**before, **members, **ours}, (like or b"").decode()).encode()
    if parse_document(result, keyset.where) != keyset:
        raise KeyturnError("keyset-invalid", "would not read back", where=keyset.where, hint="Report it")
    return result


def parse_inline(text: str, active: str, where: str) -> Keyset:
    """The keyset in ``kid:key,kid:key``; the first colon of an entry ends its kid.

    :param active: the active kid, as it is; readers do not trim it.
    :raises KeyturnError: ``keyset-invalid``.
    """
    pairs = []
    for number, part in enumerate(text.split(","), 1):
        if not trimmed(part):
            continue
        kid, colon, key = part.partition(":")
        if not (colon and trimmed(kid) and trimmed(key)):
            _refuse(f"entry {number} is not kid:key", where, "Write kid:key,kid:key; a key holds no comma")
        pairs.append((kid, key))
    return Keyset(active or DEFAULT_KID, _collect(pairs, where), where)


def render_inline(keyset: Keyset) -> tuple[str, str]:
    """``kid:key,kid:key`` and the active kid.

    :raises KeyturnError: ``keyset-unwritable`` for a comma, or a colon in a kid.
    """
    text = ",".join(f"{kid}:{key}" for kid, key in keyset.keys.items())
    try:
        same = parse_inline(text, keyset.active, keyset.where) == keyset
    except KeyturnError:
        same = False
    if not same:
        raise KeyturnError(
            "keyset-unwritable",
            "a kid or key holds a comma, or a kid a colon",
            where=keyset.where,
            hint="Keep this keyset in a file, or use another alphabet",
        )
    return text, keyset.active
