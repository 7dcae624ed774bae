# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions of a secret that one host keeps: ``<state_dir>/secrets/<NAME>/<rotation_id>/{new,old,meta.json}``.

Folders are 0700, files 0600, and all is on the disk before a function returns. The state of a rotation on this host
moves ``staged -> promoted -> retired``; from the first two it can go to ``rolled_back``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.session import check_name

__all__ = ["SCHEMA_VERSION", "STATES", "Version", "Versions", "moves", "save_all"]

SCHEMA_VERSION = 1
STATES = ("staged", "promoted", "retired", "rolled_back")

#: From a state (None: never staged here) to the states that may be asked for; False where nothing is left to do.
_LEGAL: dict[str | None, dict[str, bool]] = {
    None: {"staged": True, "rolled_back": False},
    "staged": {"staged": False, "promoted": True, "rolled_back": True},
    "promoted": {"staged": False, "promoted": False, "retired": True, "rolled_back": True},
    "retired": {"staged": False, "promoted": False, "retired": False},
    "rolled_back": {"rolled_back": False},
}


def moves(current: str | None, wanted: str, where: str = "") -> bool:
    """Whether a rotation in state ``current`` (None: never staged here) moves on when ``wanted`` is asked for.

    A state that was passed already counts as reached: nothing is ever demoted.

    :raises KeyturnError: ``not-staged``, or ``transition-illegal`` with the legal states.
    """
    legal = _LEGAL[current]
    if wanted in legal:
        return legal[wanted]
    if current is None:
        raise KeyturnError(
            "not-staged",
            f"this rotation has not staged a version here, so it cannot be {_word(wanted)}",
            where=where,
            hint="Run the rotation from the start",
        )
    raise KeyturnError(
        "transition-illegal",
        f"this rotation is {_word(current)} here and cannot be {_word(wanted)}; legal: {', '.join(sorted(legal))}",
        where=where,
        hint="Start a new rotation" if current == "rolled_back" else "Follow the order of the phases",
    )


def _word(state: str) -> str:
    return state.replace("_", " ")


@dataclass(frozen=True)
class Version:
    """What one rotation of one secret left on this host.

    :param made_at: when it was staged, UTC, ISO 8601.
    :param had_old: False when there was no value before (first adoption).
    :param new: the new value; None once it was removed.
    :param old: the old value; None once it was removed, or when there is none.
    :param originals: per store what puts it back to the byte; empty once retired.
    :param fingerprints: of the values that were removed, by version.
    """

    name: str
    rotation_id: str
    state: str
    made_at: str
    had_old: bool
    new: bytes | None = None
    old: bytes | None = None
    originals: tuple[dict[str, Any], ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def original(self, path: str, variable: str) -> dict[str, Any] | None:
        """The record of one store, or None for a store that was not there at staging."""
        for record in self.originals:
            if (record["path"], record["variable"]) == (path, variable):
                return record
        return None

    def value(self) -> bytes:
        """The new value.

        :raises KeyturnError: ``version-missing``.
        """
        if self.new is None:
            raise KeyturnError(
                "version-missing",
                f"the new value of rotation {self.rotation_id} is no longer here",
                where=self.name,
                hint="Restore the file from a backup, or roll back from another host",
            )
        return self.new

    def meta(self) -> dict[str, Any]:
        """What meta.json holds."""
        return {
            "schema_version": SCHEMA_VERSION,
            "state": self.state,
            "made_at": self.made_at,
            "had_old": self.had_old,
            "originals": list(self.originals),
            "fingerprints": dict(self.fingerprints),
        }


class Versions:
    """The version folders of one secret."""

    def __init__(self, state_dir: str, name: str) -> None:
        self.name = check_name(name, "secret name")
        self.folder = os.path.join(state_dir, "secrets", name)

    def path(self, rotation_id: str, part: str) -> str:
        """Where one part (``new``, ``old``, ``meta.json``) of a rotation lies."""
        return os.path.join(self.folder, check_name(rotation_id, "rotation_id"), part)

    def rotations(self) -> list[str]:
        """The rotations that have metadata here, by name."""
        if not os.path.isdir(self.folder):
            return []
        return sorted(name for name in os.listdir(self.folder) if os.path.isfile(self.path(name, "meta.json")))

    def load(self, rotation_id: str) -> Version | None:
        """One rotation, or None when it never staged here.

        :raises KeyturnError: ``state-invalid`` for metadata that this release does not read.
        """
        path = self.path(rotation_id, "meta.json")
        if not os.path.lexists(path):
            return None
        try:
            meta: dict[str, Any] = json.loads(atomic.read_file(path))
            if meta["schema_version"] != SCHEMA_VERSION or meta["state"] not in STATES:
                raise ValueError
            return Version(
                self.name,
                rotation_id,
                meta["state"],
                meta["made_at"],
                meta["had_old"],
                self._value(rotation_id, "new"),
                self._value(rotation_id, "old"),
                tuple(meta["originals"]),
                meta["fingerprints"],
            )
        except (ValueError, KeyError, TypeError):
            raise KeyturnError(
                "state-invalid",
                "the state of this rotation cannot be read by this release",
                where=path,
                hint="Finish the rotation with the release that began it",
            ) from None

    def all(self) -> list[Version]:
        """All rotations of this secret here, the oldest first."""
        found = [self.load(rotation_id) for rotation_id in self.rotations()]
        return sorted(
            (version for version in found if version), key=lambda version: (version.made_at, version.rotation_id)
        )

    def _value(self, rotation_id: str, part: str) -> bytes | None:
        path = self.path(rotation_id, part)
        return atomic.read_file(path) if os.path.lexists(path) else None

    def leftover(self, rotation_id: str) -> bytes | None:
        """A new value whose metadata was never written, because the machine stopped in between; nothing used it yet."""
        return None if os.path.lexists(self.path(rotation_id, "meta.json")) else self._value(rotation_id, "new")

    def forget(self, rotation_id: str) -> bool:
        """Remove both values of a rotation; its metadata stays. Says whether any was there."""
        gone = [
            atomic.remove_file(self.path(rotation_id, part))
            for part in ("new", "old")
            if self._there(rotation_id, part)
        ]
        return any(gone)

    def _there(self, rotation_id: str, part: str) -> bool:
        return os.path.lexists(self.path(rotation_id, part))


def save_all(state_dir: str, versions: Iterable[Version]) -> list[str]:
    """Write several versions; values are on the disk before any metadata names them. Returns the paths that changed."""
    values: dict[str, bytes] = {}
    metas: dict[str, bytes] = {}
    for version in versions:
        folder = Versions(state_dir, version.name)
        atomic.private_dir(os.path.dirname(folder.path(version.rotation_id, "meta.json")))
        for part, value in (("new", version.new), ("old", version.old)):
            if value is not None:
                values[folder.path(version.rotation_id, part)] = value
        meta = json.dumps(version.meta(), sort_keys=True, indent=1) + "\n"
        metas[folder.path(version.rotation_id, "meta.json")] = meta.encode()
    written: list[str] = []
    for contents in (values, metas):
        changed = {path: content for path, content in contents.items() if not _holds(path, content)}
        atomic.write_files(changed, 0o600)
        written.extend(changed)
    return written


def _holds(path: str, content: bytes) -> bool:
    return os.path.lexists(path) and atomic.read_file(path) == content
