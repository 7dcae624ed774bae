# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Triggers that change nothing and make writers share a lock, for ``quiesce: writes`` where the rows are swapped.

There are two. One fires before the statement, when no row of it is locked yet: a row that a waiting writer has locked
could not be swept meanwhile. The other fires for each row, since neither a statement that names a partition nor a
subscription fires the first. Both fire for replication too (``ENABLE ALWAYS``) and not at all for the rotator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.guard import lock_number
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Gate", "check_may_hold"]

_BODY = """
BEGIN
  PERFORM pg_catalog.pg_advisory_xact_lock_shared({lock});
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  RETURN NEW;
END"""
_TRIGGER = """
    CREATE TRIGGER {trigger} BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH {level}
    WHEN (pg_catalog.current_setting('keyturn.writer', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {function}()"""
_STRANGERS = """
    SELECT n.nspname || '.' || c.relname
    FROM (SELECT %(oid)s::bigint::oid AS relid UNION SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid)) r
    JOIN pg_class c ON c.oid = r.relid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT pg_has_role(c.relowner, 'USAGE')"""


@dataclass(frozen=True)
class Gate:
    """The two triggers of one column's table, and their function.

    :param schema: the schema of the function.
    :param tag: the part of their names that tells columns apart.
    """

    schema: str
    table: Table
    tag: str

    @property
    def lock(self) -> int:
        """The number of the advisory lock that writers share; who holds it alone holds them back."""
        return lock_number(self.tag)

    @property
    def _function(self) -> sql.Composable:
        return identifier(self.schema, f"h_{self.tag}")

    @property
    def _triggers(self) -> dict[str, str]:
        return {f"keyturn_hold_{self.tag}": "STATEMENT", f"keyturn_hold_{self.tag}_row": "ROW"}

    def _found(self, link: Link) -> set[str]:
        query = "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::bigint::oid AND tgname = ANY (%s)"
        return {row[0] for row in link.execute(query, (self.table.oid, list(self._triggers))).fetchall()}

    def is_there(self, link: Link) -> bool:
        """Whether any of it is."""
        return bool(self._found(link))

    def attach(self, link: Link) -> None:
        """Make what is missing, in the caller's transaction, which holds back writers; readers go on."""
        create = sql.SQL("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}")
        body = sql.SQL(_BODY).format(lock=sql.Literal(self.lock))
        link.execute(create.format(self._function, sql.Literal(body.as_string(link))), NO_PARAMETERS)
        # a table with deferred triggers still to fire cannot be altered
        link.execute("SET CONSTRAINTS ALL IMMEDIATE", NO_PARAMETERS)
        found = self._found(link)
        for name, level in self._triggers.items():
            names = {"trigger": identifier(name), "table": self.table.identifier, "function": self._function}
            if name not in found:
                link.execute(sql.SQL(_TRIGGER).format(level=sql.SQL(level), **names), NO_PARAMETERS)
            link.execute(sql.SQL("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}").format(**names), NO_PARAMETERS)

    def drop(self, link: Link) -> None:
        """Remove triggers and function. Readers wait for that moment too."""
        for name in self._triggers:
            drop = sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(identifier(name), self.table.identifier)
            link.execute(drop, NO_PARAMETERS)
        link.execute(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self._function), NO_PARAMETERS)


def check_may_hold(link: Link, tables: Iterable[Table]) -> None:
    """Refuse tables to which this role cannot add the triggers.

    :raises KeyturnError: ``privilege-missing``.
    """
    oids = sorted({table.oid for table in tables})
    refused = [str(row[0]) for oid in oids for row in link.execute(_STRANGERS, {"oid": oid}).fetchall()]
    if refused:
        raise KeyturnError(
            "privilege-missing",
            "this role may not add the trigger that holds back the service's writes",
            where=", ".join(sorted(refused)),
            hint="Use the owner of the table, or quiesce: stop or none",
        )
