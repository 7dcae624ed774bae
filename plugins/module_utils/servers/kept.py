# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps of a server while a rotation is open: ``<state_dir>/servers/<NAME>/<rotation_id>/*.json``."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session, check_name

__all__ = ["Kept"]

_SCHEMA_VERSION = 1


class Kept:
    """A small file of mode 0600, on the disk before the server changes.

    :param server: tells servers of one secret apart.
    """

    def __init__(self, session: Session, name: str, server: str) -> None:
        rotation = check_name(session.rotation_id or "manual", "rotation_id")
        self._folder = os.path.join(session.state_dir, "servers", check_name(name, "secret name"), rotation)
        self._path = os.path.join(self._folder, hashlib.sha256(server.encode()).hexdigest()[:16] + ".json")

    def save(self, content: dict[str, str]) -> None:
        """Keep this, unless something is kept already: a second attempt must not take its own work for the former."""
        if self.load():
            content = {**content, "former": self.load()["former"]}
        atomic.private_dir(self._folder)
        text = json.dumps({"schema_version": _SCHEMA_VERSION, **content}, sort_keys=True)
        atomic.write_file(self._path, text.encode(), 0o600)

    def load(self) -> dict[str, str]:
        """What is kept; empty where nothing is.

        :raises KeyturnError: ``state-invalid``.
        """
        if not os.path.lexists(self._path):
            return {}
        try:
            content: dict[str, Any] = json.loads(atomic.read_file(self._path))
            if content["schema_version"] != _SCHEMA_VERSION:
                raise ValueError
            return {part: str(content[part]) for part in ("former", "made")}
        except (ValueError, KeyError, TypeError):
            raise KeyturnError(
                "state-invalid",
                "what was kept of this server cannot be read by this release",
                where=self._path,
                hint="Finish the rotation with the release that began it",
            ) from None

    def remove(self, check_mode: bool) -> bool:
        """Forget it. Says whether there was anything."""
        there = os.path.lexists(self._path)
        if there and not check_mode:
            atomic.remove_file(self._path)
        return there
