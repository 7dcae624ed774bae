# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns that two secrets use: one empties what another one needs, or both have cells there. Pure.

What one call can see of a database is refused there too; a secret that turns alone sees only its own columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["apart", "check_cleared", "check_shared"]

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


def check_shared(secrets: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> None:
    """Refuse to cut over two keys of one column in the same rotation: they would share its side table, and the swap of
    the first would pass for that of both.

    :raises KeyturnError: ``keys-together``.
    """
    first: dict[_Place, str] = {}
    for name in sorted(set(names)):
        secret = secrets[name]
        for entry in secret.get("data", ()) if secret["strategy"] == "cutover" else ():
            other = first.setdefault(_place(entry, entry["column"]), name)
            if other != name:
                raise KeyturnError(
                    "keys-together",
                    f"{entry['table']}.{entry['column']} has values under {other} and values under {name}",
                    where="keyturn_only",
                    hint="Turn them in runs of their own, and retire the one before the other begins",
                )


def apart(secrets: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[list[str]]:
    """These secrets in as few groups as keep what is refused in the same rotation apart: keys of one column, and a key
    from the password of a PostgreSQL role, as which the connection to its rows may log in.
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
    mine, its = ({_place(entry, entry["column"]) for entry in each.get("data", ())} for each in (one, other))
    return bool(mine & its) or bool((mine and _turns_role(other)) or (its and _turns_role(one)))


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
