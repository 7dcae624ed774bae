# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a store as a catalog names them, and the store they make."""

from __future__ import annotations

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
    "type": {"type": "str", "choices": ["env_file", "file"], "required": True},
    "path": {"type": "path", "required": True},
    "variable": {"type": "str"},
    "layout": {"type": "str", "choices": list(LAYOUTS), "default": "single"},
    "separator": {"type": "str", "default": ","},
    "previous_variable": {"type": "str"},
    "if_missing": {"type": "str", "choices": ["error", "add"], "default": "error"},
    "newline": {"type": "bool"},
    "inside": {"type": "raw"},
}


def open_store(name: str, options: Mapping[str, Any]) -> Store:
    """Make the store of a secret.

    :param name: the secret's name, which is the variable where none is named.
    :param options: see :data:`STORE_OPTIONS`; absent ones have their defaults.
    :raises KeyturnError: ``store-invalid``.
    """
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
