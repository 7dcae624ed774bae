# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ed25519 signatures (RFC 8032) over the bytes of ``evidence.json``; the key never leaves its file."""

from __future__ import annotations

import base64
import binascii
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import check_plain_file, read_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )
except ImportError:
    if TYPE_CHECKING:
        raise
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

__all__ = ["HAS_CRYPTOGRAPHY", "Signer", "load_public_key", "load_signer", "public_pem", "signature_holds"]

_RAW = 32


def _need_library() -> None:
    if not HAS_CRYPTOGRAPHY:
        raise KeyturnError(
            "library-missing",
            "signatures need the Python library cryptography",
            hint="Install python3-cryptography on this host",
        )


@dataclass(frozen=True)
class Signer:
    """Signs records.

    :param public_key: base64 of the 32 bytes of the public half.
    :param public_pem: the same as PEM, for OpenSSL.
    """

    _private: Ed25519PrivateKey
    public_key: str
    public_pem: bytes

    def sign(self, raw: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._private.sign(raw)


def load_signer(path: str) -> Signer:
    """The key in a file of mode 0600: a PEM without passphrase, or 32 raw bytes.

    :raises KeyturnError: ``signing-key-open`` when others can read it, ``signing-key-invalid``, ``library-missing``.
    """
    _need_library()
    if stat.S_IMODE(check_plain_file(path).st_mode) & 0o077:
        raise KeyturnError(
            "signing-key-open", "other users can read this signing key", where=path, hint="Set its mode to 0600"
        )
    raw = read_file(path)
    try:
        private = Ed25519PrivateKey.from_private_bytes(raw) if len(raw) == _RAW else load_pem_private_key(raw, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyturnError(
            "signing-key-invalid",
            "is not an Ed25519 private key without passphrase",
            where=path,
            hint="Make one with: openssl genpkey -algorithm ed25519",
        )
    public = private.public_key()
    return Signer(
        private,
        base64.b64encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode(),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def load_public_key(path: str) -> str:
    """The public key in a file (PEM, 32 raw bytes or their base64) as base64 of 32 bytes.

    :raises KeyturnError: ``public-key-invalid``, ``library-missing``.
    """
    _need_library()
    raw = read_file(path)
    if len(raw) != _RAW and b"-----" in raw:
        try:
            public = load_pem_public_key(raw)
        except (ValueError, UnsupportedAlgorithm):
            public = None
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw) if isinstance(public, Ed25519PublicKey) else b""
    elif len(raw) != _RAW:
        try:
            raw = base64.b64decode(raw.strip(), validate=True)
        except binascii.Error:
            raw = b""
    if len(raw) != _RAW:
        raise KeyturnError(
            "public-key-invalid",
            "is not an Ed25519 public key",
            where=path,
            hint="Name the public half: openssl pkey -in KEY -pubout",
        )
    return base64.b64encode(raw).decode()


def public_pem(public_key: str) -> bytes:
    """A public key (base64 of 32 bytes) as PEM, for OpenSSL; empty when it is none."""
    _need_library()
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
    except ValueError:
        return b""
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signature_holds(public_key: str, signature: bytes, raw: bytes) -> bool:
    """Whether this key (base64 of 32 bytes) signed these bytes."""
    _need_library()
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True)).verify(signature, raw)
    except (ValueError, InvalidSignature):
        return False
    return True
