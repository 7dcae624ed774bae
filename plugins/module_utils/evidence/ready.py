# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the next record could be sealed, asked before there is something to put on record."""

from __future__ import annotations

import os

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import private_dir
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import store

__all__ = ["check_ready"]

#: What some records take, with their reports; and their files, where the file system counts them.
_BYTES = 1 << 20
_FILES = 64


def check_ready(directory: str, signing_key: str = "") -> None:
    """Refuse a signing key that does not sign, and a directory that is full or whose head or chains are damaged.

    :raises KeyturnError: what sealing would raise.
    """
    if signing_key:
        from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import load_signer

        try:
            load_signer(signing_key)
        except KeyturnError as error:
            raise KeyturnError(
                error.code,
                f"evidence cannot be signed with this key, which {error.message}",
                where=signing_key,
                hint=f"{error.hint}. Nothing was begun",
            ) from None
    if not os.path.lexists(directory):
        return
    private_dir(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise KeyturnError(
            "evidence-failed", "cannot be written", where=directory, hint="Check its permissions and its file system"
        )
    room = os.statvfs(directory)
    if room.f_bavail * room.f_frsize < _BYTES or (room.f_files and room.f_favail < _FILES):
        raise KeyturnError(
            "evidence-failed", "has no room for the next record", where=directory, hint="Make room. Nothing was begun"
        )
    with store.locked(directory):
        store.check_whole(store.read_head(directory), store.read_chains(directory), directory)
