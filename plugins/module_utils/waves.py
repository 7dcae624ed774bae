# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order services are restarted: what others depend on comes first."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest

__all__ = ["merge_depends_on", "restart_batches", "restart_waves"]

#: A service of the catalog (its ``depends_on`` counts), or just the list of names it depends on.
Service = Union[Mapping[str, Any], Iterable[str], str, None]

#: What Docker Compose can be started with besides the folder.
_FILES = ("files", "env_files")


def restart_waves(
    services: Mapping[str, Service], affected: Iterable[str], dependants: bool = False
) -> list[list[str]]:
    """The affected services as waves: everything in a wave may restart at once, after all waves before it.

    A service waits for each affected one that it depends on, also through others that are not affected themselves.

    :param services: name to service, all that there are.
    :param affected: names of the services to restart.
    :param dependants: whether the services that depend on these, directly or not, restart too.
    :returns: lists of names, sorted; the same input gives the same waves.
    :raises KeyturnError: ``services-cycle``, ``service-unknown``.
    """
    needs = {name: _needs(name, services[name]) for name in sorted(services)}
    for name, others in needs.items():
        for other in others:
            _known(other, needs, f"{name}.depends_on")
    chosen = set(affected)
    for name in sorted(chosen):
        _known(name, needs, "services to restart")
    try:
        order = tuple(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        raise KeyturnError(
            "services-cycle",
            f"services depend on each other in a circle ({' -> '.join(_circle(error.args[1]))})",
            where="depends_on",
            hint="Take one of these dependencies out",
        ) from None
    if dependants:
        for name in order:
            if chosen.intersection(needs[name]):
                chosen.add(name)
    level: dict[str, int] = {}
    waves: list[list[str]] = []
    for name in order:
        level[name] = max((level[other] + (other in chosen) for other in needs[name]), default=0)
        if name in chosen:
            waves.extend([] for _missing in range(level[name] + 1 - len(waves)))
            waves[level[name]].append(name)
    return [sorted(wave) for wave in waves]


def merge_depends_on(
    services: Mapping[str, Mapping[str, Any]], seen: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """What each service depends on: what the catalog says, and what Compose says.

    A dependency leads through Compose services that the catalog does not name.

    :param services: the catalog's, by name.
    :param seen: by host the answer of ``compose_info``; a host that did not answer is missing.
    """
    merged = {name: set(_needs(name, service)) for name, service in services.items()}
    for host in sorted(seen):
        found = {name: said for name, said in seen[host]["services"].items() if name in merged}
        for project in seen[host]["projects"]:
            place = (project["docker_host"], project["project"])
            members = {name: said for name, said in found.items() if (said["docker_host"], said["project"]) == place}
            names: dict[str, list[str]] = {}
            for name, said in sorted(members.items()):
                names.setdefault(said["service"], []).append(name)
            for name, said in members.items():
                merged[name].update(_named_behind(said["service"], project["depends_on"], names))
                merged[name].discard(name)
    return {name: sorted(others) for name, others in merged.items()}


def _named_behind(
    service: str, depends_on: Mapping[str, Iterable[str]], names: Mapping[str, Sequence[str]]
) -> set[str]:
    """The nearest services with a name in the catalog that a Compose service depends on."""
    found: set[str] = set()
    visited = {service}
    queue = list(depends_on.get(service, ()))
    while queue:
        other = queue.pop()
        if other in visited:
            continue
        visited.add(other)
        if other in names:
            found.update(names[other])
        else:
            queue.extend(depends_on.get(other, ()))
    return found


def restart_batches(
    services: Iterable[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]] | None = None
) -> list[list[dict[str, Any]]]:
    """Services in the order given, those together that one call can treat.

    Together are neighbours with commands of their own, and those of Docker Compose of one project and one wave; a
    rolling service is by itself, and so is one of Compose without a wave.

    :param found: what ``compose_info`` found of each: the files that it was started with, for those that say none.
    """
    batches: list[list[dict[str, Any]]] = []
    last: tuple[Any, ...] | None = None
    for entry in services:
        started = (found or {}).get(str(entry.get("name")), {})
        besides = {field: started[field] for field in _FILES if started.get(field) and not entry.get(field)}
        service = {**entry, **besides}
        key: tuple[Any, ...] | None = ("command",) if service.get("manager") == "command" else None
        if service.get("manager") == "compose" and "wave" in service and not service.get("rolling"):
            known = ("docker_host", "project_dir", "project", "files", "env_files", "wave")
            key = tuple(str(service.get(field) or "") for field in known)
        if key is not None and key == last:
            batches[-1].append(dict(service))
        else:
            batches.append([dict(service)])
        last = key
    return batches


def _needs(name: str, service: Service) -> list[str]:
    found: Any = service.get("depends_on") if isinstance(service, Mapping) else service
    found = [found] if isinstance(found, str) else found or ()
    if not isinstance(found, Iterable) or not all(isinstance(other, str) for other in found):
        raise KeyturnError("service-unknown", "must be a list of names", where=f"{name}.depends_on", hint="Write names")
    return sorted(set(found))


def _known(name: str, services: Mapping[str, Any], where: str) -> None:
    if name in services:
        return
    raise KeyturnError("service-unknown", f"there is no service {name!r}", where=where, hint=nearest(name, services))


def _circle(members: list[str]) -> list[str]:
    """The circle in the direction "depends on", beginning with its first name."""
    ring = members[:-1][::-1]
    first = ring.index(min(ring))
    ring = ring[first:] + ring[:first]
    return [*ring, ring[0]]
