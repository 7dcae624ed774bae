# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a row had before it was signed again: a table of ours for each table of documents, until the rotation ends.

``d_<16 hex digits>`` has the key (``p1`` ...), the former values (``b0`` ...) and the SHA-256 of the signature, kid
and version that came in their place (``after``): a row that somebody has changed since is not brought back. The comment
says whose it is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.declared import Documents
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import Pages
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
    literal,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import join_on_key, key_names
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Kept", "check_kept", "digest", "find_kept"]


def digest(one: Documents) -> sql.Composable:
    """What is remembered of a row (of ``c``) as this rotation has left it; dates are not, their texts vary."""
    fields = [field for field in (one.kid, one.version) if field is not None]
    names = [aliased("c", name) for name in (one.column.name, *(field.name for field in fields))]
    return sql.SQL("sha256(convert_to(ROW({})::text, 'UTF8'))").format(sql.SQL(", ").join(names))


@dataclass(frozen=True)
class Kept:
    """The table of former values of one table.

    :param rotation: whose it is; empty where it is not there.
    :param oid: of the table.
    """

    schema: str
    one: Documents
    rotation: str = ""
    oid: int = 0

    @property
    def name(self) -> str:
        """Its name."""
        return "d_" + hashlib.sha256(f"documents {self.one.place}".encode()).hexdigest()[:16]

    @property
    def identifier(self) -> sql.Composable:
        """Its name in SQL."""
        return identifier(self.schema, self.name)

    @property
    def table(self) -> Table:
        """As a table to read."""
        return Table(self.oid, self.schema, self.name, ())

    @property
    def values(self) -> list[str]:
        """The names of the columns with former values, in the order of :attr:`Documents.changed`."""
        return [f"b{number}" for number in range(len(self.one.changed))]

    @property
    def note(self) -> dict[str, object]:
        """What the comment says."""
        table = self.one.table
        columns = [[field.name, field.type_sql] for field in self.one.changed]
        return {"schema": table.schema, "table": table.name, "columns": columns, "rotation_id": self.rotation}

    def create(self, link: Link, rotation: str) -> Kept:
        """Make it; no statistics are kept of its values."""
        made = replace(self, rotation=rotation)
        key = self.one.table.key
        names = [identifier(name) for name in key_names(self.one.table)]
        fields: list[sql.Composable] = [
            sql.SQL("{} {}").format(name, part.declaration) for name, part in zip(names, key)
        ]
        for name, field in zip(self.values, self.one.changed):
            fields.append(sql.SQL("{} {}").format(identifier(name), field.declaration))
        fields.append(sql.SQL("after bytea NOT NULL"))
        fields.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(names)))
        create = sql.SQL("CREATE TABLE {} ({})").format(made.identifier, sql.SQL(", ").join(fields))
        link.execute(create, NO_PARAMETERS)
        text = literal(json.dumps(made.note))
        link.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(made.identifier, text), NO_PARAMETERS)
        return find_kept(link, self.schema, self.one)

    def drop(self, link: Link) -> None:
        """The former values go with it."""
        link.execute(sql.SQL("DROP TABLE {}").format(self.identifier), NO_PARAMETERS)

    # -- back ----------------------------------------------------------------------------------------------------

    @property
    def _is_ours(self) -> sql.Composable:
        """The row of ``c`` is still as this rotation has left it."""
        return sql.SQL("{} = s.after").format(digest(self.one))

    def remaining(self, link: Link) -> int:
        """How many rows are still as this rotation has left them."""
        query = sql.SQL("SELECT count(*) FROM {} s JOIN {} c ON {} WHERE {}").format(
            self.identifier,
            self.one.table.identifier,
            join_on_key(self.one.table, "s", is_text=False),
            self._is_ours,
        )
        row = link.execute(query, NO_PARAMETERS).fetchone()
        return int(row[0]) if row else 0

    def restore(self, link: Link, pages: Pages) -> int:
        """Bring back the rows whose former values lie on these pages, inside the caller's transaction.

        Rows that somebody holds are left out; how many were brought back.

        :raises KeyturnError: ``trigger-rewrites``.
        """
        table = self.one.table
        names = [identifier(name) for name in (*key_names(table), *self.values)]
        fields = [sql.SQL("s.{}").format(name) for name in names]
        changes = [
            sql.SQL("{} = o.{}").format(identifier(field.name), identifier(name))
            for field, name in zip(self.one.changed, self.values)
        ]
        query = sql.SQL(
            "WITH o AS MATERIALIZED (SELECT {fields} FROM {side} s JOIN {table} c ON {join_s} WHERE s.ctid > %s::tid"
            " AND s.ctid < %s::tid AND {ours} FOR NO KEY UPDATE OF c SKIP LOCKED),"
            " w AS (UPDATE {table} c SET {changes} FROM o WHERE {join_o} RETURNING {cell} IS NOT DISTINCT FROM o.b0 k)"
            " SELECT count(*), count(*) FILTER (WHERE k) FROM w"
        ).format(
            fields=sql.SQL(", ").join(fields),
            side=self.identifier,
            table=table.identifier,
            join_s=join_on_key(table, "s", is_text=False),
            join_o=join_on_key(table, "o", is_text=False),
            ours=self._is_ours,
            changes=sql.SQL(", ").join(changes),
            cell=aliased("c", self.one.column.name),
        )
        row = link.execute(query, (f"({pages.first},0)", f"({pages.end},0)")).fetchone() or (0, 0)
        check_kept(self.one, row[0] == row[1])
        return int(row[0])


def check_kept(one: Documents, is_kept: bool) -> None:
    """Refuse a table that does not take what is written.

    :raises KeyturnError: ``trigger-rewrites``.
    """
    if not is_kept:
        raise KeyturnError(
            "trigger-rewrites",
            f"a trigger changes what is written to it (there is {', '.join(one.table.triggers)})",
            where=one.place,
            hint="Disable it for the time of the rotation, or let it pass application_name keyturn",
        )


def find_kept(link: Link, schema: str, one: Documents) -> Kept:
    """The table of former values, whoever made it.

    :raises KeyturnError: ``leftover-signatures`` when a table of that name is not what it should be.
    """
    none = Kept(schema, one)
    query = """
        SELECT c.oid::bigint, obj_description(c.oid, 'pg_class') FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s"""
    row = link.execute(query, (schema, none.name)).fetchone()
    if row is None:
        return none
    try:
        rotation = str(json.loads(row[1])["rotation_id"])
        found = replace(none, rotation=rotation, oid=row[0])
        if json.loads(row[1]) == found.note:
            return found
    except (ValueError, TypeError, KeyError):
        pass
    raise KeyturnError(
        "leftover-signatures",
        f"{schema}.{none.name} does not keep what these columns had",
        where=one.place,
        hint="Declare the columns as they were when the rotation began; or drop it when nobody needs it",
    )
