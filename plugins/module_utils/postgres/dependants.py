# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What in the database depends on a column, and would stay with the old data when the columns change their names.

Default, comment, grants, storage and plain views are carried over (see ``carried``). All else is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.carried import relations
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.guard import TRIGGER_PREFIX
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["find_refusals", "refuse"]

_MOST_ATTRIBUTES = 1500  # of the 1600 a table can have; dropped columns count until the table is made anew

#: Objects that follow the number of the column, not its name. Own default, views and NOT NULL are carried over.
_DEPENDANTS = """
    SELECT CASE d.classid
             WHEN 'pg_attrdef'::regclass THEN 'generated column'
             WHEN 'pg_rewrite'::regclass THEN CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'rule' END
             WHEN 'pg_constraint'::regclass THEN CASE k.contype WHEN 'f' THEN 'foreign key' WHEN 'u' THEN 'UNIQUE'
                  WHEN 'x' THEN 'EXCLUDE' WHEN 'p' THEN 'primary key' ELSE 'CHECK' END || ' constraint'
             WHEN 'pg_class'::regclass THEN CASE WHEN d.objid = d.refobjid THEN 'partition key'
                  WHEN i.relkind IN ('i', 'I') THEN 'index' ELSE 'relation' END
             WHEN 'pg_trigger'::regclass THEN 'trigger with UPDATE OF or WHEN'
             WHEN 'pg_policy'::regclass THEN 'policy'
             WHEN 'pg_proc'::regclass THEN 'function with a SQL body'
             WHEN 'pg_statistic_ext'::regclass THEN 'extended statistics'
             WHEN 'pg_publication_rel'::regclass THEN 'publication'
             ELSE 'dependant' END,
           CASE d.classid
             WHEN 'pg_attrdef'::regclass THEN (SELECT g.attname FROM pg_attribute g
                                               WHERE g.attrelid = f.adrelid AND g.attnum = f.adnum)
             WHEN 'pg_rewrite'::regclass THEN CASE v.relkind WHEN 'm' THEN v.relname ELSE w.rulename END
             WHEN 'pg_constraint'::regclass THEN k.conname
             WHEN 'pg_class'::regclass THEN i.relname
             WHEN 'pg_trigger'::regclass THEN t.tgname
             ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
    FROM pg_depend d
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attname = %(column)s
    LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
    LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    LEFT JOIN pg_class v ON v.oid = w.ev_class
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    LEFT JOIN pg_class i ON d.classid = 'pg_class'::regclass AND i.oid = d.objid
    LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s::bigint::oid
      AND NOT (f.oid IS NOT NULL AND f.adrelid = a.attrelid AND f.adnum = a.attnum)
      AND NOT coalesce(w.rulename = '_RETURN' AND v.relkind = 'v', false)
      AND NOT coalesce(k.contype = 'n' OR k.conname ~ '^keyturn_[0-9a-f]{16}_filled$', false)
    UNION
    SELECT CASE WHEN pg_has_role(v.relowner, 'USAGE') THEN 'view in a schema where this role has no CREATE'
                ELSE 'view of another owner' END, v.relname
    FROM pg_depend d
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attname = %(column)s
    JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid AND w.rulename = '_RETURN'
    JOIN pg_class v ON v.oid = w.ev_class AND v.relkind = 'v'
     AND NOT (pg_has_role(v.relowner, 'USAGE') AND has_schema_privilege(v.relnamespace, 'CREATE'))
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s::bigint::oid
    UNION
    SELECT 'BEFORE trigger that fires after ours', t.tgname FROM pg_trigger t
    WHERE t.tgrelid = %(oid)s::bigint::oid AND NOT t.tgisinternal AND t.tgname COLLATE "C" > %(prefix)s
      AND NOT starts_with(t.tgname, %(prefix)s) AND (t.tgtype & 3) = 3 AND (t.tgtype & 20) <> 0
    UNION
    SELECT 'publication', p.pubname FROM pg_publication_tables p
    JOIN pg_class c ON c.relname = p.tablename
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = p.schemaname
    WHERE c.oid = %(oid)s::bigint::oid
      AND NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication q ON q.oid = r.prpubid
                      WHERE r.prrelid = c.oid AND q.pubname = p.pubname AND r.prattrs IS NOT NULL)
    ORDER BY 1, 2"""
_TABLE = """
    SELECT pg_has_role(c.relowner, 'USAGE'), c.reloftype <> 0,
           EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
                   WHERE i.inhrelid = c.oid AND (p.relkind <> 'p' OR NOT %(is_part)s)),
           (SELECT max(attnum) FROM pg_attribute WHERE attrelid = c.oid),
           a.attnotnull, coalesce(l.collisdeterministic, true)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %(column)s
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    WHERE c.oid = %(oid)s::bigint::oid"""


def find_refusals(link: Link, target: Target, covered: Covered | None = None) -> list[str]:
    """Why this column cannot be cut over by ``columns``; empty when it can.

    :param covered: its coverage, where it was just counted.
    """
    refusals = list(_cells(target, covered))
    must_not_be_null = None
    for number, (oid, schema, table) in enumerate(relations(link, target.column.table.oid)):
        place = "" if number == 0 else f" of {schema}.{table}"
        refusals += [f"{refusal}{place}" for refusal in _relation(link, target.column, oid, number > 0)]
        row = link.execute(_TABLE, {"column": target.column.name, "oid": oid, "is_part": number > 0}).fetchone()
        if row is not None and number == 0:
            must_not_be_null = row[4]
        elif row is not None and row[4] != must_not_be_null:
            refusals.append(f"NOT NULL{place} alone")
    return refusals


def _cells(target: Target, covered: Covered | None) -> Iterator[str]:
    if target.column.is_large_object:
        yield "large objects"
    if target.shape is not None:
        yield "values of several cells"
    if target.column.conditions:
        yield "rows chosen by a condition"
    if target.column.companions:
        yield "columns that change with the cell"
    if target.plaintext == "keep":
        yield "plaintext: keep (such a cell is the same in both columns)"
    if target.is_adoption and covered is not None and covered.counts.rows[NEW]:
        yield "rows that are under the new key already, in a first encryption"


def _relation(link: Link, column: Column, oid: int, is_part: bool) -> Iterator[str]:
    values = {"column": column.name, "oid": oid, "prefix": TRIGGER_PREFIX, "is_part": is_part}
    row = link.execute(_TABLE, values).fetchone()
    if row is not None:
        is_owner, is_typed, is_child, attributes, _not_null, is_deterministic = row
        if not is_owner:
            yield "a table of another owner"
        if is_typed:
            yield "a table made of a type"
        if is_child:
            yield "a table that inherits the column"
        if attributes > _MOST_ATTRIBUTES:
            yield f"{attributes} attribute numbers used of 1600"
        if not is_deterministic:
            yield "a nondeterministic collation"
    for kind, name in link.execute(_DEPENDANTS, values).fetchall():
        yield f"{kind} {name}"


def refuse(refusals: Sequence[tuple[str, Sequence[str]]]) -> KeyturnError | None:
    """One error for all columns; None when nothing stands in the way.

    :param refusals: place of a column, and its refusals.
    """
    told = [f"{place}: {', '.join(reasons)}" for place, reasons in refusals if reasons]
    if not told:
        return None
    return KeyturnError(
        "columns-refused",
        "would not follow the column when it changes places: " + "; ".join(told),
        where=", ".join(place for place, reasons in refusals if reasons),
        hint="Use cut_over: rows, or remove them for the time of the rotation",
    )
