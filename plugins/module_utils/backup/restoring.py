# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back: all files of a backup, or none."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from datetime import datetime

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.listing import contents
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.make import create
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.model import Backup, BackupFile, Order
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Workspace

__all__ = ["restore"]


def restore(
    backup: Backup,
    backup_dir: str,
    safety: Order,
    now: datetime,
    *,
    key: bytes | None = None,
    check_mode: bool = False,
) -> tuple[list[str], str]:
    """Bring all files of a backup back, or none; what they replace is backed up first.

    :param safety: how what is replaced is backed up; its files, reason, secrets and services are filled in here.
    :param key: what opens an encrypted backup.
    :returns: the paths that changed, and the name of the backup of what they held before (empty when nothing changed).
    :raises KeyturnError: ``backup-unsafe``, ``backup-damaged``, ``write-failed``; nothing was changed then.
    """
    wanted = contents(backup, key)
    workspace = Workspace()
    for path, content in wanted.items():
        workspace.write(path, content)
    restyled = [file for file in backup.files if not _styled(file) and wanted[file.path] is not None]
    changed = sorted({*workspace.changes, *(file.path for file in restyled)})
    if check_mode or not changed:
        return changed, ""
    order = replace(
        safety,
        files=tuple(wanted),
        reason=f"before restoring {backup.name}",
        secrets=backup.secrets,
        services=backup.services,
    )
    made, _new = create(backup_dir, order, now)
    for path in workspace.changes:
        if not os.path.isdir(os.path.dirname(path)):
            atomic.private_dir(os.path.dirname(path))
    workspace.commit()
    for file in backup.files:
        if wanted[file.path] is not None and not _styled(file):
            _style(file)
    return changed, made.name


def _styled(file: BackupFile) -> bool:
    """Whether mode, owner and access list are as the backup has them; a file that is not there has none."""
    if file.mode is None or file.owner is None or not os.path.lexists(file.path):
        return True
    status = os.lstat(file.path)
    same = stat.S_IMODE(status.st_mode) == file.mode and (status.st_uid, status.st_gid) == file.owner
    return same and file.access in (None, atomic.access_list(file.path))


def _style(file: BackupFile) -> None:
    """Set mode, owner and access list, through the file itself and never through a link."""
    if file.mode is None or file.owner is None:
        return
    handle = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(handle, *file.owner)
        if file.access is not None:  # first: without it the mode's bits of the group would be the group's own
            os.setxattr(handle, atomic.ACCESS_LIST, file.access)
        os.fchmod(handle, file.mode)
    except OSError as error:
        raise KeyturnError(
            "owner-not-restored",
            f"has its content back, but not its mode {file.mode:04o} and owner ({error.strerror})",
            where=file.path,
            hint="Set them by hand, or run as root",
        ) from None
    finally:
        os.close(handle)
