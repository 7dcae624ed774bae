# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups have had their time, and removing them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.folders import Folder
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.listing import checksums, listings
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.make import alone
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.model import Backup
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.names import DEFAULT_FORMAT, is_left
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Retention", "expired", "prune"]


@dataclass(frozen=True)
class Retention:
    """How long backups stay.

    :param days: older ones go; so many that no calendar has the day keep all.
    :param keep: of each secret, those go that have so many newer ones; 0 for no limit.
    :param needed: rotations whose backups stay whatever their age, because they are open or may still be undone.
    :param release: secrets of which even the only good backup may go.
    """

    days: int
    keep: int = 0
    needed: tuple[str, ...] = ()
    release: tuple[str, ...] = ()


def expired(backups: Sequence[Backup], sound: Collection[str], retention: Retention, now: datetime) -> dict[str, str]:
    """The names of the backups that go, each with the reason.

    The newest sound backup of a secret stays. One that was made before a restore does not count as a backup there: it
    holds what somebody wanted to be rid of.

    :param backups: the oldest first.
    :param sound: the names of those whose copies are as they were made.
    """
    last: dict[str, str] = {}
    for backup in backups:
        if backup.name in sound and not backup.reason:
            last.update(dict.fromkeys(backup.secrets, backup.name))
            last[""] = "" if backup.secrets else backup.name
    stay = {name for secret, name in last.items() if secret not in retention.release}
    # By name: folders that the catalog named one after the other may hold the same one twice
    stay |= {backup.name for backup in backups if backup.rotation_id and backup.rotation_id in retention.needed}
    newer: Counter[tuple[str, bool]] = Counter()
    found: dict[str, str] = {}
    for backup in reversed(backups):
        kinds = [(secret, bool(backup.reason)) for secret in backup.secrets or ("",)]
        many = retention.keep > 0 and all(newer[kind] >= retention.keep for kind in kinds)
        newer.update(kinds)
        if backup.name in stay:
            continue
        if (backup.expires(retention.days) or now) < now:
            found[backup.name] = f"older than {retention.days} days"
        elif many:
            found[backup.name] = f"there are {retention.keep} newer ones"
    return {backup.name: found[backup.name] for backup in backups if backup.name in found}


def prune(
    backup_dir: str,
    retention: Retention,
    now: datetime,
    *,
    root: str | None = None,
    form: str = DEFAULT_FORMAT,
    others: Iterable[Folder] = (),
    check_mode: bool = False,
    failed: list[KeyturnError] | None = None,
) -> list[dict[str, str]]:
    """Remove the backups that have had their time, and what half-made ones left. One that cannot be keeps no other.

    :param others: further folders with backups of this host, each with its project's folder.
    :param failed: takes the errors of those that cannot be removed; without it the first is raised at the end.
    :returns: ``name``, ``time`` and ``why`` of each that went (or would go), the oldest first.
    :raises KeyturnError: ``retention-invalid``, ``prune-failed``, or what keeps a folder from being locked.
    """
    if retention.days < 0 or retention.keep < 0:
        raise KeyturnError(
            "retention-invalid",
            "is negative",
            where="retention_days, keep",
            hint="Give a number of days, or of backups",
        )
    places = [place for place in ((backup_dir, root), *others) if os.path.isdir(place[0])]
    backups = listings(places, form)
    sound = {backup.name for backup in backups if backup.usable and checksums(backup) != "wrong"}
    why = expired(backups, sound, retention, now)
    told = [
        {"name": backup.name, "time": backup.made_at.isoformat(), "why": why[backup.name]}
        for backup in backups
        if backup.name in why
    ]
    if check_mode:
        return told
    errors = [error for folder, _project in places for error in _clear(folder, why, form)]
    if errors and failed is None:
        raise errors[0]
    if failed is not None:
        failed += errors
    left = {backup.name for backup in listings(places, form)} if errors else set()
    return [entry for entry in told if entry["name"] not in left]


def _clear(folder: str, names: Collection[str], form: str) -> Iterator[KeyturnError]:
    """Remove these backups and what half-made ones left; the errors of those that cannot be removed."""
    try:
        with alone(folder):
            for name in os.listdir(folder):
                if name in names or is_left(name, form):
                    try:
                        _remove(folder, name, name not in names)
                    except KeyturnError as error:
                        yield error
            atomic.fsync_dir(folder)
    except KeyturnError as error:
        yield error


def _remove(backup_dir: str, name: str, nameless: bool) -> None:
    """Take the name away first: what is left of a removal that is killed is no backup. One that fails is one still."""
    folder = os.path.join(backup_dir, name)
    going = folder if nameless else f"{folder}.partial"
    try:
        if not nameless:
            os.rename(folder, going)
        shutil.rmtree(going)
    except OSError as error:
        if not nameless:
            with contextlib.suppress(OSError):
                os.rename(going, folder)
        raise KeyturnError(
            "prune-failed", f"cannot be removed ({error.strerror})", where=folder, hint="Check its permissions"
        ) from None
