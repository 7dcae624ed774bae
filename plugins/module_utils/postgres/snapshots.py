# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting until nobody sees rows as they were before."""

from __future__ import annotations

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Work

__all__ = ["wait_for_snapshots"]

_SESSIONS = """
    SELECT 'pid ' || pid FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database()
      AND backend_type IS DISTINCT FROM 'autovacuum worker'
      AND (age(backend_xmin) > age(%(since)s::xid) OR age(backend_xid) > age(%(since)s::xid))"""
_ELSEWHERE = """
    SELECT 'standby ' || application_name FROM pg_stat_replication WHERE age(backend_xmin) > age(%(since)s::xid)
    UNION ALL SELECT 'replication slot ' || slot_name FROM pg_replication_slots WHERE age(xmin) > age(%(since)s::xid)
    UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
    WHERE database = current_database() AND age(transaction) > age(%(since)s::xid)"""


def wait_for_snapshots(work: Work, before: str, everywhere: bool = False) -> None:
    """Until no session has a snapshot from before this moment.

    :param before: what this moment follows, for the error.
    :param everywhere: also until nothing else keeps dead rows: standbys that give feedback, slots, prepared
        transactions.
    :raises KeyturnError: ``snapshots-old``.
    """
    queries = (_SESSIONS, _ELSEWHERE) if everywhere else (_SESSIONS,)
    link = work.link
    row = link.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
    since = row[0] if row else "0"
    patience = work.pace.patience("old snapshots")
    while True:
        found = [str(row[0]) for query in queries for row in link.execute(query, {"since": since}).fetchall()]
        if not found:
            return
        if patience.is_over:
            raise KeyturnError(
                "snapshots-old",
                f"transactions from before {before} are still open ({', '.join(sorted(found))})",
                where="pg_stat_activity",
                hint="Wait for them or end them, or raise max_wait; then run again",
            )
        patience.pause()
