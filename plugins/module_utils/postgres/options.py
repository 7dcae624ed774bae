# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of the modules ``reencrypt`` and ``reencrypt_info``, and what both make of them first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import EnvelopeSpec, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import register
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, OLD, Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.conditions import (
    parse_companions,
    parse_conditions,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Limits, Link, connect
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import check_objects
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shapes import parse_shape
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import (
    Column,
    check_columns_beside,
    find_column,
    find_table,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS, resolve

__all__ = ["ARGUMENTS", "INFO_ARGUMENTS", "Database", "find_targets", "refuse_clearing", "rotation_of"]

_COLUMN = {
    "table": {"type": "str", "required": True},
    "column": {"type": "str", "required": True},
    "envelope": {"type": "raw"},
    "plaintext": {"type": "str", "choices": ["encrypt", "keep", "refuse"], "default": "refuse"},
    "may_be_empty": {"type": "bool", "default": False},
    "new_envelope": {"type": "raw"},
    "paths": {"type": "list", "elements": "str", "default": []},
    "list": {"type": "str"},
    "pattern": {"type": "str"},
    "where": {"type": "raw"},
    "set": {"type": "dict", "default": {}},
}
_CLEAR = {"table": {"type": "str", "required": True}, "column": {"type": "str", "required": True}}
_KEYS = {
    "old": {"type": "dict", "no_log": False, "options": VALUE_OPTIONS},
    "new": {"type": "dict", "no_log": False, "options": VALUE_OPTIONS},
}
_COMMON: dict[str, dict[str, Any]] = {
    **SESSION_ARGUMENTS,
    "name": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "dsn": {"type": "dict", "required": True, "options": VALUE_OPTIONS},
    "columns": {"type": "list", "elements": "dict", "default": [], "options": _COLUMN},
    "keys": {"type": "dict", "no_log": False, "default": {}, "options": _KEYS},
    "batch_rows": {"type": "int", "default": 500},
    "batch_bytes": {"type": "int", "default": 2_097_152},
    "schema": {"type": "str", "default": "keyturn"},
    "cut_over": {"type": "str", "choices": ["auto", "rows", "columns"], "default": "rows"},
    "max_writer_wait_ms": {"type": "int", "default": 1000},
    "quiesce": {"type": "str", "choices": ["stop", "writes", "none"], "default": "none"},
    "workers": {"type": "int", "default": 0},
    "sanitize": {"type": "bool", "default": False},
}

#: Arguments of ``reencrypt``.
ARGUMENTS: dict[str, dict[str, Any]] = {
    **_COMMON,
    "state": {
        "type": "str",
        "required": True,
        "choices": ["in_place", "prepared", "cut_over", "swept", "rolled_back", "cleaned"],
    },
    "step": {"type": "str", "choices": ["swap", "all"], "default": "swap"},
    "overlap": {"type": "bool", "default": False},
    "turned": {"type": "bool", "default": False},
    "clear": {"type": "list", "elements": "dict", "default": [], "options": _CLEAR},
    "indexes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**_CLEAR, "name": {"type": "str", "required": True}},
    },
    "rate": {"type": "int", "default": 0},
    "max_lag": {"type": "int", "default": 0},
    "lock_timeout_ms": {"type": "int", "default": 100},
    "max_wait_s": {"type": "int", "default": 60},
    "progress_path": {"type": "path"},
    "share": {
        "type": "dict",
        "options": {
            "lead": {"type": "bool", "required": True},
            "host": {"type": "str", "required": True},
            "hosts": {"type": "int", "required": True},
        },
    },
}

#: Arguments of ``reencrypt_info``.
INFO_ARGUMENTS: dict[str, dict[str, Any]] = {
    **_COMMON,
    "search": {"type": "bool", "default": False},
    "detect": {"type": "bool", "default": False},
    "schemas": {"type": "list", "elements": "str", "default": []},
}


def rotation_of(session: Session) -> str:
    """The rotation's name in the database, also where the module is used by itself."""
    return session.rotation_id or "manual"


class Database:
    """The values a call needs, and connections to its database."""

    def __init__(self, session: Session, params: Mapping[str, Any]) -> None:
        rotation, name = session.rotation_id, params["name"]
        self.place = f"database {params['database']}"
        self._dsn = resolve(session, params["dsn"], f"{rotation}/database/{params['database']}")
        keys = {version: reference for version, reference in (params["keys"] or {}).items() if reference}
        self.old = resolve(session, keys["old"], f"{rotation}/{name}/old") if "old" in keys else None
        self.new = resolve(session, keys["new"], f"{rotation}/{name}/new") if "new" in keys else None
        self._limits = Limits(lock_ms=params.get("lock_timeout_ms") or Limits.lock_ms)
        self._is_known = False  # workers connect to what the first connection has looked at

    @property
    def keys(self) -> dict[str, bytes]:
        """The keys that are given."""
        return {kind: value for kind, value in ((NEW, self.new), (OLD, self.old)) if value is not None}

    def open(self) -> Link:
        """A new connection."""
        link = connect(self._dsn, self.place, self._limits, is_known=self._is_known)
        self._is_known = True
        register(link)
        return link


def _writing_key(spec: EnvelopeSpec, value: bytes | None) -> bytes | None:
    """The text of the key that encrypts, where the value is a list of several."""
    if value is None or not spec.key.several:
        return value
    return value.split(b",")[0 if spec.key.several == "first" else -1]


def _declared(entry: Mapping[str, Any]) -> EnvelopeSpec:
    if entry["envelope"] is None:
        raise KeyturnError(
            "envelope-missing",
            "no envelope is named",
            where=f"{entry['table']}.{entry['column']}",
            hint="Name a preset or declare one; reencrypt_info with detect: true says which presets open samples",
        )
    return load_spec(entry["envelope"])


def _check_writable(column: Column, specs: Sequence[EnvelopeSpec]) -> None:
    """Refuse bytes in a column of text.

    :raises KeyturnError: ``column-type-unsupported``.
    """
    for spec in specs:
        if spec.text.encoding == "raw" and not column.holds_bytes:
            message = f"has the type {column.type_sql}, and {spec.name} writes bytes"
            hint = "Name an envelope that writes text, such as base64; bytes lie in a bytea column or a large object"
            raise KeyturnError("column-type-unsupported", message, where=str(column), hint=hint)


def find_targets(link: Link, database: Database, params: Mapping[str, Any], need: tuple[str, ...]) -> list[Target]:
    """The columns of a call, found in the catalog, with their keys.

    :param need: privileges on the tables.
    :raises KeyturnError: ``column-twice``, ``key-invalid``, ``envelope-missing``, ``envelope-unknown``,
        ``set-invalid``, ``column-type-unsupported``, and those of ``tables``, ``conditions`` and ``shapes``.
    """
    specs = [
        (_declared(entry), load_spec(entry["new_envelope"]) if entry.get("new_envelope") else None)
        for entry in params["columns"]
    ]
    targets: list[Target] = []
    for entry, (spec, new_spec) in zip(params["columns"], specs):
        column = find_column(link, find_table(link, entry["table"], need), entry["column"])
        where = str(column)
        new, old = _writing_key(new_spec or spec, database.new), _writing_key(spec, database.old)
        column = replace(
            column,
            conditions=parse_conditions(entry.get("where"), where),
            companions=tuple(parse_companions(entry.get("set"), where, new, old)),
        )
        check_columns_beside(link, column)
        _check_writable(column, (spec, new_spec or spec))
        if column.is_large_object:
            check_objects(link, column, need)
        target = Target(
            column,
            spec,
            database.new,
            database.old,
            entry.get("plaintext") or "refuse",
            bool(entry.get("may_be_empty")),
            parse_shape(entry, column.type_name, where),
            new_spec,
        )
        if target.place in [known.place for known in targets]:
            hint = "Name each column once"
            raise KeyturnError("column-twice", "is named twice", where=target.place, hint=hint)
        targets.append(target)
    _refuse_parts(link, targets)
    _refuse_entangled(targets)
    return targets


def _refuse_parts(link: Link, targets: Sequence[Target]) -> None:
    """Refuse a column of a partition beside the same one of the whole table: its rows would be swapped twice.

    :raises KeyturnError: ``column-twice``.
    """
    if len({target.column.table.oid for target in targets}) < 2:
        return
    for target in targets:
        query = "SELECT relid::bigint FROM pg_partition_ancestors(%s::bigint::oid)"
        above = {int(oid) for (oid,) in link.execute(query, (target.column.table.oid,))}
        for other in targets:
            table = other.column.table
            if table.oid != target.column.table.oid and table.oid in above and other.column.name == target.column.name:
                hint = "Name the table or its partitions, not both"
                message = f"is a part of {other.place}, which is named too"
                raise KeyturnError("column-twice", message, where=target.place, hint=hint)


def _refuse_entangled(targets: Sequence[Target]) -> None:
    """Refuse to set what another entry encrypts, or what tells it which rows are meant.

    :raises KeyturnError: ``set-invalid``.
    """
    for target in targets:
        places = {f"{target.column.table}.{one.column}" for one in target.column.companions}
        for other in targets:
            asked = {f"{other.column.table}.{one.column}" for one in other.column.conditions}
            if places & {other.place}:
                hint = "Set columns beside the cells, not cells"
                raise KeyturnError("set-invalid", f"is set with {target.place}", where=other.place, hint=hint)
            if places & asked:
                message = f"is set with {target.place}, and would take rows away from {other.place}"
                hint = f"Choose the rows of {other.place} by another column"
                raise KeyturnError("set-invalid", message, where=min(places & asked), hint=hint)


def refuse_clearing(targets: Sequence[Target], places: Sequence[str]) -> None:
    """Refuse to empty cells, and what tells which rows are meant.

    :param places: the columns to empty.
    :raises KeyturnError: ``clear-refused``.
    """
    for target in targets:
        column = target.column
        for name in (column.name, *(one.column for one in column.conditions)):
            place = f"{column.table}.{name}"
            if place in places:
                what = "holds encrypted values" if place == target.place else f"chooses the rows of {target.place}"
                hint = "Take it out of clear: emptied are columns that the service fills again"
                raise KeyturnError("clear-refused", f"{what}, and is to be emptied", where=place, hint=hint)
