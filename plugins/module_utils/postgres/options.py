# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of the modules ``reencrypt`` and ``reencrypt_info``, and what both make of them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import register
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Limits, Link, connect
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import find_column, find_table
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS, resolve

__all__ = ["ARGUMENTS", "INFO_ARGUMENTS", "Database", "find_targets", "rotation_of"]

_COLUMN = {
    "table": {"type": "str", "required": True},
    "column": {"type": "str", "required": True},
    "envelope": {"type": "raw", "required": True},
    "plaintext": {"type": "str", "choices": ["encrypt", "keep", "refuse"], "default": "refuse"},
    "may_be_empty": {"type": "bool", "default": False},
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
    "batch_rows": {"type": "int", "default": 1000},
    "batch_bytes": {"type": "int", "default": 2_097_152},
    "schema": {"type": "str", "default": "keyturn"},
    "cut_over": {"type": "str", "choices": ["auto", "rows", "columns"], "default": "rows"},
    "max_writer_wait_ms": {"type": "int", "default": 1000},
    "quiesce": {"type": "str", "choices": ["stop", "writes", "none"], "default": "none"},
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
    "clear": {"type": "list", "elements": "dict", "default": [], "options": _CLEAR},
    "indexes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**_CLEAR, "name": {"type": "str", "required": True}},
    },
    "workers": {"type": "int", "default": 1},
    "rate": {"type": "int", "default": 0},
    "lock_timeout_ms": {"type": "int", "default": 100},
    "max_wait_s": {"type": "int", "default": 60},
    "progress_path": {"type": "path"},
}

#: Arguments of ``reencrypt_info``.
INFO_ARGUMENTS: dict[str, dict[str, Any]] = {**_COMMON, "search": {"type": "bool", "default": False}}


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

    def open(self) -> Link:
        """A new connection."""
        link = connect(self._dsn, self.place, self._limits)
        register(link)
        return link


def find_targets(link: Link, database: Database, params: Mapping[str, Any], need: tuple[str, ...]) -> list[Target]:
    """The columns of a call, found in the catalog, with their keys.

    :param need: privileges on the tables.
    :raises KeyturnError: ``column-twice``, ``key-invalid``, ``envelope-unknown``, and those of ``tables``.
    """
    specs = [load_spec(entry["envelope"]) for entry in params["columns"]]
    targets: list[Target] = []
    for entry, spec in zip(params["columns"], specs):
        column = find_column(link, find_table(link, entry["table"], need), entry["column"])
        plaintext, may_be_empty = entry.get("plaintext") or "refuse", bool(entry.get("may_be_empty"))
        target = Target(column, spec, database.new, database.old, plaintext, may_be_empty)
        if target.place in [known.place for known in targets]:
            hint = "Name each column once"
            raise KeyturnError("column-twice", "is named twice", where=target.place, hint=hint)
        targets.append(target)
    return targets
