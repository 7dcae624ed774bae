# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``secret``: who seals to whom, and a person's own values in boxes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.backup_arguments import newest_with, with_policy
from ansible_collections.keyturn.rotation.plugins.plugin_utils.secret_arguments import (
    accepting,
    for_making,
    sealed_for,
    with_own_values,
)

_SESSION = ("state_dir", "session_dir", "rotation_id", "epoch")


class ActionModule(KeyturnAction):
    """Runs the module ``secret``; with ``plan`` it works out what this host makes, with ``boxes`` what it accepts.

    With ``policy`` and ``project`` it names the backup of a store that is lost on the way back.
    """

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = dict(self._task.args)
        plan = arguments.pop("plan", None)
        origins, publics = (arguments.pop(name, None) or {} for name in ("origins", "publics"))
        boxes = arguments.pop("boxes", None)
        place = {name: arguments.pop(name) for name in ("policy", "project") if name in arguments}
        if plan is not None:
            arguments["secrets"] = for_making(plan, task_vars["inventory_hostname"], origins, publics)
        elif boxes is not None:
            arguments["secrets"] = accepting(arguments["secrets"], boxes)
        rotation_id = arguments.get("rotation_id") or ""
        arguments["secrets"] = with_own_values(arguments.get("secrets") or [], rotation_id, self._templar, task_vars)
        try:
            return {**self.call("secret", arguments, task_vars), **sealed_for(arguments)}
        except KeyturnError as error:
            if error.code != "store-lost" or not place:
                raise
            raise KeyturnError(error.code, error.message, hint=self._backup(error, place, task_vars)) from None

    def _backup(self, error: KeyturnError, place: Mapping[str, Any], task_vars: dict[str, Any]) -> str:
        """Where a backup of what was lost lies, in words."""
        session = {name: value for name, value in self._task.args.items() if name in _SESSION}
        found = None
        with contextlib.suppress(KeyturnError):  # what was lost is what matters
            asked = with_policy({"state": "listed", **place, **session}, self._templar, self._loader, task_vars)
            known = self.call("secret_backup", asked, task_vars)["backups"]
            found = newest_with(known, str(error))
        return f"The newest backup of it on this host: {found}" if found else "No backup on this host holds it"
