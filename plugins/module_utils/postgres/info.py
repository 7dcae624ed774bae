# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``reencrypt_info`` reports: coverage, facts, cost, what stands in the way, and columns nobody named."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.choice import choose, writer_wait_ms
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered, cover
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.detect import detect_columns
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.facts import WAYS, find_shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import (
    Database,
    find_targets,
    rotation_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import BatchSize
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.prefixes import left_by_prefix
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rights import check_rights
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.search import search
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import NONE, Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

__all__ = ["run"]

_WRITE_MS_PER_ROW = 0.01  # measured: reading a row and keeping it in a side table


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The work of the module ``reencrypt_info``; see its RETURN for the result. Nothing is written."""
    session = Session.from_params(params)
    database = Database(session, params)
    link = database.open()
    try:
        with explained(database.place):
            if params["detect"]:
                found = _search(link, [], database, params)
                return {"changed": False, "detected": detect_columns(link, params, database.keys), **found}
            targets = find_targets(link, database, params, ("SELECT",))
            rows_way, schema = WAYS["rows"], params["schema"]
            sides = [find_shadow(link, schema, target.column, rows_way) for target in targets]
            is_mine = [side.rotation == rotation_of(session) for side in sides]
            known = [side if mine else rows_way.none(schema, side.column) for side, mine in zip(sides, is_mine)]
            begun = next((side.way for side in known if side.fact != NONE), "")
            size = BatchSize(params["batch_rows"], params["batch_bytes"])
            started = time.perf_counter()
            crew = Crew(link, database.open, params["workers"])
            if any(target.derives_slowly for target in targets):
                crew.stay_alone()
            covered = cover(crew, targets, known, Pace("info"), size)
            seconds = time.perf_counter() - started
            rows = sum(one.counts.total for one in covered)
            seal_seconds = max((target.seconds_to_seal() for target in targets), default=0.0)
            choice = choose(link, targets, covered, params, begun)
            check_rights(link, targets, params, choice.cut_over)
            return {
                "changed": False,
                "coverage": [one.counts.as_result(one.target.column) for one in covered],
                "unknown": [
                    {"table": str(one.target.column.table), "column": one.target.column.name, "keys": keys}
                    for one in covered
                    if (keys := one.counts.unknown_keys)
                ],
                "columns": [_column(link, one, side) for one, side in zip(covered, sides)],
                "estimates": {
                    "seconds": round(seconds + rows * (_WRITE_MS_PER_ROW / 1000 + 2 * seal_seconds), 1),
                    "seconds_how": "time of this count, plus 10 us and twice the time of one encryption for each row",
                    "writer_wait_ms": round(writer_wait_ms(link, covered), 1),
                    "writer_wait_how": "by rows: 4.4 us for each row, and 0.8 times that for each index on the column; "
                    "55 us for each large object",
                },
                "choice": choice.as_result(),
                "server": _server(link, params["schema"]),
                **_search(link, targets, database, params),
            }
    finally:
        link.close()


def _search(
    link: Link, targets: Sequence[Target], database: Database, params: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    if not params["search"]:
        return {"found": [], "unreadable": []}
    return search(link, targets, database.keys, params["schemas"])


def _column(link: Link, covered: Covered, side: Shadow) -> dict[str, Any]:
    column = covered.target.column
    table = column.table
    query = """
        SELECT greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid), pg_get_userbyid(c.relowner),
               pg_has_role(c.relowner, 'USAGE'), has_table_privilege(c.oid, 'UPDATE'), c.relrowsecurity,
               (SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
                WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey::int2[]) AND a.attname = %(column)s),
               ARRAY(SELECT t.tgname::text FROM pg_trigger t
                     WHERE t.tgrelid = c.oid AND NOT t.tgisinternal ORDER BY t.tgname)
        FROM pg_class c WHERE c.oid = %(oid)s::bigint::oid"""
    row = link.execute(query, {"column": column.name, "oid": table.oid}).fetchone()
    estimate, size, owner, is_owner, may_update, has_policies, indexes, triggers = row or (0, 0, "", 0, 0, 0, 0, [])
    return {
        "table": str(table),
        "column": column.name,
        "type": column.type_sql,
        "primary_key": [{"name": part.name, "type": part.type_sql} for part in table.key],
        "rows": covered.counts.total,
        "rows_estimate": estimate,
        "bytes": size,
        "owner": owner,
        "is_owner": bool(is_owner),
        "may_update": bool(may_update),
        "row_security": bool(has_policies),
        "indexes_on_column": indexes,
        "triggers": list(triggers),
        "authenticated": covered.target.authenticated,
        "left_by_prefix": left_by_prefix(link, covered.target),
        "unknown_keys": covered.counts.unknown_keys,
        "fact": side.fact,
        "fact_cut_over": side.way if side.fact != NONE else "",
        "fact_rotation_id": side.rotation if side.fact != NONE else "",
        "swapped": side.swapped,
    }


def _server(link: Link, schema: str) -> dict[str, Any]:
    query = """
        SELECT current_setting('server_version'), current_setting('server_encoding'), current_user::text,
               coalesce((SELECT regexp_replace(s.c, '^[^=]*=', '') FROM pg_db_role_setting d
                         CROSS JOIN LATERAL unnest(d.setconfig) s(c)
                         WHERE s.c LIKE 'default_transaction_isolation=%%'
                           AND d.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
                           AND d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                         ORDER BY d.setrole DESC, d.setdatabase DESC LIMIT 1),
                        (SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_isolation')),
               coalesce((SELECT has_schema_privilege(n.oid, 'CREATE') FROM pg_namespace n WHERE n.nspname = %s),
                        has_database_privilege(current_database(), 'CREATE')),
               has_database_privilege(current_database(), 'TEMP')"""
    row = link.execute(query, (schema,)).fetchone() or ("",) * 6
    names = ("version", "encoding", "role", "default_isolation", "may_make_side_tables", "may_make_temporary_tables")
    return dict(zip(names, row))
