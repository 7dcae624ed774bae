# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The argument specs of ``secret`` and ``secret_info``."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.stores.catalog import STORE_OPTIONS
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS

__all__ = ["FROM_BACKUP", "INFO_OPTIONS", "SECRET_OPTIONS"]

_SEAL_TO: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "host": {"type": "str", "required": True},
        "public": {"type": "str", "required": True},
        "versions": {"type": "list", "elements": "str", "choices": ["new", "old"], "default": ["new", "old"]},
    },
}

#: The argument spec of one secret for ``secret_info``.
INFO_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "stores": {"type": "list", "elements": "dict", "default": [], "options": STORE_OPTIONS},
    "seal_to": _SEAL_TO,
}

#: The argument spec of a backup that ``secret_info`` looks into.
FROM_BACKUP: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "backup_dir": {"type": "path"},
    "root": {"type": "path"},
    "filename_format": {"type": "str"},
    "key": {"type": "dict", "options": VALUE_OPTIONS, "no_log": False},
}

_DERIVE: dict[str, Any] = {
    "type": "dict",
    "options": {
        "type": {"type": "str", "choices": ["jwt"], "default": "jwt"},
        "from": {"type": "str", "required": True},
        "claims": {"type": "dict", "default": {}},
        "lifetime": {"type": "str", "required": True},
        "algorithm": {"type": "str", "choices": ["HS256"], "default": "HS256"},
        "allow_weak": {"type": "bool", "default": False},
        "stores": {"type": "list", "elements": "dict", "default": []},
    },
}

#: The argument spec of one secret for ``secret``.
SECRET_OPTIONS: dict[str, dict[str, Any]] = {
    **INFO_OPTIONS,
    "generate": {"type": "dict"},
    "derive": _DERIVE,
    "new": {"type": "dict", "options": VALUE_OPTIONS},
    "old": {"type": "dict", "options": VALUE_OPTIONS},
    "origin": {"type": "bool", "default": False},
    "accept": {"type": "dict", "options": {"new": {"type": "str"}, "old": {"type": "str"}}},
    "kid": {"type": "str"},
}
