# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trigger that keeps a second column true to the first while the service writes.

Whoever is not the rotator writes one column only: its value goes into both, which marks the row as behind. Without
``UPDATE OF`` and ``WHEN``, which the server stores by the column's number: the names are looked up at each call, so the
same trigger goes on over the renaming, with another function body. It fires for replication too (``ENABLE ALWAYS``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
    server_text,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["TRIGGER_PREFIX", "Guard", "be_the_writer", "lock_number"]

#: BEFORE triggers fire in the order of their names; this one has the last word.
TRIGGER_PREFIX = "zzzz_keyturn_"

_BODY = """
BEGIN
  IF pg_catalog.current_setting('keyturn.writer', true) IS DISTINCT FROM 'on' THEN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared({lock});
    IF TG_OP = 'INSERT' THEN
      IF {new_shadow} IS NOT NULL AND ({new_truth} IS NULL{is_default}) THEN
        {new_truth} := {new_shadow};  -- an INSERT by position, after the columns have changed places
      END IF;
      {new_shadow} := {new_truth};
    ELSIF {new_cell} IS DISTINCT FROM {old_cell} THEN
      {new_shadow} := {new_truth};
    ELSE
      {new_shadow} := {old_shadow};
    END IF;
  END IF;
  RETURN NEW;
END"""


def be_the_writer(link: Link) -> None:
    """Tell the triggers, for the present transaction, that the rotator writes both columns itself."""
    link.execute("SELECT set_config('keyturn.writer', 'on', true)")


def lock_number(tag: str) -> int:
    """The number of the advisory lock that the writers of a column share."""
    return int(tag, 16) >> 1


@dataclass(frozen=True)
class Guard:
    """The trigger of one column and its function.

    :param schema: the schema of the function.
    :param tag: the part of their names that tells columns apart.
    """

    schema: str
    column: Column
    tag: str

    @property
    def lock(self) -> int:
        """The number of the advisory lock that writers share; who holds it alone holds them back."""
        return lock_number(self.tag)

    @property
    def _function(self) -> sql.Composable:
        return identifier(self.schema, f"g_{self.tag}")

    @property
    def _trigger(self) -> sql.Composable:
        return identifier(TRIGGER_PREFIX + self.tag)

    def write_function(self, link: Link, shadow: str, default: str | None) -> None:
        """Make the function, or put another body in its place.

        :param shadow: the name of the second column.
        :param default: the default of the column, as the server writes it.
        """
        cells, truth = CellType(self.column), self.column.name
        new_cell = cells.compare(aliased("new", truth))
        is_default: sql.Composable = sql.SQL("")
        if default is not None:
            value = cells.compare(sql.SQL("({})").format(server_text(default)))
            is_default = sql.SQL(" OR {} IS NOT DISTINCT FROM {}").format(new_cell, value)
        body = sql.SQL(_BODY).format(
            lock=sql.Literal(self.lock),
            new_truth=aliased("new", truth),
            new_shadow=aliased("new", shadow),
            old_shadow=aliased("old", shadow),
            new_cell=new_cell,
            old_cell=cells.compare(aliased("old", truth)),
            is_default=is_default,
        )
        create = sql.SQL("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}")
        link.execute(create.format(self._function, sql.Literal(body.as_string(link))), NO_PARAMETERS)

    def attach(self, link: Link) -> None:
        """Make the trigger, anew where it is there."""
        table = self.column.table.identifier
        for statement in (
            "DROP TRIGGER IF EXISTS {trigger} ON {table}",
            "CREATE TRIGGER {trigger} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()",
            "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}",
        ):
            query = sql.SQL(statement).format(trigger=self._trigger, table=table, function=self._function)
            link.execute(query, NO_PARAMETERS)

    def drop(self, link: Link) -> None:
        """Remove trigger and function."""
        table = self.column.table.identifier
        link.execute(sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(self._trigger, table), NO_PARAMETERS)
        link.execute(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self._function), NO_PARAMETERS)

    def is_there(self, link: Link) -> bool:
        """Whether the table has the trigger, in force or not."""
        query = "SELECT FROM pg_trigger WHERE tgrelid = %s::bigint::oid AND tgname = %s"
        return link.execute(query, (self.column.table.oid, TRIGGER_PREFIX + self.tag)).fetchone() is not None

    def seal(self, link: Link) -> str:
        """A digest that changes when somebody drops, disables or enables the trigger, on any partition; or is empty.

        A trigger that was away for a moment may have let a write pass, even if it is back.
        """
        query = """
            SELECT t.tgrelid::text, t.xmin::text, t.tgenabled::text
            FROM (SELECT %(oid)s::bigint::oid AS relid
                  UNION SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid)) r
            LEFT JOIN pg_trigger t ON t.tgrelid = r.relid AND t.tgname = %(name)s ORDER BY t.tgrelid"""
        values = {"oid": self.column.table.oid, "name": TRIGGER_PREFIX + self.tag}
        rows = link.execute(query, values).fetchall()
        if any(row[2] != "A" for row in rows):
            return ""
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
