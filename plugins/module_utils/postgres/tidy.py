# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wide cells lie outside of their rows (TOAST), and only ``VACUUM`` gives the room of replaced ones back.

A pass over a large table of such cells does it itself now and then, so that the table grows by a part only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Tidier"]

#: So many times while all cells are replaced, and never for less than that many bytes.
_TIMES = 16
_LEAST = 32 * 2**20
_OUTSIDE = """
    SELECT coalesce(sum(pg_relation_size(c.reltoastrelid)), 0)::bigint FROM pg_class c
    WHERE c.reltoastrelid <> 0 AND (c.oid = %(oid)s::bigint::oid OR c.oid IN (
        SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid) WHERE isleaf))"""
#: It waits for nobody, and never asks for the lock that readers would wait for.
_VACUUM = "VACUUM (SKIP_LOCKED, TRUNCATE FALSE{}) {}"


class Tidier:
    """One worker's share of the tidying; each process has a copy of its own.

    :param workers: how many share the work.
    """

    def __init__(self, link: Link, table: Table, workers: int) -> None:
        row = link.execute(_OUTSIDE, {"oid": table.oid}).fetchone()
        outside = int(row[0]) if row else 0
        self._table = table
        self._step = max(outside // _TIMES, _LEAST) // workers if outside >= _LEAST else 0
        self._replaced = 0

    def replaced(self, link: Link, size: int) -> None:
        """So many bytes of cells were replaced and committed. What stands in the way of tidying is no error."""
        self._replaced += size
        if not self._step or self._replaced < self._step:
            return
        self._replaced = 0
        only_outside = ", PROCESS_MAIN FALSE" if link.info.server_version >= 160000 else ""
        try:
            link.execute(sql.SQL(_VACUUM).format(sql.SQL(only_outside), self._table.identifier), NO_PARAMETERS)
        except psycopg.Error:
            self._step = 0
