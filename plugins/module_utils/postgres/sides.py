# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Side tables: each row of a column under both keys, in a schema of ours. Their names are the facts of a cut-over.

``s_<16 hex digits>_next``: the table's own rows are under the old key; ``_prev``: under the new one. The comment says
whose side table it is. ``k0`` is the cell under the old key (or as it was), ``k1`` under the new one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.gate import Gate
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.private import close_table
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
    literal,
    server_text,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import NEXT, PREV, Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Side", "find_side"]


@dataclass(frozen=True)
class Side(Shadow):
    """What the catalog says about a column's side table.

    :param has_gate: whether the table has the triggers of :attr:`gate`.
    """

    has_gate: bool = False

    way: ClassVar[str] = "rows"

    @property
    def gate(self) -> Gate:
        """The triggers that make writers wait while somebody holds them back."""
        return Gate(self.schema, self.column.table, self.tag)

    @property
    def lock(self) -> int:
        """The gate's."""
        return self.gate.lock

    @property
    def is_guarded(self) -> bool:
        """Only where writes are, or were, to be held back."""
        return self.has_gate

    @property
    def beside(self) -> sql.Composable:
        """The side table."""
        return self.identifier

    @property
    def kept(self) -> tuple[sql.Composable, sql.Composable]:
        """Both cells of ``s``."""
        return sql.SQL("s.{}").format(self.truth_cell), sql.SQL("s.{}").format(self.other_cell)

    def is_behind(self, cells: CellType) -> sql.Composable:
        """The cell of ``c`` is not the one that is kept of it."""
        theirs = cells.compare(aliased("c", self.column.name))
        return sql.SQL("{} IS DISTINCT FROM {}").format(cells.compare_kept(self.kept[0]), theirs)

    @property
    def truth_cell(self) -> sql.Composable:
        """The name of the column that holds the cell as the table has it."""
        return identifier("k1" if self.truth == NEW else "k0")

    @property
    def other_cell(self) -> sql.Composable:
        """The name of the column that holds the cell under the other key."""
        return identifier("k0" if self.truth == NEW else "k1")

    @property
    def identifier(self) -> sql.Composable:
        """Its name in SQL."""
        return identifier(self.schema, self._name(self.fact))

    def _name(self, fact: str) -> str:
        return f"s_{self.tag}_{fact}"

    def create(self, link: Link, rotation: str) -> Side:
        """No statistics are kept of its cells: those would be copies."""
        side = replace(self, fact=NEXT, rotation=rotation)
        key = self.column.table.key
        names = [identifier(f"p{number}") for number in range(1, len(key) + 1)]
        fields = [sql.SQL("{} {}").format(name, part.declaration) for name, part in zip(names, key)]
        fields += [
            sql.SQL("{} {} NOT NULL").format(identifier(k), server_text(CellType(self.column).kept_sql))
            for k in ("k0", "k1")
        ]
        fields.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(names)))
        link.execute(sql.SQL("CREATE TABLE {} ({})").format(side.identifier, sql.SQL(", ").join(fields)), NO_PARAMETERS)
        close_table(link, side.identifier)
        quiet = "ALTER TABLE {} ALTER k0 SET STATISTICS 0, ALTER k1 SET STATISTICS 0"
        link.execute(sql.SQL(quiet).format(side.identifier), NO_PARAMETERS)
        side._comment(link)
        return side

    def _comment(self, link: Link) -> None:
        table = self.column.table
        text = json.dumps({"schema": table.schema, "table": table.name, **self.note})
        link.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(self.identifier, literal(text)), NO_PARAMETERS)

    def turn(self, link: Link) -> Side:
        """Rename it."""
        turned = replace(self, fact=NEXT if self.fact == PREV else PREV, swapped=True)
        name = identifier(turned._name(turned.fact))
        link.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(self.identifier, name), NO_PARAMETERS)
        turned._comment(link)
        return turned

    def with_gate(self, link: Link) -> Side:
        """Let writers share the lock from the end of the caller's transaction on."""
        self.gate.attach(link)
        return replace(self, has_gate=True)

    def without_gate(self, link: Link) -> Side:
        """The table as it was."""
        self.gate.drop(link)
        return replace(self, has_gate=False)

    def drop(self, link: Link) -> None:
        """The file goes with it, and the gate."""
        if self.has_gate:
            self.gate.drop(link)
        link.execute(sql.SQL("DROP TABLE {}").format(self.identifier), NO_PARAMETERS)


def find_side(link: Link, schema: str, column: Column) -> Side:
    """The side table of a column, whoever made it.

    :raises KeyturnError: ``leftover-shadow`` when a table of that name is not what it should be.
    """
    none = Side(schema, column)
    found = []
    for fact in (NEXT, PREV):
        query = """
            SELECT obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s"""
        row = link.execute(query, (schema, none._name(fact))).fetchone()
        if row is not None:
            found.append((fact, row[0]))
    if not found:
        return none
    try:
        ((fact, text),) = found
        note = json.loads(text)
        table = column.table
        if (note["schema"], note["table"], note["column"]) == (table.schema, table.name, column.name):
            has_gate = none.gate.is_there(link)
            return Side(schema, column, fact, str(note["rotation_id"]), bool(note["swapped"]), has_gate)
    except (ValueError, TypeError, KeyError):
        pass
    names = " and ".join(f"{schema}.{none._name(fact)}" for fact, _text in found)
    raise KeyturnError(
        "leftover-shadow",
        f"{names} is no side table of this column",
        where=str(column),
        hint="Look at it, and drop it when nobody needs it",
    )
