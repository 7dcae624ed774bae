# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old ciphertext out of the files of live tables: dead rows, dropped columns, TOAST.

VACUUM frees room and does not wipe it. ``VACUUM FULL`` writes the table anew: what somebody may still see of the past
it keeps, so such snapshots are waited for; what a role may not rewrite it leaves with a mere warning, so the right is
asked for first and the new file is looked for afterwards.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, explained
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.snapshots import wait_for_snapshots
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import TABLE_LOCK_MS, Work

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["check_may_sanitize", "sanitize"]

_PARTS = """
    SELECT c.oid::bigint, n.nspname, c.relname,
           pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE')
           OR CASE WHEN current_setting('server_version_num')::int >= 170000
                   THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END
    FROM (SELECT %(oid)s::bigint::oid AS relid UNION SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid)) r
    JOIN pg_class c ON c.oid = r.relid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_database d ON d.datname = current_database()
    WHERE c.relkind = 'r' ORDER BY n.nspname, c.relname"""
_FILES = "SELECT pg_relation_filenode(%(oid)s::bigint::oid)::bigint, pg_total_relation_size(%(oid)s::bigint::oid)"


@dataclass(frozen=True)
class _Part:
    """A table with files: an ordinary one, or a partition."""

    oid: int
    schema: str
    name: str
    is_permitted: bool

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def _parts(link: Link, tables: Iterable[Table]) -> list[_Part]:
    found = {table.oid: table for table in tables}
    return [_Part(*row) for oid in found for row in link.execute(_PARTS, {"oid": oid}).fetchall()]


def check_may_sanitize(link: Link, tables: Iterable[Table]) -> None:
    """Refuse tables that this role may not make anew.

    :raises KeyturnError: ``privilege-missing``.
    """
    refused = [str(part) for part in _parts(link, tables) if not part.is_permitted]
    if refused:
        raise KeyturnError(
            "privilege-missing",
            "this role may not make the table anew (VACUUM FULL), so old ciphertext would stay in its files",
            where=", ".join(refused),
            hint="Use the owner of the table, or take sanitize away and let the owner do it after retire",
        )


def sanitize(work: Work, tables: Iterable[Table]) -> list[dict[str, Any]]:
    """Make the tables anew, one after the other, each under ``ACCESS EXCLUSIVE`` for as long as it takes.

    :raises KeyturnError: ``snapshots-old``, ``lock-unavailable``, ``not-sanitized``.
    """
    wait_for_snapshots(work, "the cleaning", everywhere=True)
    return [_made_anew(work, part) for part in _parts(work.link, tables)]


def _made_anew(work: Work, part: _Part) -> dict[str, Any]:
    link, started = work.link, time.perf_counter()
    node, before = _files(link, part)
    statement = sql.SQL("VACUUM (FULL, ANALYZE) {}").format(identifier(part.schema, part.name))
    with (
        explained(str(part)),
        _settings(link, lock_timeout=f"{max(work.lock_ms, TABLE_LOCK_MS)}ms", statement_timeout="0"),
    ):
        retrying(work.pace, str(part), lambda: link.execute(statement, NO_PARAMETERS))
    new_node, after = _files(link, part)
    if new_node == node:
        raise KeyturnError(
            "not-sanitized",
            "the server did not make the table anew, so old ciphertext may be in its files",
            where=str(part),
            hint="Look in the server's log for a warning of VACUUM, then run again",
        )
    seconds = round(time.perf_counter() - started, 3)
    return {"table": str(part), "bytes_before": before, "bytes_after": after, "seconds": seconds}


def _files(link: Link, part: _Part) -> tuple[int, int]:
    row = link.execute(_FILES, {"oid": part.oid}).fetchone()
    return (int(row[0]), int(row[1])) if row and row[0] is not None else (0, 0)


@contextlib.contextmanager
def _settings(link: Link, **settings: str) -> Iterator[None]:
    """Other settings of the session, for statements that cannot stand in a transaction."""
    former = {}
    for name, value in settings.items():
        row = link.execute("SELECT current_setting(%s)", (name,)).fetchone()
        former[name] = row[0] if row else ""
        link.execute("SELECT set_config(%s, %s, false)", (name, value))
    try:
        yield
    finally:
        if not link.closed:
            for name, value in former.items():
                link.execute("SELECT set_config(%s, %s, false)", (name, value))
