# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host does in a run, from the plan. Pure.

The tasks of a host ask for it again and again, and a template is compiled on each host each time it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.steps import holds_several, is_quiesced

__all__ = ["by_wave", "libraries", "work_here"]

_NOTHING: dict[str, list[Any]] = {"secrets": [], "jobs": [], "servers": [], "services": [], "probes": []}


def work_here(plan: Mapping[str, Any], host: str, restarted: Sequence[str] = ()) -> dict[str, Any]:
    """What the tasks of a host need to know of the plan.

    :param plan: as :func:`plan.build` gives it.
    :param restarted: hosts whose services have loaded what is primary now, in an earlier run of this rotation.
    :returns: ``work`` (the host's part of the plan), ``files`` that its secrets lie in, ``names`` of its ``secrets``
        and ``services``; by wave, the services that are ``quiesced`` (stopped before the rows are swapped and started
        after it) and those ``running`` (restarted); ``to_stop``, in the order in which they stop; ``several``, of
        stores that hold two versions: the ``names`` of their secrets on all hosts, the ``secrets`` of this one, and by
        wave the ``services`` that read them.
    """
    work = plan["hosts"].get(host, _NOTHING)
    services = [] if host in restarted else [service for service in work["services"] if "reloads" not in service]
    quiesced = [service for service in services if is_quiesced(plan, service)]
    return {
        "work": work,
        "files": _files(work),
        "names": {part: [entry["name"] for entry in work[part]] for part in ("secrets", "services")},
        "quiesced": by_wave(plan, quiesced),
        "running": by_wave(plan, [service for service in services if service not in quiesced]),
        "to_stop": quiesced[::-1],
        "several": _several(plan, work),
    }


def _several(plan: Mapping[str, Any], work: Mapping[str, Any]) -> dict[str, Any]:
    """What retire takes the previous version from: a host whose own stores hold one version only has nothing to do."""
    of_all = [secret for each in plan["hosts"].values() for secret in each["secrets"]]
    names = sorted({secret["name"] for secret in of_all if holds_several(secret)})
    stored = [secret for secret in work["secrets"] if secret["name"] in names and secret["stores"]]
    secrets = [secret for secret in stored if holds_several(secret)]
    readers = plan.get("readers_of_several", ()) if secrets or not stored else ()
    return {
        "names": names,
        "secrets": secrets,
        "services": by_wave(plan, [service for service in work["services"] if service["name"] in readers]),
    }


def by_wave(plan: Mapping[str, Any], services: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Services in the waves of the plan, each wave in the order given."""
    waves: list[list[Mapping[str, Any]]] = [[] for _wave in plan["waves"]]
    for service in services:
        waves[service["wave"]].append(service)
    return waves


def libraries(plan: Mapping[str, Any], host: str) -> list[str]:
    """The Python libraries that a host's work needs."""
    work = plan["hosts"].get(host, _NOTHING)
    servers = {server["type"] for server in work["servers"]}
    tables = any("database" in job for job in work.get("signing", ()))
    needed = {
        "cryptography": True,
        "psycopg": bool(work["jobs"] or plan["helpers"].get(host) or tables or "postgres" in servers),
        "redis": "redis" in servers,
        "docker": any(service["manager"] == "compose" for service in work["services"]),
    }
    return [library for library, is_needed in needed.items() if is_needed]


def _files(work: Mapping[str, Any]) -> list[str]:
    """The files that hold its secrets; what only commands reach is no file."""
    stores = [store for secret in work["secrets"] for store in secret["stores"]]
    return list(dict.fromkeys(store["path"] for store in stores if store["type"] != "keyset_command"))
