# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""References: where a module takes a value from, so that no value is ever an argument of the playbooks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

__all__ = ["VALUE_OPTIONS", "resolve"]

#: The argument spec of a reference; exactly one of C(file), C(env_file) with C(variable), C(sealed), C(value).
VALUE_OPTIONS: dict[str, dict[str, Any]] = {
    "file": {"type": "path"},
    "env_file": {"type": "path"},
    "variable": {"type": "str"},
    "sealed": {"type": "str"},
    "value": {"type": "str", "no_log": True},
}
_SOURCES = ("file", "env_file", "sealed", "value")


def resolve(session: Session, reference: Mapping[str, Any], context: str) -> bytes:
    """The value that a reference leads to.

    :param reference: see :data:`VALUE_OPTIONS`; a file loses one line end behind its value.
    :param context: what the value is, ``<rotation_id>/<secret>/<version>``: a box opens for this only.
    :raises KeyturnError: ``reference-invalid``, ``file-loose`` (others may read it), ``file-missing``,
        ``file-unsafe``, ``variable-missing``, ``value-empty``, ``box-invalid``.
    """
    named = [source for source in _SOURCES if reference.get(source) is not None]
    if len(named) != 1 or (named == ["env_file"]) != bool(reference.get("variable")):
        raise KeyturnError(
            "reference-invalid",
            "a value needs exactly one source",
            where=context,
            hint="Name one of file, env_file with variable, sealed, value",
        )
    value = _take(session, named[0], reference, context)
    if not value:
        raise KeyturnError("value-empty", "the value is empty", where=_place(reference, context), hint="Give a value")
    return value


def _place(reference: Mapping[str, Any], context: str) -> str:
    return str(reference.get("file") or reference.get("env_file") or context)


def _take(session: Session, source: str, reference: Mapping[str, Any], context: str) -> bytes:
    if source == "sealed":
        return session.open_box(reference["sealed"], context)
    if source == "value":
        return str(reference["value"]).encode()
    path: str = reference[source]
    content = atomic.read_file(path)
    # Imported where they are needed: every execution compiles what it imports
    if source == "env_file":
        from ansible_collections.keyturn.rotation.plugins.module_utils.stores.env_file import read_variable

        value = read_variable(content, reference["variable"], path)
        if value is None:
            raise KeyturnError(
                "variable-missing",
                f"{reference['variable']} is not set",
                where=path,
                hint="Check the name of the variable",
            )
        return value
    if os.lstat(path).st_mode & 0o077:
        raise KeyturnError(
            "file-loose", "may be read by others than its owner", where=path, hint="Set its mode to 0600"
        )
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores.file import without_newline

    return without_newline(content)
