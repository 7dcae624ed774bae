# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalog says about copies that are kept: backups, and new data keys in escrow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.backup.names import DEFAULT_FORMAT, check_format
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt.age import check_recipients
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape

__all__ = ["KEEPING", "backup_policy", "escrow_policy"]

#: From a group, a host or a list of them to sorted host names; the second argument is the place in the catalog.
Resolve = Callable[[Any, str], "list[str]"]

_DEFAULTS: dict[str, Any] = {
    "directory": "",
    "retention_days": 90,
    "keep": 5,
    "filename_format": DEFAULT_FORMAT,
    "gitignore": True,
    "encrypt": {},
}
_SOURCES = ("file", "env", "variable")


_SOURCE = Shape(
    "where a key comes from, on the controller",
    {
        "file": Field("str", "A file of mode 0600 on the controller"),
        "env": Field("str", "A variable of the controller's environment"),
        "variable": Field("str", "An Ansible variable (vaulted)"),
    },
)
_ENCRYPT = Shape(
    "encryption of backups",
    {
        "type": Field("str", "The format", required=True, choices=("age", "ansible_vault")),
        "recipients": Field("list", "Public keys of age; the identity is not needed to back up"),
        "vault_id": Field("str", "Which of Ansible's vault passwords; the first by default"),
        "key_from": Field("map", "Where the vault password is, or for a restore the age identity", shape=_SOURCE),
    },
)
_BACKUP = Shape(
    "backups",
    {
        "directory": Field(
            "str", "Where backups lie: absolute, or in the project's folder (keyturn_project_dir); backups/secrets"
        ),
        "retention_days": Field("int", "After how many days a backup goes; 90 by default", minimum=0),
        "keep": Field("int", "How many backups of a secret stay; 5 by default, 0 for no limit", minimum=0),
        "filename_format": Field("str", "The form of their names, with %Y %m %d %H %M %S"),
        "encrypt": Field("map", "How copies are encrypted; in clear by default", shape=_ENCRYPT),
        "gitignore": Field("bool", "Whether a folder in a work tree tells git to ignore it; yes by default"),
    },
)
_ESCROW = Shape(
    "escrow of new data keys",
    {
        "hosts": Field("str|list", "Where the copies lie: hosts of the inventory", required=True),
        "directory": Field("str", "An absolute path there", required=True, pattern=r"^/"),
        "recipients": Field("list", "Public keys of age that open the copies", required=True),
        "at_retire": Field(
            "str",
            "What becomes of the copy of the version that is retired; keep by default",
            choices=("keep", "remove"),
        ),
    },
)
#: The shapes by the variable they describe; unlike others these variables hold one entry, not entries by name.
KEEPING: dict[str, Shape] = {"keyturn_backup": _BACKUP, "keyturn_escrow": _ESCROW}


def backup_policy(value: Any) -> dict[str, Any]:
    """How backups are made and kept: every field, with its default where it is not given.

    :param value: ``keyturn_backup``.
    :raises KeyturnError: ``catalog-invalid``, ``format-invalid``, ``recipient-invalid``.
    """
    if isinstance(value, str):
        raise KeyturnError(
            "catalog-invalid",
            "says how backups are kept",
            where="keyturn_backup",
            hint="The backup to restore is named with keyturn_restore",
        )
    given = value or {}
    KEEPING["keyturn_backup"].check(given, "keyturn_backup")
    policy = {**_DEFAULTS, **given}
    check_format(policy["filename_format"], "keyturn_backup.filename_format")
    if ".." in policy["directory"].split("/"):
        raise KeyturnError(
            "catalog-invalid", "has dots in it", where="keyturn_backup.directory", hint="Write the path out"
        )
    encrypt = policy["encrypt"]
    if encrypt.get("type") == "age":
        check_recipients(encrypt.get("recipients") or (), "keyturn_backup.encrypt.recipients")
    if "key_from" in encrypt and len(encrypt["key_from"]) != 1:
        raise KeyturnError(
            "catalog-invalid",
            "must name exactly one source",
            where="keyturn_backup.encrypt.key_from",
            hint=", ".join(_SOURCES),
        )
    return policy


def escrow_policy(value: Any, resolve: Resolve) -> dict[str, Any]:
    """Where copies of new data keys go; empty where nowhere.

    :param value: ``keyturn_escrow``.
    :raises KeyturnError: ``catalog-invalid``, ``recipient-invalid``, ``host-unknown``.
    """
    if not value:
        return {}
    KEEPING["keyturn_escrow"].check(value, "keyturn_escrow")
    check_recipients(value["recipients"], "keyturn_escrow.recipients")
    given: Mapping[str, Any] = {"at_retire": "keep", **value}
    return {**given, "hosts": resolve(given["hosts"], "keyturn_escrow.hosts")}
