# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups there are, what they hold, and whether that is what was put in."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.folders import Folder
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.model import (
    METADATA,
    SCHEMA_VERSION,
    Backup,
    BackupFile,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.names import (
    DEFAULT_FORMAT,
    STAMP,
    is_partial,
    time_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import unlock

__all__ = ["checksums", "choose", "contents", "find", "listing", "listings", "verify"]


def listing(backup_dir: str, root: str | None = None, form: str = DEFAULT_FORMAT) -> list[Backup]:
    """All backups, the oldest first. Half-made ones are not among them.

    One of ours whose name is of another form, which the catalog had before, says in its metadata when it was made.

    :param root: the folder to which backups of another program belong; without it those are listed as not usable.
    """
    if not os.path.isdir(backup_dir):
        return []
    found = []
    for name in os.listdir(backup_dir):
        folder = os.path.join(backup_dir, name)
        if os.path.islink(folder) or not os.path.isdir(folder):
            continue
        when = time_of(name, form) or _stamped(name, folder)
        if when:
            found.append(_read(Backup(name, folder, *when, usable=False), root))
    return sorted(found, key=_age)


def listings(places: Iterable[Folder], form: str = DEFAULT_FORMAT) -> list[Backup]:
    """The backups of several folders, the oldest first."""
    found = [backup for folder, root in places for backup in listing(folder, root, form)]
    return sorted(found, key=_age)


def _age(backup: Backup) -> tuple[datetime, int, str]:
    return backup.made_at, backup.number, backup.name


def _stamped(name: str, folder: str) -> tuple[datetime, int] | None:
    """When a backup of ours was made whose name tells nothing; None for what is none, or not whole."""
    if name.startswith(".") or is_partial(name):
        return None
    try:
        metadata = json.loads(atomic.read_file(os.path.join(folder, METADATA)))
        made_at = datetime.strptime(metadata["timestamp"], STAMP).replace(tzinfo=timezone.utc)
        return (made_at, 0) if "schema_version" in metadata else None
    except (KeyturnError, ValueError, KeyError, TypeError):
        return None


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(value)


def _read(unusable: Backup, root: str | None) -> Backup:
    """One backup from its folder; never fails, a damaged one is not usable."""
    path = os.path.join(unusable.folder, METADATA)
    try:
        if not os.path.lexists(path):
            return _foreign(unusable, {}, root)
        metadata = json.loads(atomic.read_file(path))
        if not isinstance(metadata, dict):
            return unusable
        if "schema_version" not in metadata:
            return _foreign(unusable, metadata, root)
        days, made_at = metadata["retention_days"], datetime.fromisoformat(metadata["made_at"])
        if metadata["schema_version"] != SCHEMA_VERSION or not (days is None or isinstance(days, int)):
            return unusable
        return replace(
            unusable,
            usable=True,
            made_at=made_at.astimezone(timezone.utc).replace(microsecond=0),
            rotation_id=str(metadata["rotation_id"]),
            reason=str(metadata["reason"]),
            secrets=_texts(metadata["rotated_secrets"]),
            services=_texts(metadata["affected_services"]),
            files=tuple(_file(entry) for entry in metadata["files"]),
            retention_days=days,
            encryption=str(metadata.get("encryption") or ""),
        )
    except (KeyturnError, ValueError, KeyError, TypeError):
        return unusable


def _file(entry: Mapping[str, Any]) -> BackupFile:
    if entry["absent"]:
        return BackupFile(str(entry["path"]), "")
    owner = (int(entry["uid"]), int(entry["gid"]))
    access = base64.b64decode(entry["acl"], validate=True) if entry.get("acl") else None
    mode = int(str(entry["mode"]), 8)
    return BackupFile(str(entry["path"]), str(entry["copy"]), str(entry["sha256"]), mode, owner, access)


def _foreign(backup: Backup, metadata: Mapping[str, Any], root: str | None) -> Backup:
    """A backup of another program: every file but the metadata, at its path below ``root``."""
    files = []
    for folder, folders, names in os.walk(backup.folder):
        folders.sort()
        for name in sorted(names):
            copy = os.path.relpath(os.path.join(folder, name), backup.folder)
            if copy != METADATA:
                files.append(BackupFile(os.path.join(root, copy) if root else copy, copy))
    return replace(
        backup,
        usable=bool(root and files),
        foreign=True,
        secrets=_texts(metadata.get("rotated_secrets", [])),
        services=_texts(metadata.get("affected_services", [])),
        files=tuple(files),
    )


def find(backup_dir: str, name: str, root: str | None = None, form: str = DEFAULT_FORMAT) -> Backup:
    """One usable backup by its name, by its time (``20251031-143000``), or the ``latest``.

    :raises KeyturnError: ``backup-missing``, ``backup-unusable``.
    """
    return choose(listing(backup_dir, root, form), name, backup_dir)


def choose(known: Sequence[Backup], name: str, backup_dir: str) -> Backup:
    """One of these backups, the oldest first; see :func:`find`."""
    if name == "latest":
        usable = [backup for backup in known if backup.usable and not backup.reason]
        if usable:
            return usable[-1]
    for backup in known:
        if name in (backup.name, backup.short_name):
            if backup.usable:
                return backup
            raise KeyturnError(
                "backup-unusable",
                "is not complete, or was made by another program",
                where=backup.folder,
                hint="Choose another backup; for one that another program made, name the project's folder "
                "(keyturn_project_dir) that its files belong to",
            )
    raise KeyturnError(
        "backup-missing", f"has no usable backup {name}", where=backup_dir, hint="List the backups to see their names"
    )


def _copies(backup: Backup) -> dict[str, bytes | None]:
    """Each copy as it lies in the backup, by the path it belongs to; None for a file that did not exist.

    :raises KeyturnError: ``backup-unsafe`` for a path that leads elsewhere, ``backup-damaged`` for a wrong checksum.
    """
    found: dict[str, bytes | None] = {}
    base = os.path.realpath(backup.folder)
    for file in backup.files:
        if not os.path.isabs(file.path) or os.path.normpath(file.path) != file.path or file.path.startswith("//"):
            raise _unsafe(backup, file.path)
        if not file.copy:
            found[file.path] = None
            continue
        copy = os.path.join(base, file.copy)
        if os.path.isabs(file.copy) or os.path.normpath(copy) != copy or os.path.realpath(copy) != copy:
            raise _unsafe(backup, file.copy)
        if not copy.startswith(base + os.sep):
            raise _unsafe(backup, file.copy)
        try:
            content = atomic.read_file(copy)
        except KeyturnError as error:
            raise _damaged(backup, file.path, error.message) from None
        if file.sha256 and hashlib.sha256(content).hexdigest() != file.sha256:
            raise _damaged(backup, file.path, "does not have the checksum it was made with")
        found[file.path] = content
    return found


def contents(backup: Backup, key: bytes | None = None) -> dict[str, bytes | None]:
    """What each file shall hold, checked; None for one that did not exist.

    :param key: what opens the copies of an encrypted backup.
    :raises KeyturnError: ``backup-unsafe``, ``backup-damaged``, ``backup-key-missing``, and what opening raises.
    """
    copies = _copies(backup)
    if not backup.encryption:
        return copies
    return {
        path: None if copy is None else unlock(backup.encryption, copy, key, backup.folder)
        for path, copy in copies.items()
    }


def _unsafe(backup: Backup, path: str) -> KeyturnError:
    return KeyturnError(
        "backup-unsafe",
        f"names a path that leads out of its place: {path!r}",
        where=backup.folder,
        hint="Somebody changed this backup. Choose another one",
    )


def _damaged(backup: Backup, path: str, why: str) -> KeyturnError:
    return KeyturnError(
        "backup-damaged",
        f"the copy of {path} {why}",
        where=backup.folder,
        hint="Choose another backup; nothing was changed",
    )


def verify(backup: Backup) -> None:
    """Check every copy against its checksum; encrypted ones need no key for that.

    :raises KeyturnError: ``backup-unsafe``, ``backup-damaged``.
    """
    _copies(backup)


def checksums(backup: Backup) -> str:
    """``ok``, ``wrong``, or ``none`` where the backup has none to compare with."""
    try:
        verify(backup)
    except KeyturnError:
        return "wrong"
    return "ok" if backup.usable and not backup.foreign else "none"
