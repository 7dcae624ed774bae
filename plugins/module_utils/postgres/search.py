# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns that hold values under one of the keys and that nobody named; samples are tried, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import (
    PRESETS,
    EnvelopeSpec,
    Opener,
    openers,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.samples import (
    SHORTEST,
    Extent,
    Samples,
    extent_of,
    take,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import (
    COLUMN_TYPES,
    LARGE_OBJECT,
    Column,
    Table,
)

try:
    import psycopg
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["require_keys", "search"]

_WEAK_SAMPLE = 4  # at least so many values must open, and all of them, where that is no proof

#: Domains count as what they are made of, other types of text (char, citext) as text, arrays of any of these, and of
#: JSON, as arrays of text.
_COLUMNS = """
    WITH RECURSIVE base(oid, made_of) AS (
        SELECT oid, oid FROM pg_type WHERE typtype <> 'd'
        UNION ALL SELECT t.oid, base.made_of FROM pg_type t JOIN base ON base.oid = t.typbasetype)
    SELECT c.oid::bigint, n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE'), row_security_active(c.oid),
           a.attname, has_column_privilege(c.oid, a.attnum, 'SELECT'),
           CASE WHEN b.typname = ANY (%(types)s) THEN b.typname WHEN e.typname = 'bytea' THEN '_bytea'
                WHEN e.oid IS NOT NULL THEN '_text' ELSE 'text' END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN base w ON w.oid = a.atttypid JOIN pg_type b ON b.oid = w.made_of
    LEFT JOIN base v ON v.oid = b.typelem AND b.typcategory = 'A' LEFT JOIN pg_type e ON e.oid = v.made_of
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND ((b.typname = ANY (%(types)s) AND b.typnamespace = 'pg_catalog'::regnamespace)
           OR (b.typcategory = 'S' AND b.typlen = -1) OR (e.typcategory = 'S' AND e.typlen = -1)
           OR (e.typname IN ('json', 'jsonb', 'bytea') AND e.typnamespace = 'pg_catalog'::regnamespace))
      AND NOT (b.typname IN ('varchar', 'bpchar', '_varchar') AND a.atttypmod BETWEEN 0 AND %(shortest)s + 3)
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
      AND (cardinality(%(schemas)s::text[]) = 0 OR n.nspname = ANY (%(schemas)s))
      AND NOT EXISTS (SELECT FROM pg_description d WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass
                      AND d.objsubid = 0 AND d.description LIKE '{%%"rotation_id"%%')
    ORDER BY n.nspname, c.relname, c.oid, a.attnum"""


#: What may stand in the way of a look at a table, by SQLSTATE.
_PASSED_OVER = {
    "55P03": "somebody else holds a lock on it",
    "42501": "this role may not read it",
    "42P01": "it is gone meanwhile",
    "42703": "it changed meanwhile",
    "57014": "a look at it took too long",
}


class _Found(NamedTuple):
    """One column of the database; the first five are those of its table."""

    oid: int
    schema: str
    table: str
    is_open_schema: bool
    hides_rows: bool
    name: str
    is_readable: bool
    type_name: str


def require_keys(keys: Mapping[str, bytes]) -> None:
    """Refuse to look for values under no key.

    :raises KeyturnError: ``keys-missing``.
    """
    if not keys:
        hint = "Give keys.old or keys.new"
        raise KeyturnError("keys-missing", "no key is given, so nothing can open", where="keys", hint=hint)


def search(
    link: Link, targets: Sequence[Target], keys: Mapping[str, bytes], schemas: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """``found``: columns, with the path where a cell is a string inside of JSON, and how many samples open;
    ``unreadable``: tables that could not be looked at, or not wholly, and why.

    Tried are the envelopes of the named columns and every preset that proves what it opens and does so quickly, up to
    the first that opens. Envelopes that are bound to the row are left out.

    :param targets: the columns that are named; they are not looked at.
    :param keys: the old and the new one, as their stores hold them.
    :param schemas: look only in these; all by default.
    :raises KeyturnError: ``keys-missing`` where neither a column nor a key is named.
    """
    if not targets:
        require_keys(keys)
    named = {(target.column.table.oid, target.column.name) for target in targets}
    tried = openers(_candidates(targets), keys, (NEW,))
    values = {"types": [*COLUMN_TYPES, LARGE_OBJECT], "schemas": list(schemas), "shortest": SHORTEST}
    rows = [_Found(*row) for row in link.execute(_COLUMNS, values).fetchall()]
    found: list[dict[str, Any]] = []
    unreadable = []
    for _oid, group in groupby((row for row in rows if (row.oid, row.name) not in named), lambda row: row.oid):
        columns = list(group)
        reasons = _refusals(columns)
        readable = [column for column in columns if column.is_readable] if _is_open(columns[0]) else []
        for column, samples in _taken(link, readable, reasons):
            found += _opening(tried, column, samples)
        table = f"{columns[0].schema}.{columns[0].table}"
        unreadable += [{"table": table, "reason": reason} for reason in dict.fromkeys(reasons)]
    return {"found": found, "unreadable": unreadable}


def _candidates(targets: Iterable[Target]) -> list[tuple[str, EnvelopeSpec]]:
    """The envelopes of the named columns, then presets; each once."""
    named: dict[EnvelopeSpec, str] = {}
    for target in targets:
        for spec in (target.old.spec, target.new.spec):
            is_preset = PRESETS.get(spec.name) == spec
            named.setdefault(spec, spec.name if is_preset else f"{spec.name} of {target.place}")
    for name, spec in PRESETS.items():
        if spec.authenticated and not spec.derives_slowly:
            named.setdefault(spec, name)
    return [(name, spec) for spec, name in named.items()]


def _is_open(table: _Found) -> bool:
    return table.is_open_schema and not table.hides_rows


def _refusals(columns: Sequence[_Found]) -> list[str]:
    """Why some of a table cannot be looked at, as far as the server says beforehand."""
    closed = [column.name for column in columns if not column.is_readable]
    if not columns[0].is_open_schema:
        return ["this role may not use its schema"]
    if len(closed) == len(columns):
        return ["this role may not read it"]
    if columns[0].hides_rows:
        return ["row-level security hides rows from this role"]
    return [f"this role may not read {', '.join(closed)}"] if closed else []


def _taken(link: Link, columns: Sequence[_Found], reasons: list[str]) -> Iterator[tuple[Column, Samples]]:
    """Samples of the columns of one table; what else stands in the way goes to the reasons."""
    extent: Extent | None = None
    for one in columns:
        table = Table(one.oid, one.schema, one.table, ())
        column = Column(table, one.name, one.type_name, one.type_name)
        try:
            extent = extent or extent_of(link, table)
            samples = take(link, column, extent)
        except psycopg.Error as error:
            if error.sqlstate not in _PASSED_OVER:
                raise
            reasons.append(_PASSED_OVER[error.sqlstate])
            return
        if samples.hidden:
            reasons.append(f"this role may not read some of the large objects that {one.name} names")
        yield column, samples


def _opening(tried: Sequence[Opener], column: Column, samples: Samples) -> Iterator[dict[str, Any]]:
    """What the first envelope that opens something opens, by path and key."""
    for path, cells in samples.cells.items():
        for opener in tried:
            proven = opener.spec.authenticated
            counted = [one for one in opener.count(cells) if proven or _WEAK_SAMPLE <= one.sampled == one.opened]
            for one in counted:
                place = {"table": str(column.table), "column": column.name, "path": path}
                yield {**place, "envelope": opener.name, **one._asdict()}
            if counted:
                break
