# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of the files a rotation changes, and the way back from them.

``<backup_dir>/secrets-backup-YYYYMMDD-HHMMSS[-n]/`` (UTC, 0700) holds each file (0600) at its path and, written last,
``metadata.json`` with ``timestamp``, ``rotated_secrets`` and ``affected_services`` as the format has been from its
beginning, and besides ``schema_version``, ``rotation_id`` and per file its checksum, mode and owner. A backup is made
under the name ``<name>.partial`` and takes its own name when it is whole and was restored once into a scratch folder.

Backups without a ``schema_version`` were made by another program: their files lie at paths relative to a project's
folder, which the caller names as ``root``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import Versions

__all__ = [
    "SCHEMA_VERSION",
    "Backup",
    "BackupFile",
    "Order",
    "create",
    "find",
    "listing",
    "prune",
    "restore",
    "run",
    "verify",
]

SCHEMA_VERSION = 1
_METADATA = "metadata.json"
_NAME = re.compile(r"secrets-backup-(?P<stamp>\d{8}-\d{6})(?:-(?P<number>\d{1,4}))?")
_LEFT = re.compile(r"secrets-backup-\d{8}-\d{6}(?:-\d{1,4})?\.partial|\.scratch-[0-9a-f]{16}")
_STAMP = "%Y%m%d-%H%M%S"


@dataclass(frozen=True)
class BackupFile:
    """One file of a backup.

    :param path: where it belongs on the host, absolute.
    :param copy: where its copy lies in the backup; empty for a file that did not exist then.
    :param sha256: checksum of the copy, hex; empty where the backup has none. It never leaves the backup's folder.
    :param mode: permission bits, or None to keep what is there.
    :param owner: user and group id, or None to keep what is there.
    """

    path: str
    copy: str
    sha256: str = ""
    mode: int | None = None
    owner: tuple[int, int] | None = None


@dataclass(frozen=True)
class Backup:
    """One backup; ``usable`` is False for one whose metadata is missing, unreadable or made by a later release."""

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

    def expires(self, retention_days: int | None = None) -> datetime | None:
        """When it may be removed, or None when no retention is known."""
        days = self.retention_days if retention_days is None else retention_days
        return None if days is None else self.made_at + timedelta(days=days)

    def summary(self, retention_days: int | None = None) -> dict[str, Any]:
        """What is told of it: nothing from inside the files."""
        expires = self.expires(retention_days)
        return {
            "name": self.name,
            "path": self.folder,
            "time": self.made_at.isoformat(),
            "rotation_id": self.rotation_id,
            "reason": self.reason,
            "secrets": list(self.secrets),
            "services": list(self.services),
            "files": [file.path for file in self.files],
            "complete": self.usable,
            "expires": expires.isoformat() if expires else "",
        }


@dataclass(frozen=True)
class Order:
    """What to back up, and what to write down about it."""

    files: tuple[str, ...]
    rotation_id: str = ""
    reason: str = ""
    secrets: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    retention_days: int | None = None


# -- reading ---------------------------------------------------------------------------------------------------------


def listing(backup_dir: str, root: str | None = None) -> list[Backup]:
    """All backups, the oldest first. Half-made ones are not among them.

    :param root: the folder to which backups of another program belong; without it those are listed as not usable.
    """
    if not os.path.isdir(backup_dir):
        return []
    found = []
    for name in os.listdir(backup_dir):
        match = _NAME.fullmatch(name)
        folder = os.path.join(backup_dir, name)
        if match and os.path.isdir(folder) and not os.path.islink(folder):
            made_at = _time(match.group("stamp"))
            if made_at:
                found.append(_read(name, folder, made_at, int(match.group("number") or 0), root))
    return sorted(found, key=lambda backup: (backup.made_at, backup.number))


def _time(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(value)


def _read(name: str, folder: str, made_at: datetime, number: int, root: str | None) -> Backup:
    """One backup from its folder; never fails, a damaged one is not usable."""
    path = os.path.join(folder, _METADATA)
    unusable = Backup(name, folder, made_at, number, usable=False)
    if not os.path.lexists(path):
        return _foreign(unusable, {}, root)
    try:
        metadata = json.loads(atomic.read_file(path))
        if not isinstance(metadata, dict):
            return unusable
        if "schema_version" not in metadata:
            return _foreign(unusable, metadata, root)
        days = metadata["retention_days"]
        if metadata["schema_version"] != SCHEMA_VERSION or not (days is None or isinstance(days, int)):
            return unusable
        return Backup(
            name,
            folder,
            made_at,
            number,
            usable=True,
            rotation_id=str(metadata["rotation_id"]),
            reason=str(metadata["reason"]),
            secrets=_texts(metadata["rotated_secrets"]),
            services=_texts(metadata["affected_services"]),
            files=tuple(_file(entry) for entry in metadata["files"]),
            retention_days=days,
        )
    except (KeyturnError, ValueError, KeyError, TypeError):
        return unusable


def _file(entry: Mapping[str, Any]) -> BackupFile:
    if entry["absent"]:
        return BackupFile(str(entry["path"]), "")
    owner = (int(entry["uid"]), int(entry["gid"]))
    return BackupFile(str(entry["path"]), str(entry["copy"]), str(entry["sha256"]), int(str(entry["mode"]), 8), owner)


def _foreign(backup: Backup, metadata: Mapping[str, Any], root: str | None) -> Backup:
    """A backup of another program: every file but the metadata, at its path below ``root``."""
    secrets_named = _texts(metadata.get("rotated_secrets", []))
    services = _texts(metadata.get("affected_services", []))
    files = []
    for folder, folders, names in os.walk(backup.folder):
        folders.sort()
        for name in sorted(names):
            copy = os.path.relpath(os.path.join(folder, name), backup.folder)
            if copy != _METADATA:
                files.append(BackupFile(os.path.join(root or "/", copy) if root else copy, copy))
    return Backup(
        backup.name,
        backup.folder,
        backup.made_at,
        backup.number,
        usable=bool(root and files),
        foreign=True,
        secrets=secrets_named,
        services=services,
        files=tuple(files),
    )


def find(backup_dir: str, name: str, root: str | None = None) -> Backup:
    """One usable backup by its name, by its time (``20251031-143000``), or the ``latest``.

    :raises KeyturnError: ``backup-missing``, ``backup-unusable``.
    """
    known = listing(backup_dir, root)
    if name == "latest":
        usable = [backup for backup in known if backup.usable and not backup.reason]
        if usable:
            return usable[-1]
    for backup in known:
        if name in (backup.name, backup.name[len("secrets-backup-") :]):
            if backup.usable:
                return backup
            raise KeyturnError(
                "backup-unusable",
                "is not complete, or was made by another program",
                where=backup.folder,
                hint="Choose another backup; for one that another program made, name the root its files belong to",
            )
    raise KeyturnError(
        "backup-missing", f"has no usable backup {name}", where=backup_dir, hint="List the backups to see their names"
    )


def _contents(backup: Backup) -> dict[str, bytes | None]:
    """What each file shall hold, checked; None for one that did not exist.

    :raises KeyturnError: ``backup-unsafe`` for a path that leads elsewhere, ``backup-damaged`` for a wrong checksum.
    """
    contents: dict[str, bytes | None] = {}
    base = os.path.realpath(backup.folder)
    for file in backup.files:
        if not os.path.isabs(file.path) or os.path.normpath(file.path) != file.path or file.path.startswith("//"):
            raise _unsafe(backup, file.path)
        if not file.copy:
            contents[file.path] = None
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
        contents[file.path] = content
    return contents


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
    """Check every copy against its checksum.

    :raises KeyturnError: as :func:`restore`.
    """
    _contents(backup)


# -- making ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(backup_dir: str) -> Iterator[None]:
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
    for backup in listing(backup_dir):
        covers = {file.path for file in backup.files} >= set(order.files)
        if backup.usable and covers and not backup.reason and backup.rotation_id == order.rotation_id != "":
            with contextlib.suppress(KeyturnError):  # a damaged one is replaced by another
                verify(backup)
                return backup
    return None


def create(backup_dir: str, order: Order, now: datetime, *, check_mode: bool = False) -> tuple[Backup, bool]:
    """Back files up, unless this rotation has done so already. Returns the backup and whether it is new.

    :raises KeyturnError: ``file-unsafe`` and its like for a file that cannot be backed up; ``backup-failed`` when the
        disk refuses or the copy does not compare: nothing is left behind then.
    """
    if not order.reason:
        known = _reusable(backup_dir, order)
        if known:
            return known, False
    if check_mode:
        for path in order.files:
            _source(path)
        name = _free_name(backup_dir, now)
        made_at = now.astimezone(timezone.utc).replace(microsecond=0)
        files = tuple(BackupFile(path, path.lstrip("/")) for path in order.files)
        return Backup(name, os.path.join(backup_dir, name), made_at, 0, usable=False, files=files), True
    with _alone(backup_dir):
        for left in os.listdir(backup_dir):
            if _LEFT.fullmatch(left):
                shutil.rmtree(os.path.join(backup_dir, left))
        name = _free_name(backup_dir, now)
        partial = os.path.join(backup_dir, f"{name}.partial")
        try:
            _fill(partial, backup_dir, order, name)
            os.rename(partial, os.path.join(backup_dir, name))
            atomic.fsync_dir(backup_dir)
        except OSError as error:
            raise KeyturnError(
                "backup-failed",
                f"the backup cannot be written ({error.strerror})",
                where=backup_dir,
                hint="Check space and permissions; nothing was changed",
            ) from None
        except KeyturnError as error:
            if error.where.startswith(backup_dir):
                raise KeyturnError(
                    "backup-failed",
                    f"the backup cannot be written: {error.message}",
                    where=backup_dir,
                    hint="Check space and permissions; nothing was changed",
                ) from None
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return find(backup_dir, name), True


def _free_name(backup_dir: str, now: datetime) -> str:
    stamp = now.astimezone(timezone.utc).strftime(_STAMP)
    name, number = f"secrets-backup-{stamp}", 0
    while os.path.lexists(os.path.join(backup_dir, name)):
        number += 1
        name = f"secrets-backup-{stamp}-{number}"
    return name


def _source(path: str) -> tuple[bytes, os.stat_result] | None:
    """A file's bytes and status, or None when it does not exist."""
    if not os.path.isabs(path) or os.path.normpath(path) != path or path == f"/{_METADATA}":
        raise KeyturnError(
            "file-unsafe", "is no absolute path without dots", where=path, hint="Write the path out in full"
        )
    if not os.path.lexists(path):
        return None
    return atomic.read_file(path), os.lstat(path)


def _fill(folder: str, backup_dir: str, order: Order, name: str) -> None:
    """Copy the files, prove that they can be restored, and write the metadata last."""
    os.mkdir(folder, 0o700)
    entries: list[dict[str, Any]] = []
    sources: dict[str, bytes] = {}
    for path in dict.fromkeys(order.files):
        source = _source(path)
        if source is None:
            entries.append({"path": path, "absent": True})
            continue
        content, status = source
        sources[path] = content
        copy = path.lstrip("/")
        target = os.path.join(folder, copy)
        atomic.private_dir(os.path.dirname(target))
        atomic.write_file(target, content, 0o600)
        entries.append(
            {
                "path": path,
                "absent": False,
                "copy": copy,
                "sha256": hashlib.sha256(content).hexdigest(),
                "mode": f"{stat.S_IMODE(status.st_mode):04o}",
                "uid": status.st_uid,
                "gid": status.st_gid,
            }
        )
    _rehearse(folder, backup_dir, sources)
    metadata = {
        "timestamp": name[len("secrets-backup-") :][:15],
        "rotated_secrets": list(order.secrets),
        "affected_services": list(order.services),
        "schema_version": SCHEMA_VERSION,
        "rotation_id": order.rotation_id,
        "reason": order.reason,
        "retention_days": order.retention_days,
        "files": entries,
    }
    atomic.write_file(os.path.join(folder, _METADATA), (json.dumps(metadata, indent=2) + "\n").encode(), 0o600)


def _rehearse(folder: str, backup_dir: str, sources: Mapping[str, bytes]) -> None:
    """Restore into a scratch folder and compare, byte for byte, with what was read and with what is there now."""
    scratch = os.path.join(backup_dir, f".scratch-{secrets.token_hex(8)}")
    os.mkdir(scratch, 0o700)
    try:
        for path, content in sources.items():
            target = os.path.join(scratch, path.lstrip("/"))
            atomic.private_dir(os.path.dirname(target))
            atomic.write_file(target, atomic.read_file(os.path.join(folder, path.lstrip("/"))), 0o600)
            if atomic.read_file(target) != content or atomic.read_file(path) != content:
                raise KeyturnError(
                    "backup-failed",
                    "was changed while it was backed up, or its copy differs",
                    where=path,
                    hint="Find out who writes to it, then run the same command again",
                )
    finally:
        shutil.rmtree(scratch)


# -- going back ------------------------------------------------------------------------------------------------------


def restore(
    backup: Backup, backup_dir: str, rotation_id: str, now: datetime, *, check_mode: bool = False
) -> tuple[list[str], str]:
    """Bring all files of a backup back, or none; what they replace is backed up first.

    :returns: the paths that changed, and the name of the backup of what they held before (empty when nothing changed).
    :raises KeyturnError: ``backup-unsafe``, ``backup-damaged``, ``write-failed``; nothing was changed then.
    """
    contents = _contents(backup)
    workspace = Workspace()
    for path, content in contents.items():
        workspace.write(path, content)
    restyled = [file for file in backup.files if not _styled(file) and contents[file.path] is not None]
    changed = sorted({*workspace.changes, *(file.path for file in restyled)})
    if check_mode or not changed:
        return changed, ""
    order = Order(tuple(contents), rotation_id, f"before restoring {backup.name}", backup.secrets, backup.services)
    safety, _new = create(backup_dir, order, now)
    for path in workspace.changes:
        if not os.path.isdir(os.path.dirname(path)):
            atomic.private_dir(os.path.dirname(path))
    workspace.commit()
    for file in backup.files:
        if contents[file.path] is not None and not _styled(file):
            _style(file)
    return changed, safety.name


def _styled(file: BackupFile) -> bool:
    """Whether mode and owner are as the backup has them; a file that is not there has neither."""
    if file.mode is None or file.owner is None or not os.path.lexists(file.path):
        return True
    status = os.lstat(file.path)
    return stat.S_IMODE(status.st_mode) == file.mode and (status.st_uid, status.st_gid) == file.owner


def _style(file: BackupFile) -> None:
    """Set mode and owner, through the file itself and never through a link."""
    if file.mode is None or file.owner is None:
        return
    handle = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(handle, *file.owner)
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


def prune(
    backup_dir: str, retention_days: int, now: datetime, *, keep: str = "", check_mode: bool = False
) -> list[str]:
    """Remove the backups that are older than their retention, and what half-made ones left.

    :param keep: a rotation whose backups stay, because it is still open.
    """
    if retention_days < 0:
        raise KeyturnError("retention-invalid", "retention_days is negative", hint="Give a number of days")
    if not os.path.isdir(backup_dir):
        return []
    limit = now - timedelta(days=retention_days)
    old = [
        backup.name
        for backup in listing(backup_dir)
        if backup.made_at < limit and not (keep and backup.rotation_id == keep)
    ]
    if check_mode:
        return old
    with _alone(backup_dir):
        for name in [*old, *(left for left in os.listdir(backup_dir) if _LEFT.fullmatch(left))]:
            _remove(backup_dir, name)
        atomic.fsync_dir(backup_dir)
    return old


def _remove(backup_dir: str, name: str) -> None:
    """Take the name away first: what is left of a removal that stops in the middle is no backup."""
    folder = os.path.join(backup_dir, name)
    try:
        if not name.endswith(".partial") and not name.startswith("."):
            os.rename(folder, f"{folder}.partial")
            folder += ".partial"
        shutil.rmtree(folder)
    except OSError as error:
        raise KeyturnError(
            "prune-failed", f"cannot be removed ({error.strerror})", where=folder, hint="Check its permissions"
        ) from None


# -- the module ------------------------------------------------------------------------------------------------------


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``secret_backup``."""
    session = Session.from_params(params)
    backup_dir = params["backup_dir"] or os.path.join(session.state_dir, "backups")
    now = datetime.now(timezone.utc)
    work = {"created": _created, "restored": _restored, "pruned": _pruned, "listed": _listed, "verified": _verified}
    if params["state"] in ("listed", "verified"):
        return work[params["state"]](session, params, backup_dir, now, check_mode)
    with session.changing(check_mode):
        return work[params["state"]](session, params, backup_dir, now, check_mode)


def _created(
    session: Session, params: Mapping[str, Any], backup_dir: str, now: datetime, check_mode: bool
) -> dict[str, Any]:
    order = Order(
        tuple(params["files"]),
        session.rotation_id,
        "",
        tuple(params["secrets"]),
        tuple(params["services"]),
        params["retention_days"],
    )
    if not order.files:
        raise KeyturnError("files-missing", "no file was named", hint="Name the files to back up")
    backup, new = create(backup_dir, order, now, check_mode=check_mode)
    return {"changed": new, "backup": backup.summary()}


def _restored(
    session: Session, params: Mapping[str, Any], backup_dir: str, now: datetime, check_mode: bool
) -> dict[str, Any]:
    backup = find(backup_dir, params["name"], params["root"])
    _check_age(session, backup, bool(params["confirm_old"]))
    changed, safety = restore(backup, backup_dir, session.rotation_id, now, check_mode=check_mode)
    return {
        "changed": bool(changed),
        "backup": backup.summary(),
        "restored": changed,
        "replaced": safety,
        "diff": [
            {
                "before_header": path,
                "after_header": path,
                "before": "<redacted: present>\n",
                "after": f"<redacted: from {backup.name}>\n",
            }
            for path in changed
        ],
    }


def _check_age(session: Session, backup: Backup, confirmed: bool) -> None:
    """Bringing back what was retired since needs a word of its own."""
    retired = []
    for name in backup.secrets if backup.rotation_id else ():
        version = Versions(session.state_dir, name).load(backup.rotation_id)
        if version is not None and version.state == "retired":
            retired.append(name)
    if retired and not confirmed:
        raise KeyturnError(
            "backup-old",
            f"holds values that were retired since: {', '.join(retired)}",
            where=backup.folder,
            hint="Make sure that data and servers still accept them, then set confirm_old",
        )


def _pruned(
    session: Session, params: Mapping[str, Any], backup_dir: str, now: datetime, check_mode: bool
) -> dict[str, Any]:
    if params["retention_days"] is None:
        raise KeyturnError("retention-missing", "no retention_days was given", hint="Give a number of days")
    removed = prune(backup_dir, params["retention_days"], now, keep=session.rotation_id, check_mode=check_mode)
    return {"changed": bool(removed), "removed": removed}


def _listed(
    session: Session, params: Mapping[str, Any], backup_dir: str, now: datetime, check_mode: bool
) -> dict[str, Any]:
    del session, now, check_mode
    found = listing(backup_dir, params["root"])
    return {"changed": False, "backups": [backup.summary(params["retention_days"]) for backup in found]}


def _verified(
    session: Session, params: Mapping[str, Any], backup_dir: str, now: datetime, check_mode: bool
) -> dict[str, Any]:
    del session, now, check_mode
    if params["name"]:
        chosen = [find(backup_dir, params["name"], params["root"])]
    else:
        chosen = [backup for backup in listing(backup_dir, params["root"]) if backup.usable]
    for backup in chosen:
        verify(backup)
    return {"changed": False, "backups": [backup.summary(params["retention_days"]) for backup in chosen]}
