# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is ours alone: default privileges of a database may open a new table or schema to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["close_schema", "close_table"]

_OTHERS = """
    SELECT DISTINCT a.grantee, pg_get_userbyid(a.grantee) FROM {catalog} o, aclexplode(o.{acl}) a
    WHERE o.oid = %s::{kind}::oid AND a.grantee <> o.{owner}"""
_OF_TABLES = {"catalog": "pg_class", "acl": "relacl", "owner": "relowner", "kind": "regclass"}
_OF_SCHEMAS = {"catalog": "pg_namespace", "acl": "nspacl", "owner": "nspowner", "kind": "regnamespace"}


def close_table(link: Link, name: sql.Composable) -> None:
    """Take every right on a new table from everybody but its owner, in the caller's transaction."""
    _close(link, sql.SQL("TABLE"), _OF_TABLES, name)


def close_schema(link: Link, schema: str) -> None:
    """The same of a schema."""
    _close(link, sql.SQL("SCHEMA"), _OF_SCHEMAS, identifier(schema))


def _close(link: Link, what: sql.SQL, catalog: dict[str, str], name: sql.Composable) -> None:
    query = sql.SQL(_OTHERS).format(**{part: sql.SQL(text) for part, text in catalog.items()})
    for role, known_as in link.execute(query, (name.as_string(link).replace("%%", "%"),)).fetchall():
        grantee = identifier(known_as) if role else sql.SQL("PUBLIC")
        link.execute(sql.SQL("REVOKE ALL ON {} {} FROM {}").format(what, name, grantee), NO_PARAMETERS)
