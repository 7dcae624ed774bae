# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Output for people who watch a rotation: phases, progress, what went wrong, how it ended."""

from __future__ import annotations

DOCUMENTATION = r"""
name: calm
type: stdout
short_description: Show phases and failures of a rotation, nothing else
version_added: 0.1.0
description:
  - Shows what the collection itself says (phases, progress, the end), and tasks that failed.
  - Everything else is left to logs and evidence.
author: keyturn.rotation contributors (@keyturn)
"""

from collections.abc import Mapping
from typing import Any

from ansible.plugins.callback import CallbackBase

_SHOWN = ("ansible.builtin.debug", "debug", "ansible.builtin.assert", "assert")
_SAYS_NOTHING = "All assertions passed"


def _text(result: Mapping[str, Any]) -> str:
    """The message of a task; a list is one of lines."""
    said = result.get("msg", "")
    return "\n".join(str(line) for line in said) if isinstance(said, (list, tuple)) else str(said).strip()


def _words(result: Mapping[str, Any]) -> list[str]:
    """What a task said; of a loop, what each item said that failed, since the loop itself gives no reason."""
    entries = [entry for entry in result.get("results") or () if isinstance(entry, Mapping)]
    items = [entry for entry in entries if entry.get("failed") or entry.get("unreachable")]
    said = [_text(item) for item in items or [result]]
    return [line for text in dict.fromkeys(said) for line in text.splitlines() if line]


class CallbackModule(CallbackBase):
    """A stdout callback with few words."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "keyturn.rotation.calm"

    def _fail(self, word: str, result: Any, color: str) -> None:
        task = result._task.get_name().strip()
        self._display.display(f"  {word} {result._host.get_name()}: {task}", color=color)
        for line in _words(result._result):
            self._display.display(f"    {line}", color=color)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Show what failed."""
        if not ignore_errors:
            self._fail("failed on", result, "red")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Show which host was lost."""
        self._fail("lost", result, "bright red")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Show messages for people."""
        text = _text(result._result) if result._task.action in _SHOWN else ""
        if text not in ("", _SAYS_NOTHING):
            self._display.display("\n".join(f"  {line}" for line in text.splitlines()))

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Say that nothing was done."""
        self._display.display("No host matched: nothing was done.", color="bright red")
