# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns that two secrets use: one empties what another one needs, or both have cells there. Pure.

What one call can see of a database is refused there too; a secret that turns alone sees only its own columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["apart", "beside", "check_cleared", "check_shared"]

#: A database, a table and a column.
_Place = tuple[str, str, str]


def check_cleared(secrets: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse ``clear`` of what an entry of ``data`` encrypts or chooses its rows by, of whichever secret.

    Tables are the same where they are written alike; ``public`` may be left out.

    :raises KeyturnError: ``catalog-invalid``.
    """
    needed = {place: said for name, secret in secrets.items() for place, said in _needed(name, secret)}
    for name, secret in secrets.items():
        for number, entry in enumerate(secret.get("clear") or ()):
            said = needed.get(_place(entry, entry["column"]))
            if said:
                raise KeyturnError(
                    "catalog-invalid",
                    f"{entry['table']}.{entry['column']} would be emptied, and it {said}",
                    where=f"keyturn_secrets.{name}.clear[{number}]",
                    hint="Take it out of clear: emptied are columns that the service fills again",
                )


def check_shared(secrets: Mapping[str, Mapping[str, Any]], names: Iterable[str], kept: Iterable[str] = ()) -> None:
    """Refuse to cut over two keys of one column at the same time: they would share its side table. The swap of the
    first would pass for that of both, and the rows for its way back would be lost.

    :param names: the secrets that are to turn in one rotation.
    :param kept: those whose version before is kept for the way back.
    :raises KeyturnError: ``keys-together``.
    """
    turning = sorted(set(names))
    for name in turning:
        together = beside(secrets, name, turning)
        other = together or beside(secrets, name, sorted(set(kept) - set(turning)))
        if other:
            (_database, table, column), *_more = sorted(_cut_over(secrets[name]) & _cut_over(secrets[other]))
            kept_too = "" if together else f", and what {other} turned from is kept for going back"
            raise KeyturnError(
                "keys-together",
                f"{table}.{column} has values under {name} and values under {other}{kept_too}",
                where="keyturn_only",
                hint="Turn them in runs of their own, and retire the one or bring it back before the other begins",
            )


def beside(secrets: Mapping[str, Mapping[str, Any]], name: str, others: Iterable[str]) -> str:
    """The first of these other secrets that has values in a column of this one, where both are cut over, or nothing."""
    mine = _cut_over(secrets[name])
    return next((each for each in others if each != name and mine & _cut_over(secrets.get(each, {}))), "")


def _cut_over(secret: Mapping[str, Any]) -> set[_Place]:
    entries = secret.get("data") or () if secret.get("strategy") == "cutover" else ()
    return {_place(entry, entry["column"]) for entry in entries}


def apart(secrets: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[list[str]]:
    """These secrets in as few groups as keep a key apart from the password of a PostgreSQL role: the connection to its
    rows may log in as that one, which is refused in the same rotation.
    """
    groups: list[list[str]] = []
    for name in names:
        fitting = (group for group in groups if not any(_collide(secrets[name], secrets[each]) for each in group))
        group = next(fitting, None)
        if group is None:
            group = []
            groups.append(group)
        group.append(name)
    return groups


def _collide(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if "cutover" not in (one["strategy"], other["strategy"]):
        return False
    return bool((one.get("data") and _turns_role(other)) or (other.get("data") and _turns_role(one)))


def _turns_role(secret: Mapping[str, Any]) -> bool:
    servers = secret.get("server") or ()
    return any(entry["type"] == "postgres" for entry in ([servers] if isinstance(servers, Mapping) else servers))


def _place(entry: Mapping[str, Any], column: str) -> _Place:
    table = str(entry["table"])
    return (str(entry["database"]), table[7:] if table.startswith("public.") else table, column)


def _needed(name: str, secret: Mapping[str, Any]) -> Iterator[tuple[_Place, str]]:
    for entry in secret.get("data") or ():
        conditions = entry.get("where") or ()
        for one in [conditions] if isinstance(conditions, Mapping) else conditions:
            yield _place(entry, one["column"]), f"chooses rows whose values are under {name}"
        yield _place(entry, entry["column"]), f"holds values under {name}"
