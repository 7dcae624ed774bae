# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes over to the other column with the name: default, grants, comment, and the views that read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    identifier,
    literal,
    server_text,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Carried", "default_of", "read_carried", "read_versions", "read_views", "relations"]


@dataclass(frozen=True)
class Carried:
    """What one relation (the table or one of its partitions) says about a column.

    :param grants: grantee and privilege as SQL, and whether it may be passed on.
    """

    schema: str
    table: str
    default: str | None
    comment: str | None
    grants: tuple[tuple[str, str, bool], ...]

    def give(self, link: Link, column: str, former: str) -> None:
        """Say it about this column, and no longer about the former one."""
        table, name, other = identifier(self.schema, self.table), identifier(column), identifier(former)
        if self.default is not None:
            alter = sql.SQL("ALTER TABLE ONLY {} ALTER {} SET DEFAULT {}, ALTER {} DROP DEFAULT")
            link.execute(alter.format(table, name, server_text(self.default), other), NO_PARAMETERS)
        comment = sql.SQL("COMMENT ON COLUMN {}.{} IS {}")
        text = sql.SQL("NULL") if self.comment is None else literal(self.comment)
        link.execute(comment.format(table, name, text), NO_PARAMETERS)
        if self.comment is not None:
            link.execute(comment.format(table, other, sql.SQL("NULL")), NO_PARAMETERS)
        for grantee, privilege, may_pass_on in self.grants:
            to = server_text(grantee)
            grant = sql.SQL("GRANT {} ({}) ON {} TO {}{}").format(
                server_text(privilege), name, table, to, sql.SQL(" WITH GRANT OPTION" if may_pass_on else "")
            )
            link.execute(grant, NO_PARAMETERS)
            revoke = sql.SQL("REVOKE {} ({}) ON {} FROM {} CASCADE")
            link.execute(revoke.format(server_text(privilege), other, table, to), NO_PARAMETERS)


def relations(link: Link, oid: int) -> list[tuple[int, str, str]]:
    """The table and its partitions: oid, schema, name."""
    query = """
        SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = %(oid)s::bigint::oid OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s::bigint::oid))
        ORDER BY c.oid <> %(oid)s::bigint::oid, c.oid"""
    return [(row[0], row[1], row[2]) for row in link.execute(query, {"oid": oid}).fetchall()]


def read_carried(link: Link, column: Column) -> list[Carried]:
    """What the table and each partition say about the column."""
    query = """
        SELECT pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum),
               ARRAY(SELECT ARRAY[CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END,
                                  x.privilege_type, x.is_grantable::text]
                     FROM aclexplode(a.attacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee)
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = %s::bigint::oid AND a.attname = %s"""
    found = []
    for oid, schema, table in relations(link, column.table.oid):
        row = link.execute(query, (oid, column.name)).fetchone()
        if row is not None:
            grants = tuple((grantee, privilege, passes == "true") for grantee, privilege, passes in row[2])
            found.append(Carried(schema, table, row[0], row[1], grants))
    return found


def read_versions(link: Link, columns: Sequence[Column]) -> list[str]:
    """Versions of the catalog's rows behind :func:`read_carried` and :func:`read_views` (comments apart)."""
    query = """
        SELECT ARRAY(SELECT a.attrelid || '/' || a.attnum || '/' || a.xmin FROM pg_attribute a
                     WHERE a.attrelid = ANY (%(oids)s::bigint[]::oid[]) AND a.attnum > 0 ORDER BY 1)
            || ARRAY(SELECT d.oid || '/' || d.xmin FROM pg_attrdef d
                     WHERE d.adrelid = ANY (%(oids)s::bigint[]::oid[]) ORDER BY 1)
            || ARRAY(SELECT DISTINCT w.oid || '/' || w.xmin FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid
                     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (%(oids)s::bigint[]::oid[])
                       AND d.classid = 'pg_rewrite'::regclass ORDER BY 1)"""
    oids = sorted({oid for column in columns for oid, _schema, _name in relations(link, column.table.oid)})
    row = link.execute(query, {"oids": oids}).fetchone()
    return list(row[0]) if row else []


def default_of(link: Link, column: Column) -> str | None:
    """The default of the column, as the server writes it."""
    query = """
        SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
        JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE a.attrelid = %s::bigint::oid AND a.attname = %s"""
    row = link.execute(query, (column.table.oid, column.name)).fetchone()
    return None if row is None else row[0]


def read_views(link: Link, columns: Sequence[Column]) -> list[sql.Composed]:
    """Statements that make the views on these columns again, from the names as they are now."""
    query = """
        SELECT DISTINCT v.oid, n.nspname, v.relname, v.reloptions, pg_get_viewdef(v.oid)
        FROM unnest(%s::bigint[], %s::text[]) u(oid, name)
        CROSS JOIN LATERAL (SELECT u.oid::oid UNION SELECT relid FROM pg_partition_tree(u.oid::oid)) r(oid)
        JOIN pg_attribute a ON a.attrelid = r.oid AND a.attname = u.name
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
                        AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_rewrite w ON w.oid = d.objid AND w.rulename = '_RETURN'
        JOIN pg_class v ON v.oid = w.ev_class AND v.relkind = 'v'
        JOIN pg_namespace n ON n.oid = v.relnamespace ORDER BY v.oid"""
    oids, names = [column.table.oid for column in columns], [column.name for column in columns]
    views: list[sql.Composed] = []
    for _oid, schema, name, options, definition in link.execute(query, (oids, names)).fetchall():
        stated: sql.Composable = sql.SQL("")
        if options:
            pairs = [option.partition("=") for option in options]
            stated = sql.SQL(" WITH ({})").format(
                sql.SQL(", ").join(
                    [sql.SQL("{} = {}").format(identifier(key), literal(value)) for key, _equals, value in pairs]
                )
            )
        view = sql.SQL("CREATE OR REPLACE VIEW {}{} AS {}")
        views.append(view.format(identifier(schema, name), stated, server_text(definition)))
    return views
