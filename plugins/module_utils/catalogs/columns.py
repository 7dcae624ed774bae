# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns that one secret empties and another one needs: its cells, or what says which rows are meant. Pure.

What one call can see of a database is refused there too; a secret that turns alone sees only its own columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["check_cleared"]

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


def _place(entry: Mapping[str, Any], column: str) -> _Place:
    table = str(entry["table"])
    return (str(entry["database"]), table[7:] if table.startswith("public.") else table, column)


def _needed(name: str, secret: Mapping[str, Any]) -> Iterator[tuple[_Place, str]]:
    for entry in secret.get("data") or ():
        conditions = entry.get("where") or ()
        for one in [conditions] if isinstance(conditions, Mapping) else conditions:
            yield _place(entry, one["column"]), f"chooses rows whose values are under {name}"
        yield _place(entry, entry["column"]), f"holds values under {name}"
