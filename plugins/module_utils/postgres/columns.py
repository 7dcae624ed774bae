# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Second columns: the same row under the other key, in the table itself. Their names are the facts of a cut-over.

``keyturn_<16 hex digits>_next``: the first column is under the old key; ``_prev``: under the new one. The comment says
whose it is. A second column that is empty, or equal to the first, is behind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.carried import default_of
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.guard import Guard
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
    literal,
    server_text,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import NEXT, NONE, PREV, Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["ShadowColumn", "find_shadow_column"]


@dataclass(frozen=True)
class ShadowColumn(Shadow):
    """What the catalog says about a column's second one.

    :param is_closed: whether the database itself has checked that no row is without.
    :param seal: the guard as it was when every row was known to be kept true; see :meth:`Guard.seal`.
    """

    is_closed: bool = False
    seal: str = ""

    way: ClassVar[str] = "columns"

    @property
    def name(self) -> str:
        """Its name."""
        return self.name_as(self.fact)

    def name_as(self, fact: str) -> str:
        """Its name, were that the fact."""
        return f"keyturn_{self.tag}_{fact}"

    @property
    def check_name(self) -> str:
        """The constraint that says that it is filled."""
        return f"keyturn_{self.tag}_filled"

    @property
    def guard(self) -> Guard:
        """Its trigger."""
        return Guard(self.schema, self.column, self.tag)

    @property
    def lock(self) -> int:
        """The guard's."""
        return self.guard.lock

    @property
    def is_guarded(self) -> bool:
        """The guard is there as long as the column is."""
        return self.fact != NONE

    @property
    def note(self) -> dict[str, Any]:
        """With the seal."""
        return {**super().note, "seal": self.seal}

    @property
    def kept(self) -> tuple[sql.Composable, sql.Composable]:
        """The cell itself where it is not behind, and the second column."""
        behind = self.is_behind(CellType(self.column))
        truth = sql.SQL("(CASE WHEN NOT ({}) THEN {} END)").format(behind, aliased("c", self.column.name))
        return truth, aliased("c", self.name)

    def is_behind(self, cells: CellType) -> sql.Composable:
        """It is empty, or equal although there is something to encrypt."""
        truth, other = aliased("c", self.column.name), aliased("c", self.name)
        return sql.SQL("({other} IS NULL OR {same} AND octet_length({raw}) > 0)").format(
            other=other,
            same=sql.SQL("{} = {}").format(cells.compare(other), cells.compare(truth)),
            raw=cells.read(truth),
        )

    def create(self, link: Link, rotation: str) -> ShadowColumn:
        """Storage and the like as the first column has them; without a default, so that nothing is rewritten."""
        made = replace(self, fact=NEXT, rotation=rotation)
        table, name = self.column.table.identifier, identifier(made.name)
        query = """
            SELECT format_type(a.atttypid, a.atttypmod),
                   (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname) FROM pg_collation c
                    JOIN pg_namespace n ON n.oid = c.collnamespace
                    WHERE c.oid = a.attcollation AND a.attcollation <> t.typcollation),
                   CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL'
                                     WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END,
                   CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
                   nullif(a.attstattarget, -1), a.attoptions
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = %s::bigint::oid AND a.attname = %s"""
        row = link.execute(query, (self.column.table.oid, self.column.name)).fetchone()
        type_sql, collation, storage, compression, statistics, options = row or ("", None, "", None, None, None)
        declared = server_text(type_sql + (f" COLLATE {collation}" if collation else ""))
        changes = [sql.SQL("SET STORAGE {}").format(sql.SQL(storage))]
        if compression:
            changes.append(sql.SQL("SET COMPRESSION {}").format(sql.SQL(compression)))
        if statistics is not None:
            changes.append(sql.SQL("SET STATISTICS {}").format(sql.Literal(statistics)))
        if options:
            changes.append(sql.SQL("SET ({})").format(sql.SQL(", ").join([server_text(option) for option in options])))
        add = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(table, name, declared)
        link.execute(add, NO_PARAMETERS)
        altered = sql.SQL(", ").join([sql.SQL("ALTER {} {}").format(name, change) for change in changes])
        link.execute(sql.SQL("ALTER TABLE {} {}").format(table, altered), NO_PARAMETERS)
        made.guard.write_function(link, made.name, default_of(link, self.column))
        made.guard.attach(link)
        made = replace(made, seal=made.guard.seal(link))
        made.write_note(link)
        return made

    def write_note(self, link: Link) -> None:
        """Say on the column whose it is."""
        comment = sql.SQL("COMMENT ON COLUMN {}.{} IS {}")
        text = literal(json.dumps(self.note))
        link.execute(comment.format(self.column.table.identifier, identifier(self.name), text), NO_PARAMETERS)

    def turn(self, link: Link) -> ShadowColumn:
        """Exchange the names of the two columns."""
        turned = replace(self, fact=NEXT if self.fact == PREV else PREV, swapped=True)
        between = self.name_as("swap")
        for old, new in ((self.column.name, between), (self.name, self.column.name), (between, turned.name)):
            rename = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}")
            link.execute(rename.format(self.column.table.identifier, identifier(old), identifier(new)), NO_PARAMETERS)
        return turned

    def drop(self, link: Link) -> None:
        """With its trigger, and with the constraint on it."""
        self.guard.drop(link)
        table = self.column.table.identifier
        check = sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}")
        link.execute(check.format(table, identifier(self.check_name)), NO_PARAMETERS)
        link.execute(sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(table, identifier(self.name)), NO_PARAMETERS)


def find_shadow_column(link: Link, schema: str, column: Column) -> ShadowColumn:
    """The second column of a column, whoever made it.

    :raises KeyturnError: ``leftover-shadow`` when a column of that name is not what it should be.
    """
    none = ShadowColumn(schema, column)
    names = {none.name_as(fact): fact for fact in (NEXT, PREV)}
    query = """
        SELECT a.attname, col_description(a.attrelid, a.attnum), a.attnotnull OR EXISTS (
            SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.conname = %s AND k.convalidated)
        FROM pg_attribute a WHERE a.attrelid = %s::bigint::oid AND a.attname = ANY (%s) AND NOT a.attisdropped"""
    found = link.execute(query, (none.check_name, column.table.oid, list(names))).fetchall()
    if not found:
        return none
    try:
        ((name, text, is_closed),) = found
        note = json.loads(text)
        if note["column"] == column.name:
            return ShadowColumn(
                schema, column, names[name], str(note["rotation_id"]), bool(note["swapped"]), is_closed, note["seal"]
            )
    except (ValueError, TypeError, KeyError):
        pass
    raise KeyturnError(
        "leftover-shadow",
        f"{' and '.join(row[0] for row in found)} is no second column of this one",
        where=str(column),
        hint="Look at it, and drop it when nobody needs it",
    )
