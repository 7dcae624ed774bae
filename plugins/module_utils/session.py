# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host keeps for one run: the key that opens sealed boxes, the fingerprint key, and the fencing epoch."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import (
    private_dir,
    read_file,
    remove_file,
    write_file,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["FINGERPRINT_CONTEXT", "Session", "check_name", "fingerprint"]

FINGERPRINT_CONTEXT = "fingerprint-key"
_LOCK_SECONDS = 60.0
_LEFT_SECONDS = 30 * 86_400  # no run lasts as long
_RUN_FILE = re.compile(r"(?:session(?:-.*)?\.key|fingerprint(?:-.*)?\.box)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def check_name(name: str, what: str = "name") -> str:
    """Return a name that is safe as a file name.

    :raises KeyturnError: ``name-invalid``.
    """
    if not _NAME.fullmatch(name):
        raise KeyturnError(
            "name-invalid",
            f"this {what} is not usable",
            where=repr(name),
            hint="Use letters, digits, dot, dash and underscore",
        )
    return name


def fingerprint(key: bytes, name: str, value: bytes) -> str:
    """A keyed MAC (HMAC-SHA256, first 16 hex digits) of a value: hosts agree, or something changed."""
    return hmac.new(key, name.encode() + b"\0" + value, hashlib.sha256).hexdigest()[:16]


@dataclass(frozen=True)
class Session:
    """One run on one host.

    :param state_dir: the host's own folder, 0700; survives the run.
    :param session_dir: where the run's own keys lie; in check mode a temporary folder, so that nothing is left.
    :param rotation_id: the rotation, empty outside of one.
    :param epoch: grows with each take-over; a lower one than the host has seen is refused.
    """

    state_dir: str
    session_dir: str
    rotation_id: str
    epoch: int

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> Session:
        """From the common module arguments (``module.SESSION_ARGUMENTS``)."""
        rotation_id = params.get("rotation_id") or ""
        if rotation_id:
            check_name(rotation_id, "rotation_id")
        state_dir = params["state_dir"]
        session_dir = params.get("session_dir") or os.path.join(state_dir, "host")
        return cls(state_dir, session_dir, rotation_id, int(params.get("epoch") or 0))

    # -- boxes ---------------------------------------------------------------------------------------------------

    @property
    def _key_path(self) -> str:
        return self._of_this_run("session", "key")

    def _of_this_run(self, name: str, suffix: str) -> str:
        """A file of this rotation: another one may be at work on this host at the same time."""
        return os.path.join(self.session_dir, f"{name}-{self.rotation_id}.{suffix}")

    # Every execution compiles what it imports, on every host: the library is imported where a box is made or opened

    def offer(self) -> str:
        """Make the run's key and return its public half; an earlier run's key is gone with that."""
        from ansible_collections.keyturn.rotation.plugins.module_utils.sealed import new_keypair

        private, public = new_keypair()
        private_dir(self.session_dir)
        self._sweep()
        write_file(self._key_path, private, 0o600)
        return public

    def open_box(self, box: str, context: str) -> bytes:
        """Open a box that was sealed to this host in this run."""
        try:
            private = read_file(self._key_path)
        except KeyturnError:
            raise KeyturnError(
                "session-missing",
                "this host has no open session",
                where=self.session_dir,
                hint="Run the playbook from its start",
            ) from None
        from ansible_collections.keyturn.rotation.plugins.module_utils.sealed import open_box

        return open_box(box, private, context)

    def while_open(self) -> Callable[[], bool]:
        """Tells whether this run is still the one that this host is open for: another one has a key of its own."""

        def mark() -> tuple[int, int] | None:
            try:
                found = os.stat(self._key_path)
            except FileNotFoundError:
                return None
            return found.st_ino, found.st_mtime_ns

        first = mark()
        return lambda: mark() == first

    def close(self) -> bool:
        """Forget the run's keys; once a later run has taken over, those that lie there are its own and stay."""
        with self._alone(os.path.isdir(os.path.join(self.state_dir, "host"))):
            if self._epochs().get(self.rotation_id, 0) > self.epoch:
                return False
            gone = [remove_file(path) for path in (self._key_path, self._fingerprint_path)]
            return any(gone)

    def _sweep(self) -> None:
        """Remove what killed runs of other rotations have left long ago."""
        for name in os.listdir(self.session_dir):
            path = os.path.join(self.session_dir, name)
            with contextlib.suppress(FileNotFoundError):
                if _RUN_FILE.fullmatch(name) and time.time() - os.stat(path).st_mtime > _LEFT_SECONDS:
                    remove_file(path)

    # -- fingerprints --------------------------------------------------------------------------------------------

    @property
    def _fingerprint_path(self) -> str:
        return self._of_this_run("fingerprint", "box")

    def accept_fingerprint_key(self, box: str) -> None:
        """Keep the box with the inventory's fingerprint key for the rest of the run (sealed as it came)."""
        self.open_box(box, FINGERPRINT_CONTEXT)
        write_file(self._fingerprint_path, box.encode(), 0o600)

    def fingerprint(self, name: str, value: bytes) -> str:
        """The fingerprint of a value, or an empty text when this run has no fingerprint key."""
        if not os.path.exists(self._fingerprint_path):
            return ""
        key = self.open_box(read_file(self._fingerprint_path).decode(), FINGERPRINT_CONTEXT)
        return fingerprint(key, name, value)

    # -- fencing -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def changing(self, check_mode: bool = False) -> Iterator[None]:
        """Hold the host's mutex for one change, and refuse a run that another one has taken over.

        :raises KeyturnError: ``fenced`` for a lower epoch than the host has seen; ``host-busy`` when another change
            does not end.
        """
        is_fenced = not check_mode and bool(self.rotation_id)
        with self._alone(is_fenced):
            if is_fenced:
                self._check_epoch()
            yield

    @contextlib.contextmanager
    def _alone(self, is_wanted: bool) -> Iterator[None]:
        """Hold the host's mutex, where that is wanted."""
        if not is_wanted:
            yield
            return
        folder = private_dir(os.path.join(self.state_dir, "host"))
        handle = os.open(os.path.join(folder, "mutex"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for(handle)
            yield
        finally:
            os.close(handle)

    def check_epoch(self) -> None:
        """Refuse a run that was taken over, without holding the mutex (for work that the database fences itself)."""
        with self.changing():
            pass

    def _wait_for(self, handle: int) -> None:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise KeyturnError(
                        "host-busy",
                        "another change on this host does not end",
                        where=self.state_dir,
                        hint="Look for a hung process",
                    ) from None
                time.sleep(0.05)

    @property
    def _epochs_path(self) -> str:
        return os.path.join(self.state_dir, "host", "epochs.json")

    def _epochs(self) -> dict[str, int]:
        path = self._epochs_path
        seen: dict[str, int] = json.loads(read_file(path)) if os.path.exists(path) else {}
        return seen

    def _check_epoch(self) -> None:
        seen = self._epochs()
        highest = seen.get(self.rotation_id, 0)
        if self.epoch < highest:
            raise KeyturnError(
                "fenced",
                f"rotation {self.rotation_id} was taken over by a later run",
                where=self.state_dir,
                hint="Nothing was changed by this run. Follow the run that took over",
            )
        if self.epoch > highest:
            seen[self.rotation_id] = self.epoch
            write_file(self._epochs_path, json.dumps(seen, sort_keys=True).encode(), 0o600)
