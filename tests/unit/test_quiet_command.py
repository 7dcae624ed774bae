# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that end in every way; those with a service or a health check around them are tested there."""

from __future__ import annotations

import os
import signal

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import quiet_command


def test_a_command_of_another_user_that_hangs_is_left_and_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may kill every process, so the refusal is made here."""
    groups = []

    def refuse(group: int, _signal: int) -> None:
        groups.append(group)
        raise PermissionError

    kill = os.killpg
    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(quiet_command, "_AFTER_KILL", 0.1)
    try:
        ending = quiet_command.run_quietly(["sleep", "600"], 0.1)
    finally:
        for group in groups:
            kill(group, signal.SIGKILL)
    assert len(groups) == 1
    assert (ending.code, ending.late, ending.reason) == (None, True, "no end within 0.1 s")
