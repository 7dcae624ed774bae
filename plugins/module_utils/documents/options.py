# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of the module ``jws_resign``."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS

__all__ = ["ARGUMENTS", "ONE_OF"]

_NAME = {"type": "str", "required": True}
_DOCUMENTS = {
    "table": _NAME,
    "document": _NAME,
    "signature": _NAME,
    "tenant": {"type": "str"},
    "kid": {"type": "str"},
    "version": {"type": "str"},
    "version_per": {"type": "list", "elements": "str", "default": []},
    "stamps": {
        "type": "dict",
        "options": {"rotation_id": {"type": "str"}, "at": {"type": "str"}, "count": {"type": "str"}},
    },
    "where": {"type": "raw"},
    "unsigned": {"type": "str", "choices": ["keep", "sign"], "default": "keep"},
    "claims": {"type": "dict", "default": {}},
    "lifetime": {"type": "str"},
    "header": {"type": "dict"},
    "allow_claims": {"type": "list", "elements": "str", "default": []},
    "may_be_empty": {"type": "bool", "default": False},
}
_TURNS = {
    "tenant": {"type": "str"},
    "new": _NAME,
    "old": {"type": "list", "elements": "str", "required": True},
}
_KEYS = {
    "old": {"type": "dict", "no_log": False, "options": VALUE_OPTIONS},
    "new": {"type": "dict", "no_log": False, "options": VALUE_OPTIONS},
}
_KEY_TABLE = {
    "table": _NAME,
    "kid": _NAME,
    "private": _NAME,
    "tenant": {"type": "str"},
    "envelope": {"type": "raw"},
    "key": {"type": "dict", "no_log": False, "options": VALUE_OPTIONS},
    "under": {"type": "str", "default": ""},
}
_JWKS = {
    "url": {"type": "str"},
    "file": {"type": "path"},
    "headers": {"type": "dict", "no_log": True, "default": {}},
    "ca_file": {"type": "path"},
    "timeout": {"type": "int", "default": 5},
}

#: Arguments of ``jws_resign``.
ARGUMENTS: dict[str, dict[str, Any]] = {
    **SESSION_ARGUMENTS,
    "state": {"type": "str", "required": True, "choices": ["resigned", "proved", "rolled_back", "cleaned", "replaced"]},
    "name": _NAME,
    "database": _NAME,
    "dsn": {"type": "dict", "required": True, "options": VALUE_OPTIONS},
    "documents": {"type": "list", "elements": "dict", "required": True, "options": _DOCUMENTS},
    "turns": {"type": "list", "elements": "dict", "options": _TURNS},
    "turns_of": {"type": "str"},
    "keys": {"type": "dict", "no_log": False, "default": {}, "options": _KEYS},
    "key_table": {"type": "dict", "no_log": False, "options": _KEY_TABLE},
    "jwks": {"type": "dict", "options": _JWKS},
    "workers": {"type": "int", "default": 0},
    "batch_rows": {"type": "int", "default": 500},
    "batch_bytes": {"type": "int", "default": 2_097_152},
    "rate": {"type": "int", "default": 0},
    "max_lag": {"type": "int", "default": 0},
    "progress_path": {"type": "path"},
    "schema": {"type": "str", "default": "keyturn"},
    "lock_timeout_ms": {"type": "int", "default": 100},
    "max_wait_s": {"type": "int", "default": 60},
}

#: Where the kids come from: exactly one of these.
ONE_OF = ("turns", "turns_of")
