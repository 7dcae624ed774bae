# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the catalog says about backups to the arguments of ``secret_backup`` and ``secret_info`` on one host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import bring, public_key

__all__ = ["from_backup", "newest_with", "vault_password", "with_policy"]

_CREATING = ("created", "restored")
_IN_PROJECT = "backups/secrets"


def vault_password(loader: Any, vault_id: str = "") -> bytes | None:
    """A vault password that Ansible was given for this run: the one of that id, else the first."""
    known = getattr(getattr(loader, "_vault", None), "secrets", None) or []
    for name, secret in known:
        if vault_id in ("", name):
            password = getattr(secret, "bytes", None)
            return password if isinstance(password, bytes) else None
    return None


def _key(encrypt: Mapping[str, Any], templar: Any, loader: Any, task_vars: Mapping[str, Any]) -> bytes | None:
    """What the catalog names as key, else Ansible's own vault password."""
    if encrypt.get("key_from"):
        return bring(encrypt["key_from"], templar, task_vars, "keyturn_backup.encrypt.key_from")
    if encrypt.get("type") == "ansible_vault":
        return vault_password(loader, str(encrypt.get("vault_id") or ""))
    return None


def _place(policy: Mapping[str, Any], project: str) -> dict[str, Any]:
    directory = policy["directory"] or (_IN_PROJECT if project else "")
    place = {"backup_dir": directory, "root": project, "filename_format": policy["filename_format"]}
    return {name: value for name, value in place.items() if value}


def _box(value: bytes, what: str, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, str]:
    context = f"{arguments.get('rotation_id') or ''}/backup/{what}"
    return {"sealed": sealed.seal(value, public_key(task_vars), context)}


def _opening(
    arguments: dict[str, Any], policy: Mapping[str, Any], templar: Any, loader: Any, task_vars: Mapping[str, Any]
) -> dict[str, Any]:
    """The key of an encrypted backup: the file that was named for this run, or what the catalog names."""
    key_file = arguments.pop("key_file", "")
    if not arguments.pop("encrypted", ""):
        return {}
    source = {"key_from": {"file": key_file}} if key_file else policy["encrypt"]
    key = _key(source, templar, loader, task_vars)
    return {"key": _box(key, "key", arguments, task_vars)} if key else {}


def with_policy(
    arguments: Mapping[str, Any], templar: Any, loader: Any, task_vars: Mapping[str, Any]
) -> dict[str, Any]:
    """The module's arguments, with the policy's fields in place of ``policy``, ``project`` and ``key_file``.

    Without ``policy`` the arguments are the module's own and stay as they are.

    :raises KeyturnError: ``backup-key-missing`` where backups are to be encrypted and no password is there.
    """
    filled = dict(arguments)
    policy = filled.pop("policy", None)
    if policy is None:
        return filled
    filled.update(_place(policy, str(filled.pop("project", "") or "")))
    filled.update(_opening(filled, policy, templar, loader, task_vars))
    filled.update({name: policy[name] for name in ("retention_days", "keep", "gitignore")})
    encrypt = policy["encrypt"]
    if encrypt and filled.get("state") in _CREATING:
        filled["encrypt"] = {"type": encrypt["type"], "recipients": list(encrypt.get("recipients") or ())}
        if encrypt["type"] == "ansible_vault":
            password = (_key(encrypt, templar, loader, task_vars) or b"").strip()  # as Ansible reads its own
            if not password:
                raise KeyturnError(
                    "backup-key-missing",
                    "there is no vault password to encrypt with",
                    where="keyturn_backup.encrypt",
                    hint="Give Ansible one (--vault-id, --vault-password-file), or name it with key_from",
                )
            filled["encrypt"]["key"] = _box(password, "encrypt", filled, task_vars)
    return filled


def from_backup(
    arguments: dict[str, Any], templar: Any, loader: Any, task_vars: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The option ``backup`` of ``secret_info``; None where no backup is looked into. Its inputs are taken out."""
    policy, project = arguments.pop("policy"), str(arguments.pop("project", "") or "")
    name = arguments.pop("backup", None)
    opening = _opening(arguments, policy, templar, loader, task_vars)
    return {"name": name, **_place(policy, project), **opening} if name else None


def newest_with(backups: Iterable[Mapping[str, Any]], message: str) -> str:
    """The folder of the newest sound backup that holds the file which an error is about; empty where none does.

    :param backups: as ``secret_backup`` lists them, the oldest first.
    :param message: ``<path>: ...``, as an error's text begins.
    """
    sound = [
        backup
        for backup in backups
        if backup["complete"]
        and backup["checksums"] != "wrong"
        and not backup["reason"]
        and any(message.startswith(f"{path}: ") for path in backup["files"])
    ]
    if not sound:
        return ""
    return str(sound[-1]["path"]) + (f" ({sound[-1]['encryption']})" if sound[-1]["encryption"] else "")
