# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services under Docker Compose: their containers, and the last lines of what these logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import compose
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.log_lines import mask_lines, values_in
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import RANK, UNKNOWN, Outcome

__all__ = ["asked_of", "check_compose", "last_lines"]


def asked_of(service: Mapping[str, Any], watched: bool) -> dict[str, Any]:
    """What to look at for a service.

    :param watched: whether something else looks at it too.
    """
    besides = tuple(service.get("besides") or ())
    return {"place": compose.place_of(service), "besides": besides, "other_checks": watched}


def check_compose(health: Mapping[str, Any]) -> Outcome:
    """All containers of the service. Their own check counts; without one, running does where something else looks."""
    asked = health["compose"]
    try:
        with compose.connected(asked["place"].docker_host, health["timeout"]) as client:
            found = compose.inspected(client, asked["place"], asked["besides"])
    except KeyturnError as error:
        return Outcome(UNKNOWN, error.message, final=error.code == "docker-library-missing")
    return compose.judge(found, bool(health.get("running_is_enough")) or asked["other_checks"])


def last_lines(service: Mapping[str, Any], outcome: Outcome, lines: int, values: Sequence[str]) -> list[str]:
    """The last lines of the worst container of a service, masked; none where the engine does not give them."""
    place = compose.place_of(service)
    try:
        with compose.connected(place.docker_host) as client:
            found = compose.inspected(client, place, tuple(service.get("besides") or ()))
            if not found:
                return []
            parts = outcome.parts or ()
            bad = min(parts, key=lambda part: RANK[compose.state_of(part.state, part.health).status], default=None)
            container = next((one for one in found if bad is not None and one.id == bad.id), found[0])
            secret = [value for one in found for value in values_in(one.environment)]
            return mask_lines(compose.last_lines(client, container, lines), [*values, *secret])
    except KeyturnError:
        return []
