# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of the files a rotation changes, and the way back from them.

``<backup_dir>/secrets-backup-YYYYMMDD-HHMMSS[-n]/`` (UTC, 0700) holds each file (0600) and, written last,
``metadata.json`` with ``timestamp``, ``rotated_secrets`` and ``affected_services`` as the format has been from its
beginning, and besides ``schema_version``, ``rotation_id`` and per file its place, checksum, mode and owner. Files below
the project's folder lie at their relative paths, all others where no program takes them for one of the project's. A
backup is made under the name ``<name>.partial`` and takes its own name when it is whole and was opened and compared.

Backups without a ``schema_version`` were made by another program: their files lie at paths relative to a project's
folder, which the caller names as ``root``, and nothing can be checked but that they are there.
"""

from __future__ import annotations

from ansible_collections.keyturn.rotation.plugins.module_utils.backup.call import (
    BACKUP_OPTIONS,
    Place,
    backup_key,
    run,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.listing import contents, find, listing, verify
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.make import create
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.model import (
    SCHEMA_VERSION,
    Backup,
    BackupFile,
    Order,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.names import DEFAULT_FORMAT, check_format
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.restoring import restore
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.retention import Retention, prune

__all__ = [
    "BACKUP_OPTIONS",
    "DEFAULT_FORMAT",
    "SCHEMA_VERSION",
    "Backup",
    "BackupFile",
    "Order",
    "Place",
    "Retention",
    "backup_key",
    "check_format",
    "contents",
    "create",
    "find",
    "listing",
    "prune",
    "restore",
    "run",
    "verify",
]
