# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run does in each phase, step by step. Pure.

A step is a task file of the role ``rotation``. One that nothing in the plan needs is left out for all hosts: a task
that is only skipped still costs a process for each host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def steps(plan: Mapping[str, Any], until: str = "") -> list[dict[str, Any]]:
    """The steps of all phases of a plan, in order.

    :param plan: as :func:`plan.build` gives it.
    :param until: the phase after which to stop; all are gone through without it, and in an emergency.
    :returns: of each step ``phase``, ``do`` (the task file) and ``label``; ``step`` for the part of the kinds, ``wave``
        where services are restarted.
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
                if any(part in kind["phases"] for kind in plan["kinds"]):
                    found.append({"phase": phase, "do": do, "step": part})
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
    return f"{step['phase']}: {step['do']} {more}".rstrip()


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
        "quiesce": any(is_quiesced(plan, service) for service in some("services")),
        "probe": bool(probes),
        "compare": bool(some("services")),
        "refused": bool(some("refusals")),
        "observe": bool(some("watched")),
    }


def is_quiesced(plan: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
    """Whether a service is stopped before the rows are swapped, and started after it."""
    return plan["strategy"] == "cutover" and service.get("quiesce") == "stop" and not service.get("reloads")


def _services(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Wave by wave: what was stopped is started, what runs is restarted."""
    services = [
        service for work in plan["hosts"].values() for service in work["services"] if not service.get("reloads")
    ]
    for wave in range(len(plan["waves"])):
        mine = [is_quiesced(plan, service) for service in services if service["wave"] == wave]
        if any(mine):
            yield {"do": "start", "wave": wave}
        if not all(mine):
            yield {"do": "restart", "wave": wave}
