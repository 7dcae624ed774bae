# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A keyset ``{"active_kid", "keys"}`` as evidence sees it: kids and keyed fingerprints, never a secret."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import check_plain_file, read_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import DEFAULT_KID, trimmed
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_reading

__all__ = ["Keyset", "compare", "comparison_lines", "fingerprints", "load", "parse"]

_LIMIT = 1 << 20  # bytes; a keyset is some hundred


@dataclass(frozen=True)
class Keyset:
    """What a keyset holds.

    :param keys: secret bytes by kid; not shown.
    :param loose: whether others can read the file it came from.
    """

    active_kid: str
    keys: Mapping[str, bytes] = field(repr=False)
    loose: bool = False


def _invalid(what: str, where: str) -> KeyturnError:
    return KeyturnError("keyset-invalid", what, where=where, hint='Needed is {"active_kid": "…", "keys": {"kid": "…"}}')


def parse(raw: bytes, where: str) -> Keyset:
    """Read the JSON of a keyset: kids and secrets without white space around them, blank entries left out.

    :raises KeyturnError: ``keyset-invalid``; what stands in it is not shown.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _value in pairs]
        if len({trimmed(name) for name in names}) != len(names):
            raise _invalid("has a name twice", where)
        return dict(pairs)

    try:
        content = json.loads(raw.decode(), object_pairs_hook=once)
        if not isinstance(content, dict) or not isinstance(content.get("keys"), dict):
            raise _invalid("is no keyset", where)
        if any(name.lower() in ("keys", "active_kid") and name not in ("keys", "active_kid") for name in content):
            raise _invalid("has a member whose name differs in case only", where)
        if any(not isinstance(value, str) for value in content["keys"].values()):
            raise _invalid("has a secret that is no text", where)
        entries = {trimmed(kid): trimmed(value).encode() for kid, value in content["keys"].items()}
        named = content.get("active_kid")
        active = trimmed(named) if isinstance(named, str) else ""
        active.encode()
        "".join(entries).encode()
    except (ValueError, RecursionError):
        raise _invalid("is no JSON in UTF-8", where) from None
    if named is not None and not isinstance(named, str):
        raise _invalid("has an active kid that is no text", where)
    keys = {kid: value for kid, value in entries.items() if kid and value}
    if not keys:
        raise _invalid("has no keys", where)
    if (active or DEFAULT_KID) not in keys:
        raise _invalid("has an active kid that names no key", where)
    return Keyset(active or DEFAULT_KID, keys)


def load(file: str | None, command: Sequence[str], timeout: float) -> Keyset:
    """The keyset in a file, or the one that a command prints; the command runs without a shell.

    :raises KeyturnError: ``keyset-invalid``, ``keyset-command``, or what reading the file raises.
    """
    if file:
        mode = stat.S_IMODE(check_plain_file(file).st_mode)
        found = parse(read_file(file)[: _LIMIT + 1], file)
        return Keyset(found.active_kid, found.keys, bool(mode & 0o077))
    ending, printed = run_reading(command, timeout)
    if ending.code != 0:
        why = ending.reason or f"ended with {ending.code}"
        raise KeyturnError("keyset-command", why, where=command[0], hint="Run it by hand; what it says is not kept")
    return parse(printed[: _LIMIT + 1], command[0])


def fingerprints(keyset: Keyset, name: str, mark: Callable[[str, bytes], str]) -> dict[str, str]:
    """The keyed fingerprint of each secret, by kid.

    :param name: of the keyset; the same secret in another one, or under another kid, has another fingerprint.
    :param mark: ``Session.fingerprint``.
    """
    return {kid: mark(f"keyset/{name}/{kid}", value) for kid, value in sorted(keyset.keys.items())}


def compare(now: Mapping[str, Any], before: Mapping[str, Any] | None, place: str | None, at: str) -> dict[str, Any]:
    """The keyset of a record: what is there, and what became of it since the event before.

    :param now: ``name``, ``source_mode``, ``active_kid``, ``fingerprint_key``, ``fingerprints`` by kid.
    :param before: the keyset of the record before, in the shape of the schema.
    :param place: the folder of that record.
    :param at: the time of the present one.
    """
    marks: Mapping[str, str] = now["fingerprints"]
    old = {key["kid"]: key for key in before["keys"]} if before else {}
    same_key = before is not None and before.get("fingerprint_key") == now["fingerprint_key"]
    keys = []
    for kid, mark in sorted(marks.items()):
        known = old.get(kid, {})
        state, since = _state(kid, now["active_kid"], known, before is not None, at)
        changed = same_key and known.get("fingerprint", mark) != mark
        keys.append({"kid": kid, "state": state, "since": since, "fingerprint": mark, "changed": changed})
    both = sorted(set(old) & set(marks))
    return {
        "name": now["name"],
        "source_mode": now["source_mode"],
        "active_kid": now["active_kid"],
        "fingerprint_key": now["fingerprint_key"],
        "keys": keys,
        "compared_with": place,
        "previous_active_kid": before["active_kid"] if before else None,
        "active_moved": before is not None and before["active_kid"] != now["active_kid"],
        "added": sorted(set(marks) - set(old)) if before else [],
        "removed": sorted(set(old) - set(marks)),
        "not_compared": [kid for kid in both if not (same_key and old[kid].get("fingerprint"))],
    }


def _state(kid: str, active: str, known: Mapping[str, Any], compared: bool, at: str) -> tuple[str, str | None]:
    """The state of a kid and since when; what it was before the first event is not known."""
    if kid == active:
        state = "primary"
    elif not known:
        state = "staged" if compared else "inactive"
    else:
        state = "previous" if known["state"] == "primary" else str(known["state"])
    if known and known["state"] == state:
        return state, known.get("since")
    return state, at if compared else None


def comparison_lines(keyset: Mapping[str, Any]) -> list[str]:
    """What became of a keyset since the event before, for people; empty for one that was not compared."""
    if "compared_with" not in keyset:
        return []
    if keyset["compared_with"] is None:
        return ["There is no event before to compare it with."]
    lines = []
    if keyset["active_moved"]:
        lines.append(f"Active moved from {keyset['previous_active_kid']} to {keyset['active_kid']}.")
    changed = [key["kid"] for key in keyset["keys"] if key.get("changed")]
    for word, kids in (("Added", keyset["added"]), ("Removed", keyset["removed"])):
        if kids:
            lines.append(f"{word}: {', '.join(kids)}.")
    if changed:
        lines.append(f"Changed under the same kid: {', '.join(changed)}.")
    if keyset["not_compared"]:
        kids = ", ".join(keyset["not_compared"])
        lines.append(
            f"Whether the secret is the same as before is not known of: {kids}. The event before has no fingerprint of "
            "it under the present key; compare with a captured one that has."
        )
    return lines or ["Nothing changed."]
