# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in the columns: encrypted private JWKs and peppered token lookups. Pure functions.

The layouts are those of a real control plane: a cell of ``jwks_keys.private_jwk`` is standard base64 of
``nonce12 | ciphertext | tag16`` (AES-256-GCM, no associated data) over the JSON text of a JWK, or that JSON in clear.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from typing import Any

import bcrypt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "CellError",
    "KeyTextError",
    "is_plaintext",
    "open_cell",
    "parse_key",
    "read_jwk",
    "seal_cell",
    "token_digest",
    "token_lookup",
    "token_matches",
    "write_jwk",
]

_KEY_BYTES = 32
_NONCE_BYTES = 12
_SHORTEST_BYTES = 28
_STANDARD = str.maketrans("-_", "+/")


class KeyTextError(ValueError):
    """A text that is no key of 32 bytes."""


class CellError(ValueError):
    """A cell that is neither a JWK in clear nor opens under the key."""


def parse_key(text: str) -> bytes:
    """The 32 bytes of a base64 key, either alphabet, padding optional.

    :raises KeyTextError: for anything else; the text is not repeated.
    """
    bare = text.strip().rstrip("=").translate(_STANDARD)
    try:
        key = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise KeyTextError("the key is not base64") from None
    if len(key) != _KEY_BYTES:
        raise KeyTextError(f"the key has {len(key)} bytes, not {_KEY_BYTES}")
    return key


def seal_cell(plaintext: bytes, key: bytes) -> str:
    """Encrypt to the text of a cell, under a fresh random nonce."""
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plaintext, None)).decode()


def open_cell(cell: str, key: bytes) -> bytes:
    """The plaintext bytes of an encrypted cell; either base64 alphabet, white space allowed.

    :raises CellError: when it is no such cell, was changed, or belongs to another key.
    """
    try:
        raw = base64.b64decode("".join(cell.split()).translate(_STANDARD), validate=True)
    except (binascii.Error, ValueError):
        raise CellError("the cell is not base64") from None
    if len(raw) < _SHORTEST_BYTES:
        raise CellError("the cell is too short")
    try:
        return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None)
    except InvalidTag:
        raise CellError("the cell does not open under this key") from None


def is_plaintext(cell: str) -> bool:
    """Whether a cell holds JSON in clear; the first character decides."""
    return cell.lstrip().startswith("{")


def _parse_object(text: bytes | str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise CellError("the cell holds no JSON") from None
    if not isinstance(value, dict):
        raise CellError("the cell holds no JSON object")
    return value


def read_jwk(cell: str, key: bytes | None) -> dict[str, Any]:
    """The JWK in a cell: in clear, bare or marked ``{"__plain__": true, "jwk": {…}}``, or encrypted.

    :raises CellError: when it is unreadable with this key, or encrypted and there is no key.
    """
    if is_plaintext(cell):
        value = _parse_object(cell)
        if value.get("__plain__") is True and isinstance(value.get("jwk"), dict):
            jwk: dict[str, Any] = value["jwk"]
            return jwk
        return value
    if key is None:
        raise CellError("the cell is encrypted and there is no key")
    return _parse_object(open_cell(cell, key))


def write_jwk(jwk: dict[str, Any], key: bytes | None) -> str:
    """The cell for a JWK: encrypted under the key, or marked as plain when there is none."""
    if key is None:
        return json.dumps({"__plain__": True, "jwk": jwk})
    return seal_cell(json.dumps(jwk).encode(), key)


def token_digest(token: str) -> str:
    """Lower-case hex of the SHA-256 of a raw API token."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_lookup(token: str, key: bytes) -> str:
    """The peppered lookup of a raw API token: hex of HMAC-SHA256 over the hex digest, under the raw key bytes."""
    return hmac.new(key, token_digest(token).encode(), hashlib.sha256).hexdigest()


def token_matches(token: str, stored: str) -> bool:
    """Whether ``stored`` (bcrypt of the hex digest, or in older rows the digest itself) is that of the token."""
    digest = token_digest(token).encode()
    if stored.startswith("$2"):
        return bcrypt.checkpw(digest, stored.encode())
    return hmac.compare_digest(digest, stored.encode())
