# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps of one rotation: ``<state_dir>/signing_api/<NAME>/<rotation_id>.json``; kids and times."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session, check_name

__all__ = ["Kept", "Note"]

_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Note:
    """One rotation.

    :param base: the address of the API.
    :param before: the kids that were there.
    :param former: the kid that signed; empty where nothing says so.
    :param made: the kid of the new key; empty until it is known.
    :param promoting: whether a promote was asked for.
    :param signs: the kid that this rotation has promoted last; empty before.
    :param promoted_at: seconds since 1970; 0 before.
    :param disabling: whether it was asked to disable the former key.
    :param forward_only: whether the former key is compromised, so that nothing goes back.
    :param others: in an emergency, the kids that other rotations had made or taken over from when it began.
    """

    base: str
    before: Sequence[str]
    former: str
    made: str = ""
    promoting: bool = False
    signs: str = ""
    promoted_at: float = 0.0
    disabling: bool = False
    forward_only: bool = False
    others: Sequence[str] = ()


def _read(path: str, hint: str) -> Note:
    try:
        content: dict[str, Any] = json.loads(atomic.read_file(path))
        if content.pop("schema_version") != _SCHEMA_VERSION:
            raise ValueError
        return Note(**content)
    except (ValueError, KeyError, TypeError, AttributeError):
        message = "what was kept of this rotation cannot be read by this release"
        raise KeyturnError("state-invalid", message, where=path, hint=hint) from None


class Kept:
    """A small file of mode 0600, on the disk before the API is asked to change something."""

    def __init__(self, session: Session, name: str, base: str) -> None:
        folder = os.path.join(session.state_dir, "signing_api", check_name(name, "secret name"))
        self._folder = folder
        self._path = os.path.join(folder, check_name(session.rotation_id or "manual", "rotation_id") + ".json")
        self._base = base

    @property
    def token_path(self) -> str:
        """Where a token of the former key lies until it has been shown."""
        return self._path[: -len(".json")] + ".token"

    def load(self) -> Note | None:
        """What is kept; None where nothing is.

        :raises KeyturnError: ``state-invalid``; ``signing-api-other`` where the rotation was begun at another address.
        """
        if not os.path.lexists(self._path):
            return None
        note = _read(self._path, "Finish the rotation with the release that began it")
        if note.base != self._base:
            hint = "Give the address that it was begun with, or another rotation_id"
            raise KeyturnError(
                "signing-api-other", "this rotation was begun at another address", where=self._path, hint=hint
            )
        return note

    def kids_of_others(self) -> list[str]:
        """The kids that the other rotations of this secret have made, and those that signed before them.

        :raises KeyturnError: ``state-invalid``.
        """
        hint = (
            "Finish that rotation with the release that began it. Or move the file away, and disable every key: "
            "keyturn_disable=all, or disable: all of the module"
        )
        paths = sorted(glob.glob(os.path.join(glob.escape(self._folder), "*.json")))
        notes = [_read(path, hint) for path in paths if path != self._path]
        return list(dict.fromkeys(kid for note in notes for kid in (note.former, note.made) if kid))

    def save(self, note: Note, **changes: Any) -> Note:
        """Keep this from now on."""
        note = replace(note, **changes)
        atomic.private_dir(self._folder)
        text = json.dumps({"schema_version": _SCHEMA_VERSION, **asdict(note)}, sort_keys=True)
        atomic.write_file(self._path, text.encode(), 0o600)
        return note

    def remove(self) -> None:
        """Forget it: nothing was done."""
        atomic.remove_file(self._path)
