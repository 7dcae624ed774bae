# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are encrypted at rest, in formats that people's own tools open: ansible-vault and age.

Every backup comes here, and few are encrypted: the formats are imported where one is used, since a host compiles what a
module imports in every execution.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["ENDINGS", "Lock", "seal_for", "unlock"]

#: What the names of encrypted copies end with.
ENDINGS = {"age": ".age", "ansible_vault": ".vault"}


@dataclass(frozen=True)
class Lock:
    """How copies are encrypted.

    :param type: ``age`` or ``ansible_vault``.
    :param recipients: public keys, for age.
    :param password: for ansible-vault.
    """

    type: str
    recipients: tuple[str, ...] = ()
    password: bytes = b""

    def seal(self, content: bytes, randbytes: Callable[[int], bytes] = os.urandom) -> tuple[bytes, bytes]:
        """The encrypted file, and what :meth:`proves` opens it with."""
        if self.type == "age":
            from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import age

            return age.encrypt(content, self.recipients, randbytes)
        from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import vault

        return vault.encrypt(content, self.password, randbytes), self.password

    def proves(self, sealed: bytes, proof: bytes, content: bytes) -> bool:
        """Whether an encrypted file, read back, holds this content."""
        from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import age, vault

        opened = age.open_payload(sealed, proof) if self.type == "age" else vault.decrypt(sealed, proof)
        return hmac.compare_digest(opened, content)


def unlock(type_: str, sealed: bytes, key: bytes | None, where: str) -> bytes:
    """What an encrypted file holds.

    :param key: the text of an identity file (age), or the vault password.
    :raises KeyturnError: ``backup-key-missing``; what the formats raise, with the place.
    """
    if key is None:
        raise KeyturnError(
            "backup-key-missing",
            f"is encrypted with {type_}",
            where=where,
            hint="Name its key with keyturn_backup_key: a file on the controller with the identity or the password",
        )
    from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import age

    try:
        if type_ == "age":
            return age.decrypt(sealed, key.decode("utf-8", "replace"))
        if type_ == "ansible_vault":
            return _with_password(sealed, key)
    except KeyturnError as error:
        raise KeyturnError(error.code, error.message, where=where, hint=error.hint) from None
    raise KeyturnError(
        "backup-unusable",
        f"is encrypted in a way that is not known: {type_!r}",
        where=where,
        hint="Use a later release",
    )


def _with_password(sealed: bytes, password: bytes) -> bytes:
    """Open with a password as Ansible reads it, without blanks around it; else as it stands, as it once was taken."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import vault

    try:
        return vault.decrypt(sealed, password.strip())
    except KeyturnError as error:
        if error.code != "password-wrong" or password == password.strip():
            raise
    return vault.decrypt(sealed, password)


def seal_for(content: bytes, recipients: Sequence[str], randbytes: Callable[[int], bytes] = os.urandom) -> bytes:
    """An age file for these recipients, opened once before it is returned."""
    lock = Lock("age", tuple(recipients))
    sealed, proof = lock.seal(content, randbytes)
    if not lock.proves(sealed, proof, content):
        raise KeyturnError("age-damaged", "does not open again", hint="Run the same command again")
    return sealed
