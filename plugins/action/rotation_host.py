# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of opening and closing a run on a host: one that only helps may be missing."""

from __future__ import annotations

from functools import partial
from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.helping_host import tolerated


class ActionModule(KeyturnAction):
    """Runs the module ``rotation_host``; ``here`` comes back as it was given, for the tasks after it."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """A failure of the module has it too; an error of Ansible's own has nothing."""
        return {**super().run(tmp, task_vars), "here": self._task.args.get("here") or {}}

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """With ``only_helps`` a host that cannot be reached is passed over."""
        arguments = {name: value for name, value in self._task.args.items() if name != "here"}
        only_helps = arguments.pop("only_helps", False)
        call = partial(self.call, "rotation_host", arguments, task_vars)
        return tolerated(task_vars["inventory_hostname"], call) if only_helps else call()
