# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every folder in which a host has made backups: the catalog may name another one since, and they hold what they hold.

``<state_dir>/backup-folders.json`` is a list of pairs, a folder and the project's folder that its backups belong to.
"""

from __future__ import annotations

import json
import os
from typing import Optional

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Folder", "earlier_folders", "remember"]

_FILE = "backup-folders.json"
#: A folder, and the project's folder or None.
Folder = tuple[str, Optional[str]]


def _known(state_dir: str) -> list[Folder]:
    path = os.path.join(state_dir, _FILE)
    if not os.path.lexists(path):
        return []
    try:
        return [(str(folder), root) for folder, root in json.loads(atomic.read_file(path))]
    except (ValueError, TypeError):
        hint = "Move it away; then backups are looked for where the catalog says they lie, and nowhere else"
        raise KeyturnError("backup-folders-damaged", "is not what was written to it", where=path, hint=hint) from None


def earlier_folders(state_dir: str, folder: str) -> list[Folder]:
    """Those that are there, besides ``folder``.

    :raises KeyturnError: ``backup-folders-damaged``.
    """
    here = os.path.realpath(folder)
    return [known for known in _known(state_dir) if known[0] != here and os.path.isdir(known[0])]


def remember(state_dir: str, folder: str, root: str | None) -> None:
    """Note a folder before the first backup is made in it."""
    known = _known(state_dir)
    here = os.path.realpath(folder)
    if here in (there for there, _root in known):
        return
    atomic.private_dir(state_dir)
    atomic.write_file(os.path.join(state_dir, _FILE), json.dumps([*known, (here, root)]).encode() + b"\n", 0o600)
