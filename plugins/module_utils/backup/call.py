# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of the module ``secret_backup``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.backup.folders import Folder, earlier_folders, remember
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.listing import (
    checksums,
    choose,
    contents,
    listings,
    verify,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.make import create
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.model import Backup, Order
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.names import DEFAULT_FORMAT, check_format
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.restoring import restore
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.retention import Retention, prune
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import Lock
from ansible_collections.keyturn.rotation.plugins.module_utils.ignored import keep_out_of_git
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS, resolve
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import Versions

if TYPE_CHECKING:
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace

__all__ = ["BACKUP_OPTIONS", "STATES", "Place", "backup_key", "run"]

STATES = ("created", "restored", "listed", "verified", "pruned")

#: The argument spec of ``secret_backup``, without that of the session.
BACKUP_OPTIONS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": list(STATES), "required": True},
    "backup_dir": {"type": "path"},
    "files": {"type": "list", "elements": "path", "default": []},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "services": {"type": "list", "elements": "str", "default": []},
    "name": {"type": "str"},
    "root": {"type": "path"},
    "filename_format": {"type": "str", "default": DEFAULT_FORMAT},
    "encrypt": {
        "type": "dict",
        "options": {
            "type": {"type": "str", "choices": ["age", "ansible_vault"], "required": True},
            "recipients": {"type": "list", "elements": "str", "default": []},
            "key": {"type": "dict", "options": VALUE_OPTIONS, "no_log": False},
        },
    },
    "key": {"type": "dict", "options": VALUE_OPTIONS, "no_log": False},
    "gitignore": {"type": "bool", "default": True},
    "retention_days": {"type": "int"},
    "keep": {"type": "int", "default": 0},
    "prune": {"type": "bool", "default": False},
    "insist": {"type": "bool", "default": True},
    "needed": {"type": "list", "elements": "str", "default": []},
    "release": {"type": "list", "elements": "str", "default": []},
    "confirm_old": {"type": "bool", "default": False},
    "compare": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "stores": {"type": "list", "elements": "dict", "default": []},
        },
    },
}


@dataclass(frozen=True)
class Place:
    """Where backups lie and how they are called.

    :param root: the project's folder, or None.
    :param others: where they lay when the catalog said so, see :mod:`folders`.
    """

    folder: str
    root: str | None
    form: str
    others: tuple[Folder, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Any], session: Session) -> Place:
        """From the module's arguments; a relative folder lies in the project, or else in the host's state."""
        root = params.get("root") or None
        folder = params.get("backup_dir") or os.path.join(session.state_dir, "backups")
        form = check_format(params.get("filename_format") or DEFAULT_FORMAT)
        place = os.path.join(root or session.state_dir, folder)
        return cls(place, root, form, tuple(earlier_folders(session.state_dir, place)))

    def find(self, name: str) -> Backup:
        """One usable backup, see :func:`listing.find`."""
        return choose(self.listing(), name, self.folder)

    def listing(self) -> list[Backup]:
        """All backups, the oldest first."""
        return listings(((self.folder, self.root), *self.others), self.form)


def backup_key(session: Session, params: Mapping[str, Any]) -> bytes | None:
    """What opens encrypted backups, where it was given."""
    return resolve(session, params["key"], f"{session.rotation_id}/backup/key") if params.get("key") else None


def _lock(session: Session, encrypt: Mapping[str, Any] | None) -> Lock | None:
    if not encrypt:
        return None
    if encrypt["type"] == "age":
        from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt.age import check_recipients

        check_recipients(encrypt["recipients"], "encrypt.recipients")
        return Lock("age", tuple(encrypt["recipients"]))
    if not encrypt.get("key"):
        raise KeyturnError(
            "backup-key-missing", "no vault password was given", where="encrypt.key", hint="Name where it is"
        )
    return Lock("ansible_vault", password=resolve(session, encrypt["key"], f"{session.rotation_id}/backup/encrypt"))


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``secret_backup``."""
    session = Session.from_params(params)
    place = Place.of(params, session)
    now = datetime.now(timezone.utc)
    if params["state"] == "listed":
        return {"changed": False, "backups": _told(place.listing(), params["retention_days"])}
    if params["state"] == "verified":
        return _verified(params, place)
    work = {"created": _created, "restored": _restored, "pruned": _pruned}[params["state"]]
    with session.changing(check_mode):
        if params["state"] != "pruned" and not check_mode:
            remember(session.state_dir, place.folder, place.root)
        result = work(session, params, place, now, check_mode)
        writes = params["gitignore"] and (result.get("backup") or {}).get("name")
        ignored = writes and keep_out_of_git(place.folder, check_mode=check_mode)
    return {**result, "changed": bool(result["changed"] or ignored)}


def _told(backups: Iterable[Backup], retention_days: int | None) -> list[dict[str, Any]]:
    return [{**backup.summary(retention_days), "checksums": checksums(backup)} for backup in backups]


def _order(session: Session, params: Mapping[str, Any], place: Place) -> Order:
    return Order(
        tuple(params["files"]),
        session.rotation_id,
        "",
        tuple(params["secrets"]),
        tuple(params["services"]),
        params["retention_days"],
        place.root or "",
        _lock(session, params["encrypt"]),
        place.form,
        tuple(folder for folder, _root in place.others),
    )


def _created(
    session: Session, params: Mapping[str, Any], place: Place, now: datetime, check_mode: bool
) -> dict[str, Any]:
    if not params["files"]:
        raise KeyturnError("files-missing", "no file was named", hint="Name the files to back up")
    backup, new = create(place.folder, _order(session, params, place), now, check_mode=check_mode)
    told = {"changed": new, "backup": {**backup.summary(), "proven": _proven(params["encrypt"])}}
    if not params["prune"]:
        return told
    # What must turn now does not wait for an old backup
    pruned = _pruned(session, {**params, "insist": False}, place, now, check_mode)
    return {**told, **pruned, "changed": new or pruned["changed"]}


def _proven(encrypt: Mapping[str, Any] | None) -> str:
    """What was done to see that the copies are good."""
    if not encrypt:
        return "restored into a scratch folder and compared"
    if encrypt["type"] == "age":
        return "opened with the file's own key and compared; that somebody holds an identity is not proven"
    return "decrypted and compared"


def _restored(
    session: Session, params: Mapping[str, Any], place: Place, now: datetime, check_mode: bool
) -> dict[str, Any]:
    backup = place.find(params["name"])
    _check_age(session, backup, bool(params["confirm_old"]))
    safety = _order(session, params, place)
    key = backup_key(session, params)
    differing = _differing(session, params["compare"], contents(backup, key)) if params["compare"] else {}
    changed, made = restore(backup, place.folder, safety, now, key=key, check_mode=check_mode)
    return {
        "changed": bool(changed),
        "backup": {**backup.summary(), "checksums": checksums(backup)},
        "restored": changed,
        "replaced": made,
        **differing,
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


def _differing(
    session: Session, secrets: Iterable[Mapping[str, Any]], wanted: Mapping[str, bytes | None]
) -> dict[str, list[str]]:
    """The secrets that have another value once the files are as in the backup: their names, never a value.

    :returns: ``differing``, and ``astray``, those of them that are neither retired here nor what they were turned to.
    """
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Workspace
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores.catalog import open_store

    now, then = Workspace(), Workspace(wanted)
    differing, astray = set(), set()
    for secret in secrets:
        name = secret["name"]
        stores = [open_store(name, options) for options in secret["stores"] if options.get("path") in wanted]
        values = [(_primary(store, now), _primary(store, then)) for store in stores]
        if all(before == after for before, after in values):
            continue
        differing.add(name)
        last = next(reversed(Versions(session.state_dir, name).all()), None)
        if last is not None and last.state == "promoted" and any(after != last.new for _before, after in values):
            astray.add(name)
    return {"differing": sorted(differing), "astray": sorted(astray)}


def _primary(store: Store, workspace: Workspace) -> bytes | None:
    """What a store holds; nothing where that cannot be read."""
    try:
        return store.layout.primary(store.read(workspace))
    except KeyturnError:
        return None


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
    session: Session, params: Mapping[str, Any], place: Place, now: datetime, check_mode: bool
) -> dict[str, Any]:
    if params["retention_days"] is None:
        raise KeyturnError("retention-missing", "no retention_days was given", hint="Give a number of days")
    needed = {*params["needed"], session.rotation_id} - {""}
    retention = Retention(params["retention_days"], params["keep"], tuple(sorted(needed)), tuple(params["release"]))
    before = place.listing()
    failed: list[KeyturnError] = []
    removed = prune(
        place.folder,
        retention,
        now,
        root=place.root,
        form=place.form,
        others=place.others,
        check_mode=check_mode,
        failed=None if params["insist"] else failed,
    )
    gone = {entry["name"] for entry in removed}
    left = [backup for backup in before if backup.name not in gone]
    return {
        "changed": bool(removed),
        "removed": removed,
        **({"warnings": [f"An old backup stays: {error}" for error in failed]} if failed else {}),
        "backups": _told(left, params["retention_days"]),
        "diff": [
            {
                "before_header": place.folder,
                "after_header": place.folder,
                "before": _names(before),
                "after": _names(left),
            }
        ],
    }


def _names(backups: Sequence[Backup]) -> str:
    return "".join(f"{backup.name}\n" for backup in backups)


def _verified(params: Mapping[str, Any], place: Place) -> dict[str, Any]:
    name = params["name"]
    chosen = [place.find(name)] if name else [backup for backup in place.listing() if backup.usable]
    for backup in chosen:
        verify(backup)
    return {"changed": False, "backups": _told(chosen, params["retention_days"])}
