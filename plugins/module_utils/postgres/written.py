# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the table took what was written: a trigger of the service may put something else in its place.

Asked only where a table has such triggers; the transaction that wrote is undone then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Rows
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["asking", "written"]


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
            hint="Disable it for the time of the rotation, or let it pass application_name keyturn",
        )
    return int(count)
