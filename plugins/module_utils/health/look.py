# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at services, once or until they are well.

A check is one key of a service's ``health``; :data:`CHECKERS` holds the function behind each, so a new way to look is
one more entry. What is missing, empty or still starting is never ``healthy``.

A host pays for what it imports in every execution, so each way to look is read where it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import (
    HEALTHY,
    RANK,
    UNHEALTHY,
    UNKNOWN,
    Outcome,
    worst,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.polling import pauses

__all__ = ["CHECKERS", "check", "observe", "worse"]

_TIMEOUT = 5.0
_PARALLEL = 8

Clock = Callable[[], float]
Sleep = Callable[[float], None]
Checker = Callable[[Mapping[str, Any]], Outcome]


def _check_url(health: Mapping[str, Any]) -> Outcome:
    from ansible_collections.keyturn.rotation.plugins.module_utils.health.url import check_url

    return check_url(health)


def _check_tcp(health: Mapping[str, Any]) -> Outcome:
    from ansible_collections.keyturn.rotation.plugins.module_utils.health.tcp import check_tcp

    return check_tcp(health)


def _check_process(health: Mapping[str, Any]) -> Outcome:
    from ansible_collections.keyturn.rotation.plugins.module_utils.health.process import check_process

    return check_process(health)


def _check_systemd(health: Mapping[str, Any]) -> Outcome:
    from ansible_collections.keyturn.rotation.plugins.module_utils.health.systemd import check_systemd

    return check_systemd(health)


def _check_command(health: Mapping[str, Any]) -> Outcome:
    from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_quietly

    ending = run_quietly(health["command"], health["timeout"])
    if ending.code is None:
        return Outcome(UNKNOWN if ending.reason.startswith("cannot") else UNHEALTHY, ending.reason)
    return Outcome(UNHEALTHY if ending.code else HEALTHY, f"exit code {ending.code}")


def _check_compose(health: Mapping[str, Any]) -> Outcome:
    from ansible_collections.keyturn.rotation.plugins.module_utils.health.containers import check_compose

    return check_compose(health)


#: How to look, by the key of ``health`` that asks for it.
CHECKERS: dict[str, Checker] = {
    "url": _check_url,
    "tcp": _check_tcp,
    "process": _check_process,
    "systemd": _check_systemd,
    "command": _check_command,
    "compose": _check_compose,
}


def _declared(service: Mapping[str, Any]) -> dict[str, Any]:
    """The ``health`` of a service without what is not set; its own unit where running is said to be enough."""
    health = {key: value for key, value in (service.get("health") or {}).items() if value not in (None, "", [], {})}
    watched = any(key in health for key in CHECKERS)
    if health.get("running_is_enough") and not watched and service.get("unit"):
        health["systemd"] = service["unit"]
    if service.get("manager") == "compose":
        from ansible_collections.keyturn.rotation.plugins.module_utils.health.containers import asked_of

        health["compose"] = asked_of(service, watched)
    return {**health, "timeout": float(health.get("timeout") or _TIMEOUT)}


def check(service: Mapping[str, Any]) -> Outcome:
    """Look at one service once; with several checks the worst counts.

    :param service: ``health`` as in the catalog, ``unit`` where ``running_is_enough`` shall look at it, and where its
        ``manager`` is ``compose``, what finds its containers.
    """
    health = _declared(service)
    outcomes = [checker(health) for key, checker in CHECKERS.items() if key in health]
    if outcomes:
        lowest = worst(outcomes)
        since = lowest.since or max(outcome.since for outcome in outcomes)
        parts = next((outcome.parts for outcome in outcomes if outcome.parts is not None), None)
        return replace(lowest, since=since, parts=parts)
    if health.get("running_is_enough"):
        return Outcome(UNKNOWN, "running_is_enough needs a unit, systemd or process to look at", final=True)
    return Outcome(UNKNOWN, "no health check is declared", final=True)


def _validate(services: Sequence[Mapping[str, Any]]) -> None:
    names = [str(service["name"]) for service in services]
    for name in names:
        if names.count(name) > 1:
            raise KeyturnError(
                "service-twice", "is named twice", where=f"service {name}", hint="Name each service once"
            )
    for service in services:
        where, health = f"service {service['name']}", _declared(service)
        if "url" in health:
            from ansible_collections.keyturn.rotation.plugins.module_utils.health.url import refuse_url

            refuse_url(health, where)
        if "tcp" in health:
            from ansible_collections.keyturn.rotation.plugins.module_utils.health.tcp import refuse_tcp

            refuse_tcp(health, where)


def _look(services: Sequence[Mapping[str, Any]]) -> dict[str, Outcome]:
    if len(services) < 2:
        return {str(service["name"]): check(service) for service in services}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_PARALLEL, len(services))) as pool:
        return dict(zip((str(service["name"]) for service in services), pool.map(check, services)))


def observe(
    services: Sequence[Mapping[str, Any]],
    wait: float = 0.0,
    interval: float = 1.0,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> dict[str, Outcome]:
    """Look at services, and again at those that are not healthy, until all are or ``wait`` seconds are over.

    The last look is one at all of them: a service that was well for a moment only does not pass. It ends early when
    nothing that is left can become healthy.

    :param services: each with a ``restart_wait`` of its own is waited for so long instead, unless ``wait`` is 0.
    :param interval: the longest pause between two looks, in seconds; the first ones are shorter.
    :raises KeyturnError: ``service-twice``, ``health-invalid``, ``url-invalid``, ``header-invalid``,
        ``ca-file-unusable``.
    """
    _validate(services)
    began = clock()
    patience = {
        str(service["name"]): wait and float(wait if service.get("restart_wait") is None else service["restart_wait"])
        for service in services
    }
    seen = _look(services)
    together = True
    for pause in pauses(interval):
        behind = [service for service in services if seen[str(service["name"])].status != HEALTHY]
        if not behind and together:
            return seen
        if not behind:
            seen, together = _look(services), True
            continue
        left = began + max(patience.values()) - clock()
        hopeful = [
            service
            for service in behind
            if not seen[str(service["name"])].final and began + patience[str(service["name"])] > clock()
        ]
        if left <= 0 or not hopeful:
            return seen
        sleep(min(pause, left))
        seen.update(_look(behind))
        together = len(behind) == len(services)
    return seen


def worse(outcomes: Mapping[str, Outcome], baseline: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The services that are worse than before; one that is not there any more is ``unknown`` now.

    :param baseline: name to status, or to a mapping with ``status``; a status of no known name counts as unknown.
    """
    found: list[dict[str, Any]] = []
    for name in sorted(baseline):
        entry = baseline[name]
        status = str((entry.get("status") if isinstance(entry, Mapping) else entry) or "")
        before = status if status in RANK else UNKNOWN
        after = outcomes.get(name, Outcome(UNKNOWN, "not looked at this time"))
        if RANK[after.status] < RANK[before]:
            found.append({"name": name, "before": before, "after": after.status, "detail": after.detail})
    return found
