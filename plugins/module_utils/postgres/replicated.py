# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables whose updates logical replication is to send and cannot: the server refuses each UPDATE of them.

It does so for want of a replica identity (``CheckCmdReplicaIdentity`` in ``execReplication.c``).
"""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

__all__ = ["check_may_be_updated"]

#: The tables that hold the rows, with a publication of each of them or of what they are partitions of.
_REFUSED = """
    SELECT n.nspname || '.' || c.relname, min(p.pubname)
    FROM (SELECT %(oid)s::bigint::oid AS relid UNION SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid)) r
    JOIN pg_class c ON c.oid = r.relid JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (SELECT c.oid AS oid UNION SELECT relid::oid FROM pg_partition_ancestors(c.oid)) a
    JOIN pg_class ac ON ac.oid = a.oid JOIN pg_namespace an ON an.oid = ac.relnamespace
    JOIN pg_publication_tables t ON t.schemaname = an.nspname AND t.tablename = ac.relname
    JOIN pg_publication p ON p.pubname = t.pubname AND p.pubupdate
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
      AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END)
    GROUP BY 1 ORDER BY 1"""


def check_may_be_updated(link: Link, columns: Iterable[Column]) -> None:
    """Refuse tables of which the server refuses every UPDATE, for us and for the service.

    :raises KeyturnError: ``replica-identity-missing``.
    """
    oids = sorted({column.table.oid for column in columns if column.companions or not column.is_large_object})
    found = [row for oid in oids for row in link.execute(_REFUSED, {"oid": oid}).fetchall()]
    if found:
        raise KeyturnError(
            "replica-identity-missing",
            f"it has no replica identity and publication {found[0][1]} sends its updates, so none is possible",
            where=", ".join(str(row[0]) for row in found),
            hint="ALTER TABLE ... REPLICA IDENTITY DEFAULT (its primary key) or FULL, or do not publish its updates",
        )
