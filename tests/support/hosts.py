# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for tests: a state folder, a session with the inventory's fingerprint key, and boxes between them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.look import inspect
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.turn import Sources, apply
from ansible_collections.keyturn.rotation.plugins.module_utils.session import FINGERPRINT_CONTEXT, Session, fingerprint

__all__ = ["FINGERPRINT_KEY", "GENERATE", "NOW", "Host", "codes"]

FINGERPRINT_KEY = b"fingerprint key of the inventory"
GENERATE = {"type": "bytes", "length": 32, "encoding": "base64url"}
NOW = datetime(2026, 11, 21, 12, 30, 15, tzinfo=timezone.utc)


class Host:
    """One host below a test's folder.

    :param rotation_id: the rotation that its session belongs to.
    """

    def __init__(self, folder: Path, rotation_id: str = "r1", epoch: int = 1, *, marks: bool = True) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.session = Session(str(self.state_dir), str(self.state_dir / "host"), rotation_id, epoch)
        folder.mkdir(parents=True, exist_ok=True)
        self.public = self.session.offer()
        if marks:
            self.session.accept_fingerprint_key(sealed.seal(FINGERPRINT_KEY, self.public, FINGERPRINT_CONTEXT))

    def rotation(self, rotation_id: str) -> Host:
        """The same host in another rotation."""
        return Host(self.folder, rotation_id)

    def write(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        """Make a file on this host."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def turn(
        self, state: str, *requests: Mapping[str, Any], check: bool = False, now: datetime = NOW, **sources: Any
    ) -> dict[str, Any]:
        """One call of ``secret``."""
        random = sources.get("randbytes", os.urandom)
        return apply(self.session, state, requests, check, Sources(random, lambda: now))

    def look(self, *requests: Mapping[str, Any]) -> dict[str, Any]:
        """One call of ``secret_info``."""
        return inspect(self.session, requests)

    def version(self, name: str, part: str, rotation_id: str = "") -> bytes | None:
        """What lies in the versions folder."""
        path = self.state_dir / "secrets" / name / (rotation_id or self.session.rotation_id) / part
        return path.read_bytes() if path.exists() else None

    def box(self, value: bytes, name: str, part: str) -> str:
        """A value sealed to this host."""
        return sealed.seal(value, self.public, f"{self.session.rotation_id}/{name}/{part}")

    def target(self, host: str, *versions: str) -> dict[str, Any]:
        """An entry of ``seal_to`` for this host."""
        return {"host": host, "public": self.public, "versions": list(versions or ("new", "old"))}

    def mark(self, name: str, value: bytes) -> str:
        """The fingerprint of a value."""
        return fingerprint(FINGERPRINT_KEY, name, value)

    def tree(self) -> dict[str, bytes]:
        """Every file below this host's folder, to see that nothing changed."""
        return {str(path): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}


def codes(problems: Sequence[Mapping[str, str]]) -> list[str]:
    """The codes of a list of problems."""
    return [problem["code"] for problem in problems]
