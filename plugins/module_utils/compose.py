# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Compose services as the Docker Engine knows them: their containers, found by the labels that Compose sets.

Labels: ``com.docker.compose.project``, ``.service``, ``.oneoff``, ``.config-hash``, ``.depends_on``, and of the project
``.project.working_dir``, ``.project.config_files`` and ``.project.environment_file`` (Compose v2).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import (
    HEALTHY,
    STARTING,
    UNHEALTHY,
    UNKNOWN,
    Outcome,
    Part,
    worst,
)

try:
    import docker
    from docker.errors import DockerException, NotFound
    from requests.exceptions import RequestException

    HAS_DOCKER = True
except ImportError:
    HAS_DOCKER = False

__all__ = [
    "Container",
    "Place",
    "connected",
    "containers_of",
    "group_replicas",
    "info",
    "inspected",
    "judge",
    "last_lines",
    "lines_since",
    "parse_depends_on",
    "place_of",
    "state_of",
]

_LABEL = "com.docker.compose."
_TIMEOUT = 10.0


@dataclass(frozen=True)
class Place:
    """Where a service of the catalog is in Compose.

    :param docker_host: the daemon's address; empty for the one of ``DOCKER_HOST``, or the machine's own.
    """

    project: str
    service: str
    docker_host: str = ""


@dataclass(frozen=True)
class Container:
    """One container of a service.

    :param state: the engine's word: created, running, paused, restarting, removing, exited, dead.
    :param health: healthy, unhealthy, starting; empty where the image and the Compose file declare no check.
    :param created: when, in seconds since 1970.
    :param folder: the project's, when it was started; ``files`` its Compose files, ``env_files`` those of
        ``--env-file``.
    :param environment: ``NAME=value`` each; only where it was inspected.
    """

    id: str
    name: str
    service: str
    state: str
    health: str = ""
    config_hash: str = ""
    depends_on: tuple[str, ...] = ()
    started: str = ""
    created: int = 0
    folder: str = ""
    files: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    environment: tuple[str, ...] = field(default=(), repr=False)


# -- names -------------------------------------------------------------------------------------------------------------


def default_project(project_dir: str) -> str:
    """The name that Compose gives to a project of this folder (Compose specification, "Version and name")."""
    return re.sub(r"[^-_a-z0-9]", "", os.path.basename(project_dir.rstrip("/")).lower()).lstrip("_-")


def place_of(service: Mapping[str, Any]) -> Place:
    """Where a catalog's service of the manager ``compose`` is."""
    return Place(
        project=str(service.get("project") or default_project(str(service.get("project_dir") or ""))),
        service=str(service.get("service") or service["name"]),
        docker_host=str(service.get("docker_host") or ""),
    )


def parse_depends_on(label: str) -> list[str]:
    """The services in a label ``db:service_healthy:false,cache:service_started:true``, sorted."""
    return sorted({entry.split(":", 1)[0].strip() for entry in label.split(",") if entry.split(":", 1)[0].strip()})


def group_replicas(containers: Iterable[Container]) -> int:
    """How many containers a service has: the largest number that are alike.

    While replicas are replaced, old and new ones are there together; they differ in the hash of their configuration.
    """
    sizes: dict[str, int] = {}
    for container in containers:
        sizes[container.config_hash] = sizes.get(container.config_hash, 0) + 1
    return max(sizes.values(), default=0)


# -- the engine --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(docker_host: str = "", timeout: float = _TIMEOUT) -> Iterator[Any]:
    """A client of the engine; errors of the engine leave as one of ours, without its text.

    :raises KeyturnError: ``docker-library-missing``, ``docker-unreachable``.
    """
    if not HAS_DOCKER:
        raise KeyturnError(
            "docker-library-missing",
            "the Python library docker is missing on this host",
            where="docker",
            hint="Install python3-docker, or docker from PyPI",
        )
    where = docker_host or os.environ.get("DOCKER_HOST") or "docker"
    client = None
    try:
        if docker_host:
            client = docker.DockerClient(base_url=docker_host, version="auto", timeout=int(timeout) or 1)
        else:
            client = docker.from_env(version="auto", timeout=int(timeout) or 1)
        yield client
    except (DockerException, RequestException, OSError) as error:
        raise KeyturnError(
            "docker-unreachable",
            f"Docker does not answer ({type(error).__name__})",
            where=where,
            hint="Look at the daemon and at docker_host",
        ) from None
    finally:
        if client is not None:
            client.close()


def _listed(client: Any, project: str, service: str = "") -> list[Container]:
    labels = [f"{_LABEL}project={project}", f"{_LABEL}oneoff=False"]
    if service:
        labels.append(f"{_LABEL}service={service}")
    found = []
    for entry in client.api.containers(all=True, filters={"label": labels}):
        tags = entry.get("Labels") or {}
        found.append(
            Container(
                id=entry["Id"],
                name=(entry.get("Names") or [entry["Id"][:12]])[0].lstrip("/"),
                service=tags.get(f"{_LABEL}service", ""),
                state=str(entry.get("State") or ""),
                config_hash=tags.get(f"{_LABEL}config-hash", ""),
                depends_on=tuple(parse_depends_on(tags.get(f"{_LABEL}depends_on", ""))),
                created=int(entry.get("Created") or 0),
                folder=tags.get(f"{_LABEL}project.working_dir", ""),
                files=_paths(tags.get(f"{_LABEL}project.config_files", "")),
                env_files=_paths(tags.get(f"{_LABEL}project.environment_file", "")),
            )
        )
    return sorted(found, key=lambda container: container.name)


def _paths(label: str) -> tuple[str, ...]:
    """Those in a label; none where one is not here, such as a file from standard input or of another machine."""
    paths = tuple(path for path in label.split(",") if path)
    return paths if all(os.path.isabs(path) and os.path.isfile(path) for path in paths) else ()


def containers_of(client: Any, place: Place) -> list[Container]:
    """All containers of a service, whatever their state; their health is not looked at."""
    return _listed(client, place.project, place.service)


def inspected(client: Any, place: Place, besides: Sequence[str] = ()) -> list[Container]:
    """All containers of a service with health and environment, without those whose ids are in ``besides``."""
    found = []
    for container in containers_of(client, place):
        if container.id in besides:
            continue
        try:
            seen = client.api.inspect_container(container.id)
        except NotFound:  # it was removed in this moment
            continue
        state = seen.get("State") or {}
        health = str((state.get("Health") or {}).get("Status") or "")
        found.append(
            Container(
                id=container.id,
                name=container.name,
                service=container.service,
                state=str(state.get("Status") or ""),
                health="" if health == "none" else health,
                config_hash=container.config_hash,
                depends_on=container.depends_on,
                started=_whole_seconds(str(state.get("StartedAt") or "")),
                environment=tuple((seen.get("Config") or {}).get("Env") or ()),
            )
        )
    return found


def _whole_seconds(stamp: str) -> str:
    """``2026-11-21T12:30:15.123456789Z`` to the second; empty for one that has never been."""
    return f"{stamp[:19]}Z" if len(stamp) > 19 and not stamp.startswith("0001-") else ""


def last_lines(client: Any, container: Container, lines: int) -> list[str]:
    """The last lines that a container has written; they may hold anything."""
    try:
        written: bytes = client.api.logs(container.id, tail=lines)
    except DockerException:  # some log drivers cannot be read
        return []
    return written.decode("utf-8", "replace").splitlines()[-lines:]


def lines_since(client: Any, container: Container, since: float) -> Iterator[str]:
    """What a container has written since a time, the engine's time before each line; it may hold anything.

    :param since: seconds since 1970.
    """
    rest = b""
    for part in client.api.logs(container.id, since=int(since), timestamps=True, stream=True):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


# -- health ------------------------------------------------------------------------------------------------------------

_STATES = {
    "created": "was created and does not run",
    "paused": "is paused",
    "restarting": "keeps ending and is restarted",
    "removing": "is being removed",
    "exited": "has ended",
    "dead": "is dead",
}


def state_of(state: str, health: str, running_is_enough: bool = False) -> Outcome:
    """What the engine's words for one container mean. Only ``running`` and ``healthy`` together are healthy.

    :param health: the engine's or Compose's word; empty, ``none`` or ``unknown`` where there is no check.
    """
    if state != "running":
        return Outcome(UNHEALTHY if state in _STATES else UNKNOWN, _STATES.get(state) or "is in no state that is known")
    if health == "healthy":
        return Outcome(HEALTHY, "running, healthy")
    if health == "starting":
        return Outcome(STARTING, "runs, its check has not passed yet")
    if health == "unhealthy":
        return Outcome(UNHEALTHY, "runs, its check fails")
    if health in ("", "none"):
        if running_is_enough:
            return Outcome(HEALTHY, "running")
        return Outcome(UNKNOWN, "runs, and has no health check", final=True)
    return Outcome(UNKNOWN, "runs, and its health is not known")


def judge(containers: Sequence[Container], running_is_enough: bool = False) -> Outcome:
    """The health of a service: that of its worst container; without any container it is unknown."""
    parts = tuple(Part(c.id, c.name, c.state, c.health) for c in containers)
    if not parts:
        return Outcome(UNKNOWN, "it has no container", parts=parts)
    outcomes = [state_of(part.state, part.health, running_is_enough) for part in parts]
    bad = worst(outcomes)
    since = max(container.started for container in containers)
    if len(parts) == 1:
        detail = bad.detail
    elif bad.status == HEALTHY:
        detail = f"{len(parts)} containers: {bad.detail}"
    else:
        number = sum(outcome.status == HEALTHY for outcome in outcomes)
        detail = f"{number} of {len(parts)} containers are well; {parts[outcomes.index(bad)].name} {bad.detail}"
    return Outcome(bad.status, detail, since, bad.final, parts)


def _started_with(containers: Sequence[Container], folder: str) -> dict[str, list[str]]:
    """``files`` and ``env_files`` of the latest container; none where it was started in another folder."""
    latest = max(containers, key=lambda container: container.created, default=None)
    if latest is None or os.path.realpath(latest.folder) != os.path.realpath(folder):
        return {"files": [], "env_files": []}
    return {"files": list(latest.files), "env_files": list(latest.env_files)}


# -- the module --------------------------------------------------------------------------------------------------------


def info(params: Mapping[str, Any], _check_mode: bool = False) -> dict[str, Any]:
    """The result of the module ``compose_info``: ``services`` by name and ``projects`` with what depends on what.

    :raises KeyturnError: ``service-missing`` where ``required`` and a service has no container, ``docker-unreachable``,
        ``docker-library-missing``.
    """
    places = {str(service["name"]): place_of(service) for service in params["services"]}
    seen: dict[tuple[str, str], list[Container]] = {}
    for docker_host in sorted({place.docker_host for place in places.values()}):
        with connected(docker_host) as client:
            for project in sorted({place.project for place in places.values() if place.docker_host == docker_host}):
                seen[docker_host, project] = _listed(client, project)
    folders = {str(service["name"]): str(service.get("project_dir") or "") for service in params["services"]}
    services: dict[str, dict[str, Any]] = {}
    for name, place in places.items():
        containers = [c for c in seen[place.docker_host, place.project] if c.service == place.service]
        if params.get("required") and not containers:
            raise KeyturnError(
                "service-missing",
                f"there is no container of service {place.service!r} in the Compose project {place.project!r}",
                where=f"keyturn_services.{name}",
                hint="Check project and service there, or start it once with docker compose up",
            )
        services[name] = {
            "project": place.project,
            **_started_with(containers, folders[name]),
            "service": place.service,
            "docker_host": place.docker_host,
            "replicas": group_replicas(containers),
            "containers": [{"id": c.id, "name": c.name, "state": c.state} for c in containers],
        }
    return {
        "changed": False,
        "services": services,
        "projects": [
            {
                "docker_host": docker_host,
                "project": project,
                "depends_on": {
                    service: sorted({other for c in containers if c.service == service for other in c.depends_on})
                    for service in sorted({c.service for c in containers})
                },
            }
            for (docker_host, project), containers in sorted(seen.items())
        ],
    }
