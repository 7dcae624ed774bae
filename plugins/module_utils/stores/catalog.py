# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a store as a catalog names them, and the store they make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.env_file import EnvFileStore
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.file import FileStore
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.inside import InsideStore, open_place
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import LAYOUTS, open_layout

__all__ = ["STORE_OPTIONS", "open_store"]

#: The argument spec of one store on a host.
STORE_OPTIONS: dict[str, dict[str, Any]] = {
    "type": {"type": "str", "choices": ["env_file", "file", "keyset_command"], "required": True},
    "path": {"type": "path"},
    "variable": {"type": "str"},
    "layout": {"type": "str", "choices": list(LAYOUTS), "default": "single"},
    "separator": {"type": "str", "default": ","},
    "previous_variable": {"type": "str"},
    "if_missing": {"type": "str", "choices": ["error", "add"], "default": "error"},
    "newline": {"type": "bool"},
    "inside": {"type": "raw"},
    "active_variable": {"type": "str"},
    "mode": {"type": "str", "default": "0600"},
    "read": {"type": "list", "elements": "str"},
    "provision": {"type": "list", "elements": "str"},
    "promote": {"type": "list", "elements": "str"},
    "remove": {"type": "list", "elements": "str"},
    "timeout": {"type": "int", "default": 60},
}
_MODE = re.compile(r"0?[0-7]{3}")


def open_store(name: str, options: Mapping[str, Any]) -> Store:
    """Make the store of a secret.

    :param name: the secret's name, which is the variable where none is named.
    :param options: see :data:`STORE_OPTIONS`; absent ones have their defaults.
    :raises KeyturnError: ``store-invalid``.
    """
    if options["type"] == "keyset_command":
        return _keyset_store(name, options)
    if not options.get("path"):
        raise KeyturnError("store-invalid", "the path is missing", where=name, hint="Say where the file is")
    if options.get("layout") == "keyset":
        return _keyset_store(name, options)
    layout = open_layout(
        options.get("layout") or "single",
        options.get("variable") or name,
        options.get("separator", ","),
        options.get("previous_variable") or "",
    )
    add = options.get("if_missing") == "add"
    inside = options.get("inside")
    if inside and add:
        raise KeyturnError(
            "store-invalid",
            "a part of something that is not there cannot be added",
            where=options["path"],
            hint="Leave if_missing away",
        )
    store: Store
    if options["type"] == "file":
        store = FileStore(options["path"], layout, add=add, newline=options.get("newline"))
    else:
        store = EnvFileStore(options["path"], layout, add=add)
    return InsideStore(store, open_place(inside)) if inside else store


def _keyset_store(name: str, options: Mapping[str, Any]) -> Store:
    """A keyset behind commands, in a JSON file, or in two variables of a dotenv file."""
    # Imported here, since every execution compiles what it imports and few stores are keysets
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import (
        DocumentKeyset,
        InlineKeyset,
        KeysetCommandStore,
        KeysetFileStore,
    )

    if options["type"] == "keyset_command":
        return KeysetCommandStore(DocumentKeyset(name, name), options, options.get("timeout"))
    path, add = options["path"], options.get("if_missing") == "add"
    if options.get("inside"):
        raise KeyturnError("store-invalid", "a part of a file is no keyset", where=path, hint="Leave inside away")
    if options["type"] == "env_file":
        active = options.get("active_variable") or ""
        return EnvFileStore(path, InlineKeyset(options.get("variable") or name, active, path), add=add)
    mode = options.get("mode") or "0600"
    if not _MODE.fullmatch(mode):
        raise KeyturnError("store-invalid", "the mode is not of the right form", where=path, hint="Write '0600'")
    return KeysetFileStore(path, DocumentKeyset(name, path), add=add, mode=int(mode, 8))
