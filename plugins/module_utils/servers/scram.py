# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verifier that PostgreSQL keeps of a password, made here, so that the password itself is in no statement."""

from __future__ import annotations

import base64
import hashlib
import hmac

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["ITERATIONS", "SALT_BYTES", "check_password", "verifier"]

#: What a server takes that has no setting ``scram_iterations`` (before PostgreSQL 16).
ITERATIONS = 4096
SALT_BYTES = 16


def check_password(password: bytes, where: str) -> bytes:
    """The password, where its bytes mean the same to everybody.

    SASLprep (RFC 4013) leaves printable ASCII as it is. Anything else would be normalised by some clients and not by
    others, so it is refused.

    :raises KeyturnError: ``password-unusable``.
    """
    if not password or any(not 0x20 <= byte <= 0x7E for byte in password):
        raise KeyturnError(
            "password-unusable",
            "a password of a server must be printable ASCII",
            where=where,
            hint="Let it be generated: {type: string, length: 32, charset: alnum}",
        )
    return password


def verifier(password: bytes, salt: bytes, iterations: int) -> str:
    """``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`` (RFC 5802 section 3, RFC 7677; base64).

    :param password: printable ASCII, see :func:`check_password`.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client_key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    server_key = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    stored_key = hashlib.sha256(client_key).digest()
    text = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"
