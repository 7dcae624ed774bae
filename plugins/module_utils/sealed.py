# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealed boxes: a value on its way to one host, readable by that host alone.

X25519 with a fresh sender key for each box, HKDF-SHA256 (RFC 5869), ChaCha20-Poly1305 (RFC 8439). What the value is
(rotation, name, version) is bound as associated data, so a box cannot be taken for another one. All that travels
through the controller, its logs and its callbacks is a public key or a box.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError:
    if TYPE_CHECKING:
        raise
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

__all__ = ["HAS_CRYPTOGRAPHY", "new_keypair", "open_box", "public_of", "seal"]

_INFO = b"keyturn.rotation sealed box 1"
_NONCE = bytes(12)  # each box has a key of its own, so the nonce never meets it twice


def new_keypair() -> tuple[bytes, str]:
    """A fresh private key (32 bytes) and its public half (base64 text)."""
    private = X25519PrivateKey.generate()
    raw = _private_bytes(private)
    return raw, _text(private)


def public_of(private: bytes) -> str:
    """The public half, base64 text, of a private key of 32 bytes."""
    return _text(X25519PrivateKey.from_private_bytes(private))


def _text(private: X25519PrivateKey) -> str:
    return base64.b64encode(_public_bytes(private)).decode()


# The library's enums come with parsers of every form that a key may have: a third of its import, on every host. Since
# version 40 raw bytes need none of them.


def _private_bytes(private: X25519PrivateKey) -> bytes:
    if hasattr(private, "private_bytes_raw"):
        return private.private_bytes_raw()
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())


def _public_bytes(private: X25519PrivateKey) -> bytes:
    public = private.public_key()
    if hasattr(public, "public_bytes_raw"):
        return public.public_bytes_raw()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _cipher(shared: bytes, sender: bytes, recipient: bytes) -> ChaCha20Poly1305:
    key = HKDF(hashes.SHA256(), 32, salt=None, info=_INFO + sender + recipient).derive(shared)
    return ChaCha20Poly1305(key)


def seal(value: bytes, recipient: str, context: str) -> str:
    """A box (base64 text) that only the holder of ``recipient``'s private half opens, for this ``context`` only."""
    public = base64.b64decode(recipient)
    sender = X25519PrivateKey.generate()
    sender_public = _public_bytes(sender)
    shared = sender.exchange(X25519PublicKey.from_public_bytes(public))
    box = _cipher(shared, sender_public, public).encrypt(_NONCE, value, context.encode())
    return base64.b64encode(sender_public + box).decode()


def open_box(box: str, private: bytes, context: str) -> bytes:
    """The value in ``box``.

    :raises KeyturnError: ``box-invalid`` when it was made for another host, another context, or was changed.
    """
    refused = KeyturnError(
        "box-invalid", "a sealed value does not open on this host", where=context, hint="Run the same command again"
    )
    try:
        raw = base64.b64decode(box, validate=True)
        mine = X25519PrivateKey.from_private_bytes(private)
        shared = mine.exchange(X25519PublicKey.from_public_bytes(raw[:32]))
        recipient = _public_bytes(mine)
        return _cipher(shared, raw[:32], recipient).decrypt(_NONCE, raw[32:], context.encode())
    except (binascii.Error, ValueError, InvalidTag):
        raise refused from None
