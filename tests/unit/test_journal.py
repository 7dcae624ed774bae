# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a rotation, from which evidence tells its phases: each line is whole, or not there."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import state_host
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.modules.rotation_state import ARGUMENTS

_RUN = {"run_id": "run1", "user": "ann", "controller": "c1", "place": "p"}


class _Journal:
    """A rotation that has begun, and its journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rotation_id = ""
        self.rotation_id = self.call(action="acquire", secrets=["KEY"], run=_RUN)["rotation_id"]
        (self.path,) = folder.glob("rotations/*/journal.jsonl")

    def call(self, **more: Any) -> dict[str, Any]:
        defaults = {name: option.get("default") for name, option in ARGUMENTS.items()}
        own = {"state_dir": str(self.folder), "rotation_id": self.rotation_id, "epoch": 1, "syslog": False}
        return state_host.run({**defaults, **own, **more}, False)

    def note(self, text: str) -> None:
        self.call(action="note", notes=[text])

    def texts(self) -> list[str]:
        """The notes, and the other events by name."""
        entries = state_host.read_journal(str(self.folder), self.rotation_id)
        return [str(entry.get("text", entry["event"])) for entry in entries]


@pytest.fixture
def journal(tmp_path: Path) -> _Journal:
    return _Journal(tmp_path)


def test_a_line_behind_one_that_a_crash_has_cut_is_not_lost_with_it(journal: _Journal) -> None:
    journal.note("first")
    journal.path.write_bytes(journal.path.read_bytes()[:-5])
    journal.note("second")
    journal.note("third")
    assert journal.texts() == ["acquire", "second", "third"]


@pytest.mark.parametrize("room", [0, 7])
def test_a_line_for_which_there_is_no_room_is_an_error_and_leaves_no_part(journal: _Journal, room: int) -> None:
    journal.note("first")
    size = journal.path.stat().st_size
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limit[1]))
    try:
        with pytest.raises(KeyturnError) as caught:
            journal.note("second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert (caught.value.code, caught.value.where) == ("file-failed", str(journal.path))
    assert journal.path.stat().st_size == size
    journal.note("third")
    assert journal.texts() == ["acquire", "first", "third"]
