# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``reencrypt_info`` reports: coverage, facts, cost, what stands in the way, and columns nobody named."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.choice import choose, writer_wait_ms
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, OLD, Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
    raw_cursor,
    snapshot,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered, cover
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.facts import WAYS, find_shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import (
    Database,
    find_targets,
    rotation_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import BatchSize
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import NONE, Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import (
    COLUMN_TYPES,
    Column,
    Table,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["run"]

_WRITE_MS_PER_ROW = 0.01  # measured: reading a row and keeping it in a side table
_SAMPLE = 50
_SHORTEST = 16  # bytes; nothing encrypted is shorter


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The work of the module ``reencrypt_info``; see its RETURN for the result. Nothing is written."""
    session = Session.from_params(params)
    database = Database(session, params)
    link = database.open()
    try:
        with explained(database.place):
            targets = find_targets(link, database, params, ("SELECT",))
            rows_way, schema = WAYS["rows"], params["schema"]
            sides = [find_shadow(link, schema, target.column, rows_way) for target in targets]
            is_mine = [side.rotation == rotation_of(session) for side in sides]
            known = [side if mine else rows_way.none(schema, side.column) for side, mine in zip(sides, is_mine)]
            begun = next((side.way for side in known if side.fact != NONE), "")
            size = BatchSize(params["batch_rows"], params["batch_bytes"])
            started = time.perf_counter()
            covered = cover(link, targets, known, Pace("info"), size)
            seconds = time.perf_counter() - started
            rows = sum(one.counts.total for one in covered)
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
                    "seconds": round(seconds + rows * (_WRITE_MS_PER_ROW / 1000 + 2 * _crypto_seconds(targets)), 1),
                    "seconds_how": "time of this count, plus 10 us and twice the time of one encryption for each row",
                    "writer_wait_ms": round(writer_wait_ms(link, covered), 1),
                    "writer_wait_how": "by rows: 4.4 us for each row, and 0.8 times that for each index on the column",
                },
                "choice": choose(link, targets, covered, params, begun).as_result(),
                "server": _server(link, params["schema"]),
                "found": _search(link, targets) if params["search"] else [],
            }
    finally:
        link.close()


def _crypto_seconds(targets: list[Target]) -> float:
    """Time of one encryption, of the slowest envelope."""
    slowest = 0.0
    for target in targets:
        envelope = target.old if target.new.seal(b"keyturn") == b"keyturn" else target.new
        started = time.perf_counter()
        envelope.seal(b"keyturn")
        slowest = max(slowest, time.perf_counter() - started)
    return slowest


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
        "authenticated": covered.target.spec.authenticated,
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


def _search(link: Link, targets: list[Target]) -> list[dict[str, Any]]:
    """Columns that hold values under one of the keys and that nobody named; a sample of each column is tried."""
    named = {(target.column.table.oid, target.column.name) for target in targets}
    specs = {target.spec: target for target in targets if target.spec.authenticated}
    query = """
        SELECT c.oid::bigint, n.nspname, c.relname, a.attname, t.typname
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid AND t.typnamespace = 'pg_catalog'::regnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND t.typname = ANY (%s)
          AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
          AND NOT row_security_active(c.oid) AND has_column_privilege(c.oid, a.attnum, 'SELECT')
          AND NOT EXISTS (SELECT FROM pg_description d WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass
                          AND d.objsubid = 0 AND d.description LIKE '{%%"rotation_id"%%')
        ORDER BY n.nspname, c.relname, a.attnum"""
    found = []
    with snapshot(link):
        for oid, schema, table, name, type_name in link.execute(query, (list(COLUMN_TYPES),)).fetchall():
            if (oid, name) in named:
                continue
            column = Column(Table(oid, schema, table, ()), name, type_name, type_name)
            for target in specs.values():
                found += _try_column(link, column, target)
    return found


def _try_column(link: Link, column: Column, target: Target) -> list[dict[str, Any]]:
    probe = Target(column, target.spec, None, None)
    cell = identifier(column.name)
    query = sql.SQL("SELECT {} FROM {} WHERE octet_length({}) >= {} LIMIT {}").format(
        probe.cell_type.read(cell),
        column.table.identifier,
        probe.cell_type.read(cell),
        sql.Literal(_SHORTEST),
        sql.Literal(_SAMPLE),
    )
    raws = [row[0] for row in raw_cursor(link).execute(query, NO_PARAMETERS).fetchall()]
    cells = probe.cell_type.decode(raws)
    opened = {
        kind: sum(1 for plaintext in envelope.open_many(cells) if plaintext is not None)
        for kind, envelope in ((NEW, target.new), (OLD, target.old))
    }
    return [
        {
            "table": str(column.table),
            "column": column.name,
            "envelope": target.spec.name,
            "key": kind,
            "opened": count,
            "sampled": len(cells),
        }
        for kind, count in opened.items()
        if count
    ]
