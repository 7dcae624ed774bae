# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a backup: whole, private, and opened once, or not there."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.listing import find, listing, verify
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.model import (
    METADATA,
    SCHEMA_VERSION,
    Backup,
    BackupFile,
    Order,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.names import STAMP, check_format, is_left, name_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import ENDINGS
from ansible_collections.keyturn.rotation.plugins.module_utils.release import RELEASE

__all__ = ["alone", "create"]


@contextlib.contextmanager
def alone(backup_dir: str) -> Iterator[None]:
    """Keep other calls out of the folder; the lock dies with the process."""
    atomic.private_dir(backup_dir)
    handle = os.open(backup_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _reusable(backup_dir: str, order: Order) -> Backup | None:
    """The backup that this rotation has already, when it covers all the files and is sound."""
    for backup in listing(backup_dir, order.root or None, order.form):
        covers = {file.path for file in backup.files} >= set(order.files)
        mine = backup.usable and not backup.reason and backup.rotation_id == order.rotation_id != ""
        if covers and mine and backup.encryption == _type(order):
            with contextlib.suppress(KeyturnError):  # a damaged one is replaced by another
                verify(backup)
                return backup
    return None


def _type(order: Order) -> str:
    return order.lock.type if order.lock else ""


def create(backup_dir: str, order: Order, now: datetime, *, check_mode: bool = False) -> tuple[Backup, bool]:
    """Back files up, unless this rotation has done so already. Returns the backup and whether it is new.

    :raises KeyturnError: ``file-unsafe`` and its like for a file that cannot be backed up; ``backup-failed`` when the
        disk refuses or the copy does not compare: nothing is left behind then.
    """
    check_format(order.form)
    if not order.reason:
        known = _reusable(backup_dir, order)
        if known:
            return known, False
    if check_mode:
        for path in order.files:
            _source(path)
        name = _free_name(backup_dir, order, now)
        made_at = now.astimezone(timezone.utc).replace(microsecond=0)
        files = tuple(BackupFile(path, _copy_name(path, order)) for path in order.files)
        return Backup(name, os.path.join(backup_dir, name), made_at, 0, usable=False, files=files), True
    with alone(backup_dir):
        for left in os.listdir(backup_dir):
            if is_left(left, order.form):
                shutil.rmtree(os.path.join(backup_dir, left))
        name = _free_name(backup_dir, order, now)
        partial = os.path.join(backup_dir, f"{name}.partial")
        try:
            _fill(partial, backup_dir, order, now)
            os.rename(partial, os.path.join(backup_dir, name))
            atomic.fsync_dir(backup_dir)
        except OSError as error:
            raise _failed(backup_dir, f"the backup cannot be written ({error.strerror})") from None
        except KeyturnError as error:
            if error.where.startswith(backup_dir):
                raise _failed(backup_dir, f"the backup cannot be written: {error.message}") from None
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return find(backup_dir, name, order.root or None, order.form), True


def _failed(backup_dir: str, what: str) -> KeyturnError:
    return KeyturnError(
        "backup-failed", what, where=backup_dir, hint="Check space and permissions; nothing was changed"
    )


def _free_name(backup_dir: str, order: Order, now: datetime) -> str:
    folders = (backup_dir, *order.others)
    number = 0
    while any(os.path.lexists(os.path.join(folder, name_of(now, order.form, number))) for folder in folders):
        number += 1
    return name_of(now, order.form, number)


def _copy_name(path: str, order: Order) -> str:
    """Where a file's copy lies: at its path below the project, or apart, under a name that is no dotenv file's.

    A program that takes every ``.env`` of a backup for one of the project's would else put it into the project.
    """
    ending = ENDINGS[order.lock.type] if order.lock else ""
    root = order.root.rstrip("/")
    if root and path.startswith(f"{root}/") and path != f"{root}/{METADATA}":
        return path[len(root) + 1 :] + ending
    if not root:
        return path.lstrip("/") + ending
    folder, name = os.path.split(path)
    return os.path.join("outside", folder.lstrip("/"), f"copy-of-{name}{ending}")


def _source(path: str) -> tuple[bytes, os.stat_result] | None:
    """A file's bytes and status, or None when it does not exist."""
    if not os.path.isabs(path) or os.path.normpath(path) != path or path == f"/{METADATA}":
        raise KeyturnError(
            "file-unsafe", "is no absolute path without dots", where=path, hint="Write the path out in full"
        )
    if not os.path.lexists(path):
        return None
    return atomic.read_file(path), os.lstat(path)


def _fill(folder: str, backup_dir: str, order: Order, now: datetime) -> None:
    """Copy the files, prove that they can be restored, and write the metadata last."""
    os.mkdir(folder, 0o700)
    entries: list[dict[str, Any]] = []
    sources: dict[str, bytes] = {}
    copies: dict[str, str] = {}
    for path in dict.fromkeys(order.files):
        source = _source(path)
        if source is None:
            entries.append({"path": path, "absent": True})
            continue
        content, status = source
        sources[path] = content
        copies[path] = os.path.join(folder, _copy_name(path, order))
        atomic.private_dir(os.path.dirname(copies[path]))
        stored = _store(copies[path], content, order)
        access = atomic.access_list(path)
        entries.append(
            {
                "path": path,
                "absent": False,
                "copy": _copy_name(path, order),
                "sha256": hashlib.sha256(stored).hexdigest(),
                "mode": f"{stat.S_IMODE(status.st_mode):04o}",
                "uid": status.st_uid,
                "gid": status.st_gid,
                **({"acl": base64.b64encode(access).decode()} if access else {}),
            }
        )
    if order.lock:
        _compare(sources)
    else:
        _rehearse(copies, backup_dir, sources)
    metadata = {
        "timestamp": now.astimezone(timezone.utc).strftime(STAMP),
        "rotated_secrets": list(order.secrets),
        "affected_services": list(order.services),
        "schema_version": SCHEMA_VERSION,
        "made_at": now.astimezone(timezone.utc).isoformat(),
        "made_by": f"keyturn.rotation {RELEASE}",
        "rotation_id": order.rotation_id,
        "reason": order.reason,
        "retention_days": order.retention_days,
        "root": order.root,
        "encryption": _type(order),
        "files": entries,
    }
    atomic.write_file(os.path.join(folder, METADATA), (json.dumps(metadata, indent=2) + "\n").encode(), 0o600)


def _store(copy: str, content: bytes, order: Order) -> bytes:
    """Write one copy, encrypted where that is asked for and then read back and opened; returns what lies there."""
    if order.lock is None:
        atomic.write_file(copy, content, 0o600)
        return content
    sealed, proof = order.lock.seal(content)
    atomic.write_file(copy, sealed, 0o600)
    if not order.lock.proves(atomic.read_file(copy), proof, content):
        raise KeyturnError("backup-failed", "does not open again", where=copy, hint="Check the disk")
    return sealed


def _compare(sources: Mapping[str, bytes]) -> None:
    """Refuse where a file is no longer what was read."""
    for path, content in sources.items():
        if atomic.read_file(path) != content:
            raise _differs(path)


def _differs(path: str) -> KeyturnError:
    return KeyturnError(
        "backup-failed",
        "was changed while it was backed up, or its copy differs",
        where=path,
        hint="Find out who writes to it, then run the same command again",
    )


def _rehearse(copies: Mapping[str, str], backup_dir: str, sources: Mapping[str, bytes]) -> None:
    """Restore into a scratch folder and compare, byte for byte, with what was read and with what is there now."""
    scratch = os.path.join(backup_dir, f".scratch-{secrets.token_hex(8)}")
    os.mkdir(scratch, 0o700)
    try:
        for path, content in sources.items():
            target = os.path.join(scratch, path.lstrip("/"))
            atomic.private_dir(os.path.dirname(target))
            atomic.write_file(target, atomic.read_file(copies[path]), 0o600)
            if atomic.read_file(target) != content:
                raise _differs(path)
        _compare(sources)
    finally:
        shutil.rmtree(scratch)
