# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run turns of what it could turn: dependents follow, and what would break something waits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.derived import in_order, parent_of, with_dependents
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["STRATEGIES", "reason_to_hold", "reasons_to_hold", "settle"]

#: In which order groups of one strategy come when several are due.
STRATEGIES = ("replace", "overlap", "cutover")
_KIND = "env_secret"
_ENCRYPTS_NAME = re.compile(
    r"(?:^|_)(?:ENCRYPTION|ENCRYPT|ENC|CRYPTO|CIPHER|MASTER|DATA|FERNET)_KEYS?$|(?:^|_)(?:KEK|DEK)$", re.I
)
_ENCRYPTS_TEXT = re.compile(r"\b(?:en|de)crypt(?:s|ed|ing|ion)?\b", re.I)
_ENGINES = r"POSTGRES(?:QL)?|PG|MYSQL|MARIADB|MONGO(?:DB)?|REDIS|VALKEY|DATABASE|DB|SQL"
_PASSWORD_NAME = re.compile(rf"(?:^|_)(?:{_ENGINES})(?:_[A-Z0-9]+)*_?(?:PASSWORD|PASSWD|PASS|PWD)$", re.I)
_PASSWORD_TEXT = re.compile(
    r"\b(?:database|postgres(?:ql)?|mysql|mariadb|mongo(?:db)?|redis)\b.*\bpassword\b"
    r"|\bpassword\b.*\b(?:database|postgres(?:ql)?|mysql|mariadb|mongo(?:db)?|redis)\b",
    re.I,
)
_DATA_LINES = (
    "kind: encryption_key",
    "data: [{database: <of keyturn_databases>, table: <table>, column: <column>, envelope: <preset>}]",
)
_SERVER_LINES = ("server: {type: postgres, database: <of keyturn_databases>, role: <role>, host: <host>, port: 5432}",)


def reason_to_hold(name: str, secret: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """Why a secret must not be turned as its entry stands, and what that would need in the overlay.

    An empty reason where nothing speaks against it, or where the catalog says ``held: false``. What is made from it
    may hold it back all the same: :func:`reasons_to_hold`.
    """
    if secret.get("held") is True:
        return "the catalog holds it back", ()
    if secret["kind"] != _KIND or secret.get("held") is False or parent_of(secret):
        return "", ()
    text = str(secret.get("description", ""))
    if not secret.get("data") and (_ENCRYPTS_NAME.search(name) or _ENCRYPTS_TEXT.search(text)):
        return "other data is encrypted with it, and the catalog does not say which", _DATA_LINES
    if not secret.get("server") and (_PASSWORD_NAME.search(name) or _PASSWORD_TEXT.search(text)):
        return "a database checks it, and the catalog does not say which", _SERVER_LINES
    return "", ()


def reasons_to_hold(secrets: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, list[str]]]:
    """Of all secrets, those that must not be turned as the catalog stands: why, and the lines to write.

    A value cannot stay as it is when the one that it is made from turns, so what is held back holds that back too.

    :raises KeyturnError: ``catalog-invalid`` for a circle.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    below: dict[str, list[str]] = {}
    in_order({name: parent_of(secret) for name, secret in secrets.items()})  # no circle
    for name in sorted(secrets):
        reason, lines = reason_to_hold(name, secrets[name])
        if reason:
            found[name] = reason, _overlay(name, lines)
            for above in _parents(secrets, name):
                below.setdefault(above, []).append(name)
    for name, held in below.items():
        if name not in found:
            which, are = ("which is", "is") if len(held) == 1 else ("which are", "are")
            reason = f"{' and '.join(held)}, {which} made from it, {are} held back"
            free = [f"  {one}: {{held: false}}  # it is made anew with {name}" for one in held]
            found[name] = reason, ["keyturn_overlay:", *free]
    return found


def _parents(secrets: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[str]:
    """What a value is made from, directly or not."""
    while name in secrets and parent_of(secrets[name]):
        name = parent_of(secrets[name])
        yield name


def _overlay(name: str, lines: Sequence[str]) -> list[str]:
    ways = ["keyturn_overlay:", f"  {name}:", *(f"    {line}" for line in lines)]
    return [*(ways if lines else ()), "keyturn_overlay:", f"  {name}: {{held: false}}  # nothing depends on it"]


def _brought(secrets: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    for name in names:
        if (secrets[name].get("generate") or {}).get("type") == "none" and "value_from" not in secrets[name]:
            raise KeyturnError(
                "value-needed",
                f"the value of {name} is not made here: a person brings it",
                where=f"keyturn_secrets.{name}.value_from",
                hint=f"Say keyturn_overlay: {{{name}: {{value_from: {{file: <0600 file on this controller>}}}}}}",
            )


def settle(
    secrets: Mapping[str, Mapping[str, Any]], names: Sequence[str], named: bool
) -> tuple[list[str], list[dict[str, Any]]]:
    """The secrets that a new rotation turns, with all that is made from them, and what waits.

    :param names: those that are due or asked for.
    :param named: whether a person named them one by one; then different strategies are the plan's error.
    :returns: names, sorted, and entries ``name``, ``reason``, ``lines`` (what to write or run) of what waits.
    :raises KeyturnError: ``value-needed``.
    """
    held = reasons_to_hold(secrets)
    waiting: list[dict[str, Any]] = [
        {"name": name, "reason": held[name][0], "lines": held[name][1]} for name in names if name in held
    ]
    free = [name for name in names if name not in held]
    groups = [[name for name in free if secrets[name]["strategy"] == strategy] for strategy in STRATEGIES]
    groups = [group for group in groups if group]
    if len(groups) > 1 and not named:
        free = groups[0]
        for group in groups[1:]:
            command = f"ansible-playbook keyturn.rotation.rotate -e keyturn_only={','.join(group)}"
            reason = f"its order is {secrets[group[0]]['strategy']}, that of this run {secrets[free[0]]['strategy']}"
            waiting += [{"name": name, "reason": reason, "lines": [command]} for name in group]
    free = with_dependents(secrets, free)
    _brought(secrets, free)
    return free, [entry for entry in waiting if entry["name"] not in free]
