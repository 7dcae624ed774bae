# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of new data keys away from the hosts that use them: ``<directory>/<NAME>/<rotation_id>.age``, 0600 in 0700.

A host that holds the new version encrypts it for the user's age recipients; what travels and lies there is useless to
anybody without their identity. It is stored before anything uses the key.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import ENDINGS, seal_for
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session, check_name
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import Versions

__all__ = ["ESCROW_OPTIONS", "run"]

#: The argument spec of ``secret_escrow``, without that of the session.
ESCROW_OPTIONS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["sealed", "stored", "kept", "removed"], "required": True},
    "secrets": {"type": "list", "elements": "str", "required": True, "no_log": False},
    "recipients": {"type": "list", "elements": "str", "default": []},
    "directory": {"type": "path"},
    "copies": {"type": "dict", "default": {}},
}
_ENDING = ENDINGS["age"]


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``secret_escrow``."""
    session = Session.from_params(params)
    names = [check_name(name, "secret name") for name in params["secrets"]]
    if params["state"] == "sealed":
        return {"changed": False, "copies": _sealed(session, names, params["recipients"])}
    if params["state"] == "kept":
        damaged = _damaged(session, params["directory"], names) if session.rotation_id else []
        return {"changed": False, "left": _left(params["directory"], names), "damaged": damaged}
    with session.changing(check_mode):
        if params["state"] == "stored":
            return _stored(session, params["directory"], names, params["copies"], check_mode)
        return _removed(session, params["directory"], names, check_mode)


def _sealed(session: Session, names: Sequence[str], recipients: Sequence[str]) -> dict[str, str]:
    """By name the new version as an age file, base64."""
    found = {}
    for name in names:
        version = Versions(session.state_dir, name).load(session.rotation_id)
        if version is None:
            raise KeyturnError("not-staged", "nothing is staged here", where=name, hint="Run from the start")
        found[name] = base64.b64encode(seal_for(version.value(), recipients)).decode()
    return found


def _path(directory: str, name: str, rotation_id: str) -> str:
    return os.path.join(directory, name, check_name(rotation_id, "rotation_id") + _ENDING)


def _stored(
    session: Session, directory: str, names: Sequence[str], copies: Mapping[str, str], check_mode: bool
) -> dict[str, Any]:
    """Write the copies of this rotation that are not there yet, or not whole; each is synced and read again."""
    paths = {name: _path(directory, name, session.rotation_id) for name in names}
    missing = [name for name in names if not _is_whole(paths[name])]
    for name in missing if not check_mode else ():
        try:
            content = base64.b64decode(copies[name], validate=True)
        except (KeyError, ValueError, binascii.Error):
            raise KeyturnError("copy-missing", "no copy came", where=name, hint="Run the same command again") from None
        atomic.private_dir(os.path.dirname(paths[name]))
        atomic.write_file(paths[name], content, 0o600)
        if atomic.read_file(paths[name]) != content:
            raise KeyturnError(
                "copy-failed", "does not hold what was written", where=paths[name], hint="Check the disk"
            )
    return {"changed": bool(missing), "paths": sorted(paths.values())}


def _is_whole(path: str) -> bool:
    """Whether a copy is there, and not empty or cut short."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import age

    return os.path.lexists(path) and age.is_file(atomic.read_file(path))


def _left(directory: str, names: Sequence[str]) -> dict[str, list[str]]:
    """The rotations of which copies are there, by secret."""
    found = {}
    for name in names:
        folder = os.path.join(directory, name)
        files = os.listdir(folder) if os.path.isdir(folder) else []
        found[name] = sorted(file[: -len(_ENDING)] for file in files if file.endswith(_ENDING))
    return found


def _removed(session: Session, directory: str, names: Sequence[str], check_mode: bool) -> dict[str, Any]:
    """Remove the copies of all rotations but this one, whose version is primary now.

    Where the copy of this one is gone or not whole, nothing goes: what it should hold may be opened by nothing else.
    """
    own = check_name(session.rotation_id, "rotation_id")
    known = _left(directory, names)
    damaged = _damaged(session, directory, names)
    gone = [
        _path(directory, name, other)
        for name in names
        for other in known[name]
        if other != own and _path(directory, name, own) not in damaged
    ]
    for path in gone if not check_mode else ():
        atomic.remove_file(path)
    return {"changed": bool(gone), "removed": gone, "left": _left(directory, names), "damaged": damaged}


def _damaged(session: Session, directory: str, names: Sequence[str]) -> list[str]:
    """Where a copy of this rotation should lie and does not, or not whole."""
    return [path for name in names if not _is_whole(path := _path(directory, name, session.rotation_id))]
