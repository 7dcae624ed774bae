# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envelopes of known applications by name, and reading a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.declaration import expand, parse_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest

__all__ = ["PRESETS", "load_spec"]

_DECLARED: Mapping[str, Mapping[str, Any]] = {
    "aes256gcm-b64": {
        "cipher": "aes-gcm",
        "text": {"encoding": "base64", "also_reads": "base64url", "line_breaks": "skip"},
        "parts": ["nonce:12", "ciphertext", "tag:16"],
        "key": {"encoding": ["base64url", "base64"], "lengths": [32]},
        "plaintext": {"form": "json-object", "marker": "__plain__", "member": "jwk"},
    },
    "aesgcm-raw": {
        "cipher": "aes-gcm",
        "text": "raw",
        "parts": ["nonce:12", "ciphertext", "tag:16"],
        "key": {"encoding": "base64", "lengths": [16, 24, 32]},
    },
    "pbkdf2-aes256gcm-b64": {
        "cipher": "aes-gcm",
        "text": "base64",
        "parts": ["salt:64", "nonce:16", "tag:16", "ciphertext"],
        "key": {"encoding": "base64", "lengths": [32], "padding": "required"},
        "derive": {"function": "pbkdf2-hmac-sha256", "rounds": 100_000, "length": 32},
    },
    "fernet": {
        "cipher": "fernet",
        "text": "base64url",
        "key": {"encoding": "base64url", "padding": "required", "list": "first"},
    },
    "pbkdf2-aes256gcm-b64-tag-last": {
        "cipher": "aes-gcm",
        "text": "base64",
        "parts": ["salt:64", "nonce:16", "ciphertext", "tag:16"],
        "key": "utf8",
        "derive": {"function": "pbkdf2-hmac-sha256", "rounds": 100_000, "length": 32},
    },
    "superset-cbc": {
        "cipher": "aes-cbc",
        "text": "base64",
        "parts": ["ciphertext"],
        "key": "utf8",
        "derive": "sha256",
        "iv": "key",
        "block_padding": "*",
        "check": "utf8",
    },
    "superset-gcm": {
        "cipher": "aes-gcm",
        "text": "base64",
        "parts": ["nonce:12", "tag:16", "ciphertext"],
        "key": "utf8",
        "derive": "sha256",
    },
    "openssl-salted": {
        "cipher": "aes-cbc",
        "text": "base64",
        "magic": b"Salted__".hex(),
        "parts": ["salt:8", "ciphertext"],
        "key": "utf8",
        "derive": "evp-bytes-to-key-md5",
        "iv": "derived",
        "check": "utf8",
    },
    "n8n-cbc": {
        "cipher": "aes-cbc",
        "text": "base64",
        "magic": b"Salted__".hex(),
        "parts": ["salt:8", "ciphertext"],
        "key": "latin1",
        "derive": "evp-bytes-to-key-md5",
        "iv": "derived",
        "check": "json",
    },
    "n8n-gcm": {
        "cipher": "aes-gcm",
        "text": "base64",
        "magic": "01",
        "parts": ["salt:32", "tag:16", "ciphertext"],
        "key": {"encoding": "hex", "lengths": [32]},
        "derive": {"function": "hkdf-sha256", "info": "n8n-encryption-v1"},
        "iv": "derived",
    },
    "langfuse": {
        "cipher": "aes-gcm",
        "text": {"encoding": "hex", "separator": ":"},
        "parts": ["nonce:12", "ciphertext", "tag:16"],
        "key": {"encoding": "hex", "lengths": [32]},
    },
    "calcom": {
        "cipher": "aes-cbc",
        "text": {"encoding": "hex", "separator": ":"},
        "parts": ["iv:16", "ciphertext"],
        "key": {"encoding": "latin1", "lengths": [32]},
        "check": "utf8",
    },
    "rails-json": {
        "cipher": "aes-gcm",
        "text": {
            "encoding": "base64",
            "members": {
                "parts": {"ciphertext": "p", "nonce": "h.iv", "tag": "h.at"},
                "carried": ["h.e"],
                "key_id": "h.i",
            },
        },
        "parts": ["nonce:12", "ciphertext", "tag:16"],
        "key": {"encoding": "utf8", "id": {"source": "derived", "function": "sha1", "digits": 4}},
        "derive": {"function": "pbkdf2-hmac-sha256", "rounds": 65_536},
        "compress": {"over": 140, "flag": "h.c"},
    },
    "jwe-dir-a256gcm": {
        "cipher": "aes-gcm",
        "text": {"encoding": "base64url", "padding": "forbidden", "jose": "dir"},
        "parts": ["nonce:12", "ciphertext", "tag:16"],
        "key": {"encoding": ["jwk", "hex", "base64url"], "lengths": [32], "id": {"source": "jwk"}},
    },
    "twenty-v2": {
        "cipher": "aes-gcm",
        "text": "base64",
        "prefix": "enc:v2:{key_id}:",
        "parts": ["nonce:12", "ciphertext", "tag:16"],
        "key": {"encoding": "utf8", "id": {"source": "text", "function": "sha256", "digits": 8}},
        "derive": {"function": "hkdf-sha256", "info": "twenty:enc:v2:instance"},
    },
}

#: Specs by preset name.
PRESETS: Mapping[str, EnvelopeSpec] = {name: parse_spec(value, name) for name, value in _DECLARED.items()}


def load_spec(value: str | Mapping[str, Any]) -> EnvelopeSpec:
    """The spec that a preset's name or a mapping declares.

    A mapping with ``preset`` starts from that preset; its other members replace the preset's, one level deep.

    :raises KeyturnError: ``envelope-unknown`` (no such preset) or ``envelope-invalid``.
    """
    spec = PRESETS[_known(value)] if isinstance(value, str) else _parse(value)
    spec.require_complete()
    return spec


def _parse(value: Mapping[str, Any]) -> EnvelopeSpec:
    if not isinstance(value, Mapping):
        raise KeyturnError("envelope-invalid", "must be a preset's name or a mapping", hint="See docs/envelopes.md")
    full = expand(value)
    preset = full.pop("preset", None)
    if preset is None:
        return parse_spec(full)
    base = expand(_DECLARED[_known(preset)])
    for field, wanted in full.items():
        is_merged = isinstance(wanted, Mapping) and isinstance(value.get(field), Mapping) and field in base
        base[field] = {**base[field], **wanted} if is_merged else wanted
    if "derive" in value and "derive" not in full:
        base.pop("derive", None)
    return parse_spec(base, f"{preset} (changed)" if full or "derive" in value else preset)


def _known(name: Any) -> str:
    if isinstance(name, str) and name in _DECLARED:
        return name
    raise KeyturnError(
        "envelope-unknown",
        "no preset has this name",
        where=f"envelope {str(name)[:60]!r}",
        hint=nearest(str(name), _DECLARED),
    )
