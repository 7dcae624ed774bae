# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in the format of ansible-vault (1.1, AES256), on hosts that have no Ansible.

PBKDF2-HMAC-SHA256 (10000 rounds) gives the key of AES-256-CTR, the key of HMAC-SHA256, and the counter's start. What is
written here opens with ``ansible-vault decrypt``. Source: the vault's format in Ansible's user guide.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

try:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["decrypt", "encrypt"]

_HEADER = b"$ANSIBLE_VAULT;1.1;AES256"
_HEADS = (b"$ANSIBLE_VAULT;1.1;AES256", b"$ANSIBLE_VAULT;1.2;AES256")
_ROUNDS = 10_000
_SALT_BYTES = 32
_BLOCK = 16
_COLUMNS = 80


def _keys(password: bytes, salt: bytes) -> tuple[bytes, bytes, bytes]:
    material = hashlib.pbkdf2_hmac("sha256", password, salt, _ROUNDS, 80)
    return material[:32], material[32:64], material[64:]


def _stream(key: bytes, start: bytes, content: bytes) -> bytes:
    cipher = Cipher(AES(key), CTR(start)).encryptor()
    return cipher.update(content) + cipher.finalize()


def encrypt(content: bytes, password: bytes, randbytes: Callable[[int], bytes]) -> bytes:
    """A vault file that holds ``content``."""
    salt = randbytes(_SALT_BYTES)
    key, mac_key, start = _keys(password, salt)
    padding = _BLOCK - len(content) % _BLOCK
    sealed = _stream(key, start, content + bytes([padding]) * padding)
    mac = hmac.new(mac_key, sealed, hashlib.sha256).digest()
    text = binascii.hexlify(b"\n".join(binascii.hexlify(part) for part in (salt, mac, sealed)))
    lines = [text[place : place + _COLUMNS] for place in range(0, len(text), _COLUMNS)]
    return b"\n".join([_HEADER, *lines]) + b"\n"


def decrypt(content: bytes, password: bytes) -> bytes:
    """What a vault file holds.

    :raises KeyturnError: ``vault-damaged`` for what is none, ``password-wrong`` for another password or a changed file.
    """
    head, _newline, text = content.partition(b"\n")
    try:
        if not head.strip().startswith(_HEADS):
            raise ValueError
        salt, mac, sealed = (
            binascii.unhexlify(part) for part in binascii.unhexlify(b"".join(text.split())).split(b"\n", 2)
        )
    except ValueError:  # also binascii.Error
        raise KeyturnError(
            "vault-damaged", "is no file of ansible-vault", hint="Choose another backup; nothing was changed"
        ) from None
    key, mac_key, start = _keys(password, salt)
    if not hmac.compare_digest(hmac.new(mac_key, sealed, hashlib.sha256).digest(), mac):
        raise KeyturnError(
            "password-wrong",
            "does not open with this vault password, or was changed",
            hint="Give the password it was made with",
        )
    plain = _stream(key, start, sealed)
    return plain[: -plain[-1]] if plain else plain
