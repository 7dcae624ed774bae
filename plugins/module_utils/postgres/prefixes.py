# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left under the old key, by how its cells begin: one count that an index answers. It proves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import aliased
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["count_by_prefix", "left_by_prefix"]

_TEXTS = ("text", "varchar")


def count_by_prefix(column: Column, prefixes: Sequence[str]) -> tuple[sql.Composed, list[str]]:
    """The statement that counts the rows whose cell begins with one of these, and its parameters.

    An index on ``left(cell, <length of the prefix>)`` answers it, or one on the cell that knows LIKE.
    """
    cell = aliased("c", column.name)
    begins = sql.SQL('(left({cell}, {size}) = %s AND {cell} COLLATE "C" LIKE %s)')
    either = sql.SQL(" OR ").join([begins.format(cell=cell, size=sql.Literal(len(prefix))) for prefix in prefixes])
    query = sql.SQL("SELECT count(*) FROM {} c WHERE ({}){}").format(column.table.identifier, either, column.chosen)
    return query, [text for prefix in prefixes for text in (prefix, f"{_escaped(prefix)}%")]


def _escaped(prefix: str) -> str:
    for letter in "\\%_":
        prefix = prefix.replace(letter, "\\" + letter)
    return prefix


def left_by_prefix(link: Link, target: Target) -> int | None:
    """How many cells begin as those under the old key do.

    None where that does not tell them from those of the new, and where no index can say it soon.
    """
    prefixes = [prefix.decode() for prefix in target.old.key_prefixes]
    new = (target.new.key_prefix or b"").decode()
    is_shared = new and any(new.startswith(prefix) or prefix.startswith(new) for prefix in prefixes)
    if not prefixes or is_shared or target.shape is not None or target.column.type_name not in _TEXTS:
        return None
    query, values = count_by_prefix(target.column, prefixes)
    try:
        plan = link.execute(sql.SQL("EXPLAIN {}").format(query), values).fetchall()
        if not any(sign in line[0] for line in plan for sign in ("Index Cond", "Index Only Scan")):
            return None  # it would read the whole table
        row = link.execute(query, values).fetchone()
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
        return None
    return int(row[0]) if row else None
