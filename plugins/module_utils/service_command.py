# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services that are started and stopped by commands of the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import Ending, run_quietly

__all__ = ["ACTIONS", "run"]

_TIMEOUT = 300.0

#: The commands of each wanted state, in order.
ACTIONS = {"started": ("start",), "stopped": ("stop",), "restarted": ("stop", "start")}


def run(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``service_command``: service after service, none after one that failed.

    A command that has not ended after the ``command_timeout`` of its service (seconds) is killed, and has failed.

    :raises KeyturnError: ``service-invalid``, before any command has run; ``service-command-failed``.
    """
    commands = [
        (str(service.get("name") or ""), verb, _words(service, verb))
        for service in params["services"]
        for verb in _verbs(service, params["action"])
    ]
    patience = {str(service.get("name") or ""): _timeout(service) for service in params["services"]}
    for name, verb, words in [] if check_mode else commands:
        ending = run_quietly(words, patience[name])
        if ending.code != 0:
            raise _failure(name, verb, ending, patience[name])
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


def _timeout(service: Mapping[str, Any]) -> float:
    try:
        seconds = float(service.get("command_timeout") or _TIMEOUT)
    except (TypeError, ValueError):
        seconds = 0.0
    if seconds <= 0:
        raise KeyturnError(
            "service-invalid",
            "command_timeout is not a number of seconds",
            where=str(service.get("name") or "services"),
            hint="Write it as a number, such as 300",
        )
    return seconds


def _failure(name: str, verb: str, ending: Ending, seconds: float) -> KeyturnError:
    hint = "Look at the service's log, or run the command by hand"
    if ending.code is not None:
        how = f"ended with exit code {ending.code}"
    elif ending.late:
        how = f"had not ended after {seconds:g} s and was killed"
        hint = "A command must come back when its work is done. Where that takes longer, say so in command_timeout"
    else:
        how = ending.reason
    text = f"its {verb} command {how}. Its output may hold secrets and is not shown"
    return KeyturnError("service-command-failed", text, where=name, hint=hint)
