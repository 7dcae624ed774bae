# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns that hold values under one of the keys and that nobody named; samples are tried, nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, OLD, Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, raw_cursor, snapshot
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import read_permitted
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shapes import parse_shape
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import (
    COLUMN_TYPES,
    LARGE_OBJECT,
    Column,
    Table,
)

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["search"]

_SAMPLE = 50
_SLOW_SAMPLE = 5  # where a key is derived for each value
_WEAK_SAMPLE = 4  # at least so many values must open, and all of them, where that is no proof
_SHORTEST = 16  # bytes; nothing encrypted is shorter
_ROWS = 20_000  # of a bigger table so many rows, taken at random, are looked at
_PLAIN_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def search(link: Link, targets: Sequence[Target], schemas: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The columns, with the path where a cell is a string inside of JSON, and how many samples open.

    Envelopes that are bound to the row are left out.

    :param targets: the columns that are named, whose envelopes and keys are tried on all others.
    :param schemas: look only in these; all by default.
    """
    named = {(target.column.table.oid, target.column.name) for target in targets}
    openers = {
        (envelope.spec, kind): envelope
        for target in targets
        for kind, envelope in ((NEW, target.new), (OLD, target.old))
        if not envelope.spec.needs_context
    }
    query = """
        SELECT c.oid::bigint, n.nspname, c.relname, a.attname, t.typname, greatest(c.reltuples, 0)::bigint
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid AND t.typnamespace = 'pg_catalog'::regnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND t.typname = ANY (%s)
          AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
          AND (cardinality(%s::text[]) = 0 OR n.nspname = ANY (%s))
          AND NOT row_security_active(c.oid) AND has_column_privilege(c.oid, a.attnum, 'SELECT')
          AND NOT EXISTS (SELECT FROM pg_description d WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass
                          AND d.objsubid = 0 AND d.description LIKE '{%%"rotation_id"%%')
        ORDER BY n.nspname, c.relname, a.attnum"""
    found = []
    with snapshot(link):
        parameters = ([*COLUMN_TYPES, LARGE_OBJECT], list(schemas), list(schemas))
        for oid, schema, table, name, type_name, rows in link.execute(query, parameters).fetchall():
            if (oid, name) in named:
                continue
            column = Column(Table(oid, schema, table, ()), name, type_name, type_name)
            for path, cells in sorted(_samples(link, column, rows).items()):
                for (spec, kind), envelope in openers.items():
                    opened, sampled = _tried(envelope, cells)
                    if opened:
                        place = {"table": str(column.table), "column": name, "path": path}
                        counted = {"envelope": spec.name, "key": kind, "opened": opened, "sampled": sampled}
                        found.append({**place, **counted})
    return found


def _tried(envelope: Envelope, cells: Sequence[bytes]) -> tuple[int, int]:
    """How many of the samples open, of how many that were tried."""
    tried = cells[: _SLOW_SAMPLE if envelope.spec.derive else _SAMPLE]
    opened = sum(1 for plaintext in envelope.open_many(tried) if plaintext is not None)
    if not envelope.spec.authenticated and not _WEAK_SAMPLE <= len(tried) == opened:
        return 0, len(tried)
    return opened, len(tried)


def _samples(link: Link, column: Column, rows: int) -> dict[str, list[bytes]]:
    """Cells that a column may hold: its whole values (or an array's elements), and strings inside of JSON by path."""
    name = identifier(column.name)
    read = read_permitted(name) if column.is_large_object else CellType(column).read(name)
    part: sql.Composable = sql.SQL("")
    if rows > _ROWS:
        part = sql.SQL(" TABLESAMPLE SYSTEM ({})").format(sql.Literal(round(100 * _ROWS / rows, 6)))
    query = sql.SQL("SELECT {} FROM {}{} WHERE octet_length({}) >= {} LIMIT {}").format(
        read, column.table.identifier, part, read, sql.Literal(_SHORTEST), sql.Literal(_SAMPLE)
    )
    raws = [row[0] for row in raw_cursor(link).execute(query, NO_PARAMETERS).fetchall()]
    shape = parse_shape({}, column.type_name, str(column))
    samples: dict[str, list[bytes]] = {}
    for raw in raws:
        whole = CellType(column).decode([raw]) if shape is None else shape.split(raw)[1]
        inside = (
            [] if column.type_name in ("bytea", LARGE_OBJECT) else [one for cell in whole for one in _strings(cell)]
        )
        for path, cell in [*(("", cell) for cell in whole), *inside]:
            if len(cell) >= _SHORTEST:
                samples.setdefault(path, []).append(cell)
    return samples


def _strings(text: bytes) -> Iterator[tuple[str, bytes]]:
    """The strings inside of a JSON object or array, with their paths."""
    if not text.lstrip().startswith((b"{", b"[")):
        return
    try:
        waiting: list[tuple[str, Any]] = [("$", json.loads(text))]
    except (ValueError, RecursionError):
        return
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value.encode(errors="surrogatepass")
        elif isinstance(value, list):
            waiting += [(f"{path}[*]", element) for element in value]
        elif isinstance(value, dict):
            waiting += [(f"{path}{_step(name)}", member) for name, member in value.items()]


def _step(name: str) -> str:
    return f".{name}" if name and _PLAIN_NAME.issuperset(name) else f'["{name}"]'
