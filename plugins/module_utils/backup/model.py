# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.backup.names import DEFAULT_FORMAT, short_name
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import Lock

__all__ = ["METADATA", "SCHEMA_VERSION", "Backup", "BackupFile", "Order"]

SCHEMA_VERSION = 1
METADATA = "metadata.json"


@dataclass(frozen=True)
class BackupFile:
    """One file of a backup.

    :param path: where it belongs on the host, absolute.
    :param copy: where its copy lies in the backup; empty for a file that did not exist then.
    :param sha256: checksum of the copy, hex; empty where the backup has none. It never leaves the backup's folder.
    :param mode: permission bits, or None to keep what is there.
    :param owner: user and group id, or None to keep what is there.
    :param access: the access list beside the mode; None where it had none, or where the backup does not say.
    """

    path: str
    copy: str
    sha256: str = ""
    mode: int | None = None
    owner: tuple[int, int] | None = None
    access: bytes | None = None


@dataclass(frozen=True)
class Backup:
    """One backup.

    :param usable: False for one whose metadata is missing, unreadable or made by a later release.
    :param foreign: whether another program made it: no checksums, no modes, no owners.
    :param encryption: how its copies are encrypted, or empty.
    """

    name: str
    folder: str
    made_at: datetime
    number: int
    usable: bool
    foreign: bool = False
    rotation_id: str = ""
    reason: str = ""
    secrets: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    files: tuple[BackupFile, ...] = ()
    retention_days: int | None = None
    encryption: str = ""

    @property
    def short_name(self) -> str:
        """Its name as people type it."""
        return short_name(self.made_at, self.number)

    def expires(self, retention_days: int | None = None) -> datetime | None:
        """When it may be removed, or None when no retention is known, or no calendar has that day."""
        days = self.retention_days if retention_days is None else retention_days
        try:
            return None if days is None else self.made_at + timedelta(days=days)
        except OverflowError:
            return None

    def summary(self, retention_days: int | None = None) -> dict[str, Any]:
        """What is told of it: nothing from inside the files."""
        expires = self.expires(retention_days)
        return {
            "name": self.name,
            "short_name": self.short_name,
            "path": self.folder,
            "time": self.made_at.isoformat(),
            "rotation_id": self.rotation_id,
            "reason": self.reason,
            "secrets": list(self.secrets),
            "services": list(self.services),
            "files": [file.path for file in self.files],
            "complete": self.usable,
            "foreign": self.foreign,
            "encryption": self.encryption,
            "expires": expires.isoformat() if expires else "",
        }


@dataclass(frozen=True)
class Order:
    """What to back up, how, and what to write down about it.

    :param root: the project's folder: files below it lie at their relative paths.
    :param lock: how copies are encrypted; None for copies in clear.
    :param form: the form of its name, see :mod:`names`.
    :param others: folders with other backups of this host: a name that one has there is not given again.
    """

    files: tuple[str, ...]
    rotation_id: str = ""
    reason: str = ""
    secrets: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    retention_days: int | None = None
    root: str = ""
    lock: Lock | None = None
    form: str = DEFAULT_FORMAT
    others: tuple[str, ...] = ()
