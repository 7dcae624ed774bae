# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module ``service_health`` does and answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.health.look import observe, worse
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import HEALTHY, Outcome

__all__ = ["run"]


def _sentence(outcomes: Iterable[tuple[str, Outcome]]) -> str:
    return "; ".join(f"{name} is {seen.status} ({seen.detail})" for name, seen in outcomes if seen.status != HEALTHY)


def _shown(outcome: Outcome) -> dict[str, Any]:
    shown: dict[str, Any] = {"status": outcome.status, "detail": outcome.detail}
    if outcome.since:
        shown["since"] = outcome.since
    if outcome.parts is not None:
        shown["containers"] = [
            {"name": part.name, "state": part.state, "health": part.health} for part in outcome.parts
        ]
    return shown


def run(params: Mapping[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The result of the module ``service_health``: ``services``, ``healthy``, ``worse`` and a ``msg`` for people.

    No service at all is not healthy: nobody has seen one.
    """
    outcomes = observe(params["services"], params["wait"], params["interval"])
    problems = _sentence(outcomes.items()) if outcomes else "no service was named"
    answer: dict[str, Any] = {
        "changed": False,
        "services": {name: _shown(seen) for name, seen in outcomes.items()},
        "healthy": not problems,
        "worse": worse(outcomes, params["baseline"] or {}),
        "msg": problems or "all services are healthy",
    }
    if problems or answer["worse"]:
        from ansible_collections.keyturn.rotation.plugins.module_utils.health.logged import add_logs

        add_logs(params, answer, outcomes)
    return answer
