# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the table took what was written: a trigger or rule of the service may put something else in its place.

Asked only where a table has such ones; the transaction that wrote is undone then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, Rows
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column, Table

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["asking", "find_undoing", "undone", "written"]

#: What may change rows once an UPDATE of them is done, or in its place; partitions have no say in rules.
_UNDOING = """
    SELECT DISTINCT t.tgname FROM pg_trigger t
    WHERE (t.tgrelid = %(oid)s::bigint::oid
           OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid)))
      AND (t.tgtype & 18) = 16 AND NOT t.tgisinternal AND t.tgenabled <> 'D'
    UNION
    SELECT r.rulename FROM pg_rewrite r
    WHERE r.ev_class = %(oid)s::bigint::oid AND r.ev_type = '2' AND r.ev_enabled <> 'D' ORDER BY 1"""
_HINT = "Disable it for the time of the rotation, or let it pass application_name keyturn"


def asking(column: Column, update: sql.Composed, is_kept: sql.Composable) -> sql.Composed:
    """The UPDATE of ``c``, which then also tells how many rows it wrote and how many of them are as meant.

    :param is_kept: the condition for that.
    """
    if not column.table.triggers:
        return update
    return sql.SQL("WITH w(kept) AS ({} RETURNING {}) SELECT count(*), count(*) FILTER (WHERE kept) FROM w").format(
        update, is_kept
    )


def written(column: Column, ran: Rows) -> int:
    """How many rows the statement has written.

    :raises KeyturnError: ``trigger-rewrites``.
    """
    if not column.table.triggers:
        return ran.rowcount
    count, kept = ran.fetchone() or (0, 0)
    if kept != count:
        raise KeyturnError(
            "trigger-rewrites",
            f"a trigger changes what is written to it (there is {', '.join(column.table.triggers)})",
            where=str(column),
            hint=_HINT,
        )
    return int(count)


def find_undoing(link: Link, table: Table) -> list[str]:
    """The service's ``AFTER UPDATE`` triggers and its rules for ``UPDATE``.

    None is added while a lock holds back writers.
    """
    return [str(row[0]) for row in link.execute(_UNDOING, {"oid": table.oid}).fetchall()]


def undone(column: Column, count: int, most: int, names: Iterable[str]) -> KeyturnError:
    """The refusal of a change that did not last.

    :param count: how many of ``most`` rows do not hold what was written.
    :param names: what :func:`find_undoing` found.
    """
    return KeyturnError(
        "trigger-rewrites",
        f"a trigger or rule undoes the change of {count} of {most} rows (there is {', '.join(names)}), "
        "so none was exchanged",
        where=str(column),
        hint=_HINT,
    )
