# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services that are started and stopped by commands of the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_quietly

__all__ = ["ACTIONS", "run"]

#: The commands of each wanted state, in order.
ACTIONS = {"started": ("start",), "stopped": ("stop",), "restarted": ("stop", "start")}


def run(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``service_command``: service after service, none after one that failed.

    :raises KeyturnError: ``service-invalid``, before any command has run; ``service-command-failed``.
    """
    commands = [
        (str(service.get("name") or ""), verb, _words(service, verb))
        for service in params["services"]
        for verb in _verbs(service, params["action"])
    ]
    for name, verb, words in [] if check_mode else commands:
        ending = run_quietly(words, None)
        if ending.code != 0:
            how = f"ended with exit code {ending.code}" if ending.code is not None else ending.reason
            raise KeyturnError(
                "service-command-failed",
                f"its {verb} command {how}. Its output may hold secrets and is not shown",
                where=name,
                hint="Look at the service's log, or run the command by hand",
            )
    return {"changed": bool(commands)}


def _verbs(service: Mapping[str, Any], action: str) -> tuple[str, ...]:
    return ("restart",) if action == "restarted" and service.get("restart") else ACTIONS[action]


def _words(service: Mapping[str, Any], verb: str) -> list[str]:
    """The words of a command; ``~`` and ``$NAME`` are filled in, as Ansible's own commands have it."""
    words = service.get(verb)
    if not isinstance(words, list) or not words:
        raise KeyturnError(
            "service-invalid",
            f"{verb} is not a list of words",
            where=str(service.get("name") or "services"),
            hint=f"Write it as a list, such as [systemctl, {verb}, app]",
        )
    return [os.path.expanduser(os.path.expandvars(str(word))) for word in words]
