# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run does in each phase, step by step. Pure.

A step is a task file of the role ``rotation``. One that nothing in the plan needs is left out for all hosts: a task
that is only skipped still costs a process for each host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["holds_several", "is_quiesced", "left_out", "steps"]

#: The steps of each phase; ``kinds:verify`` is the part of every kind in its file ``verify``.
_STEPS = {
    "preflight": ("enter", "look", "kinds:preflight", "caches", "judge"),
    "backup": ("enter", "backup"),
    "stage": ("enter", "stage", "escrow", "kinds:stage"),
    "migrate": ("enter", "kinds:migrate"),
    "reload": ("enter", "services", "refresh", "converge", "overlap"),
    "promote": ("enter", "quiesce", "kinds:promote", "promote"),
    "restart": ("enter", "services"),
    "verify": ("enter", "kinds:verify", "probe", "compare"),
    "replace": ("announce", "enter", "kinds:replace"),
    "refresh": ("enter", "clear"),
    "prove": ("enter", "settle", "kinds:migrate", "kinds:verify", "probe", "compare", "refused"),
    "watch": ("enter", "observe"),
}
#: The steps that bring services to a state, and what ``service_command`` calls it.
_ACTIONS = {"quiesce": "stopped", "start": "started", "restart": "restarted"}


def steps(plan: Mapping[str, Any], until: str = "") -> list[dict[str, Any]]:
    """The steps of all phases of a plan, in order.

    :param plan: as :func:`plan.build` gives it.
    :param until: the phase after which to stop; all are gone through without it, and in an emergency.
    :returns: of each step ``phase``, ``do`` (the task file) and ``label``; ``step`` for the part of the kinds, ``wave``
        where services are restarted, ``action`` where that is done by their own commands.
    """
    needed = _needed(plan)
    found: list[dict[str, Any]] = []
    phases = plan["phases"]
    if until in phases and "replace" not in phases:  # which only an emergency has
        phases = phases[: phases.index(until) + 1]
    for phase in phases:
        for name in _STEPS[phase]:
            do, _colon, part = name.partition(":")
            if do == "services":
                found += ({"phase": phase, **step} for step in _services(plan))
            elif do == "kinds":
                found += ({"phase": phase, **step} for step in _parts(plan, part))
            elif do == "quiesce":
                found += ({"phase": phase, **step} for step in _brought(do, _stopped(plan)))
            elif needed.get(do, True):
                found.append({"phase": phase, "do": do})
    return [{**step, "label": _label(step)} for step in found]


def holds_several(secret: Mapping[str, Any]) -> bool:
    """Whether a store of a secret holds two versions side by side, where its readers find both."""
    return any(store.get("layout") in ("list", "pair") for store in secret["stores"])


def left_out(plan: Mapping[str, Any]) -> set[str]:
    """The steps that this plan does without, of those that some need."""
    return {name for name, is_needed in _needed(plan).items() if not is_needed}


def _label(step: Mapping[str, Any]) -> str:
    more = step.get("step", step.get("wave", -1) + 1 if "wave" in step else "")
    name = step["do"] if step["do"] != "commands" else next(do for do in _ACTIONS if _ACTIONS[do] == step["action"])
    return f"{step['phase']}: {name} {more}".rstrip()


def _needed(plan: Mapping[str, Any]) -> dict[str, bool]:
    """Of the steps that some plans do without, whether this one needs them."""
    hosts = plan["hosts"].values()

    def some(part: str) -> list[Any]:
        return [entry for work in hosts for entry in work.get(part) or ()]

    published, probes = some("jwks"), some("probes")
    return {
        "caches": bool(published),
        "judge": "emergency" not in plan,
        "escrow": bool(plan["escrow"]["hosts"]),
        "refresh": bool(some("gateways")) or any(entry.get("purge") for entry in published),
        "converge": bool(published),
        "overlap": any(probe["type"] == "token" for probe in probes),
        "probe": bool(probes),
        "compare": bool(some("services")),
        "refused": bool(some("refusals")),
        "observe": bool(some("watched")),
    }


def is_quiesced(plan: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
    """Whether a service is stopped before the rows are swapped, and started after it."""
    return plan["strategy"] == "cutover" and service.get("quiesce") == "stop" and not service.get("reloads")


def _stopped(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    services = (service for work in plan["hosts"].values() for service in work["services"])
    return [service for service in services if is_quiesced(plan, service)]


def _services(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Wave by wave: what was stopped is started, what runs is restarted."""
    services = [
        service for work in plan["hosts"].values() for service in work["services"] if not service.get("reloads")
    ]
    for wave in range(len(plan["waves"])):
        mine = [service for service in services if service["wave"] == wave]
        yield from _brought("start", [service for service in mine if is_quiesced(plan, service)], wave=wave)
        yield from _brought("restart", [service for service in mine if not is_quiesced(plan, service)], wave=wave)


def _brought(do: str, services: Sequence[Mapping[str, Any]], **more: int) -> Iterator[dict[str, Any]]:
    """The step for these services; where all have commands of their own, these and the look whether they are well."""
    if services and all(service["manager"] == "command" for service in services):
        yield {"do": "commands", "action": _ACTIONS[do], **more}
        if do != "quiesce":
            yield {"do": "healthy", "action": _ACTIONS[do], **more}
    elif services:
        yield {"do": do, **more}


def _parts(plan: Mapping[str, Any], part: str) -> Iterator[dict[str, Any]]:
    """The part of the kinds that have one; around ``migrate``, what other hosts do to help."""
    for name in ("help", part, "helped") if part == "migrate" and plan["helpers"] else (part,):
        if any(name in kind["phases"] for kind in plan["kinds"]):
            yield {"do": "kinds", "step": name}
