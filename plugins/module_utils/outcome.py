# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one look at a service found, and the words for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["HEALTHY", "RANK", "STARTING", "UNHEALTHY", "UNKNOWN", "Outcome", "Part", "worst"]

HEALTHY, STARTING, UNKNOWN, UNHEALTHY = "healthy", "starting", "unknown", "unhealthy"
#: How well each status is; more is better.
RANK = {UNHEALTHY: 0, UNKNOWN: 1, STARTING: 2, HEALTHY: 3}


@dataclass(frozen=True)
class Part:
    """One of several that make a service: a container.

    :param state: the engine's word; ``running`` and others.
    :param health: the word of its own check; empty where there is none.
    """

    id: str
    name: str
    state: str
    health: str


@dataclass(frozen=True)
class Outcome:
    """What one look found.

    :param detail: short, for people; never a part of an answer.
    :param since: since when it runs, ISO 8601 in UTC, where that can be known; to about a second.
    :param final: whether looking again cannot change it (no check is declared).
    :param parts: the containers that were looked at; None where a service is none of Docker Compose.
    """

    status: str
    detail: str
    since: str = ""
    final: bool = False
    parts: tuple[Part, ...] | None = None


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of the lowest rank, the first of several; there must be one."""
    return min(outcomes, key=lambda outcome: RANK[outcome.status])
