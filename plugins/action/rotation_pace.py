# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of looking at jobs and steering them: which of them this host has, and what is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, names_in
from ansible_collections.keyturn.rotation.plugins.plugin_utils.standing import only_these

_WORDS = ("pause", "resume", "stop")
#: Statuses of a rotation whose rows are brought back.
_BACK = ("rolling_back", "rollback_pending", "stuck")


def order_of(word: str) -> dict[str, Any]:
    """The module's ``action`` and ``rate`` for what a person wrote.

    :raises KeyturnError: ``pace-unknown``.
    """
    if word in _WORDS:
        return {"action": word}
    if word.isascii() and word.isdigit():
        return {"action": "limit", "rate": int(word)}
    raise KeyturnError(
        "pace-unknown",
        f"{word!r} is none" if word else "is not set",
        where="keyturn_pace",
        hint="Say pause, resume, stop, or how many rows a second (0 for no limit)",
    )


def chosen(secrets: Sequence[Mapping[str, Any]], only: str) -> list[Mapping[str, Any]]:
    """The secrets that are meant and whose rotation is open.

    :raises KeyturnError: ``secret-unknown``.
    """
    return [row for row in only_these(secrets, names_in(only)) if row["open"]]


def going_back(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The secrets whose rows are brought back: that is not left half way. A retire that asks is none of them."""
    return [row["name"] for row in rows if row["status"] in _BACK]


class ActionModule(KeyturnAction):
    """Runs the module ``rotation_pace`` where this host has jobs; with ``planned`` they are taken from there."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Read where nothing is asked for; else steer."""
        arguments = dict(self._task.args)
        planned = arguments.pop("planned", None)
        if planned is None:
            return self.call("rotation_pace", arguments, task_vars)
        only, word = str(arguments.pop("only", "")), arguments.pop("pace", None)
        order = {"action": "read"} if word is None else order_of(str(word))
        rows = chosen(planned["secrets"], only)
        jobs = [
            {"secret": row["name"], "database": database}
            for row in rows
            for database, hosts in sorted(row["databases"].items())
            if task_vars["inventory_hostname"] in hosts
        ]
        if not jobs:
            return {"changed": False, "jobs": []}
        backwards = going_back(rows)
        if order["action"] == "stop" and backwards:
            hint = "Let it finish, or pause it"
            raise KeyturnError("stop-refused", "goes back", where=", ".join(backwards), hint=hint)
        return self.call("rotation_pace", {**arguments, **order, "jobs": jobs}, task_vars)
