# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From catalog and register to a plan: which secrets, in what order, on which hosts. Pure; time is passed in."""

from __future__ import annotations

import calendar
import hashlib
import json
import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils import registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.derived import parent_of, root_of
from ansible_collections.keyturn.rotation.plugins.module_utils.emergency import split_probes
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets import declared as keysets
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest, parse_duration
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.declared import work_of
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api import of_catalog as signing_api
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.declared import check_together, job_of
from ansible_collections.keyturn.rotation.plugins.module_utils.steps import holds_several
from ansible_collections.keyturn.rotation.plugins.module_utils.waves import merge_depends_on, restart_waves
from ansible_collections.keyturn.rotation.plugins.module_utils.window import closing_seconds, declared

__all__ = [
    "ALL",
    "EMERGENCY",
    "PHASES",
    "asks_for_all",
    "build",
    "choose",
    "choose_services",
    "due",
    "goes_on",
    "ordered",
    "parse_stamp",
    "retire_after",
    "service_plan",
    "tied",
    "waived",
]

#: The phases after plan, by strategy.
PHASES: dict[str, tuple[str, ...]] = {
    "replace": ("preflight", "backup", "stage", "promote", "restart", "verify"),
    "overlap": ("preflight", "backup", "stage", "reload", "promote", "restart", "migrate", "verify"),
    "cutover": ("preflight", "backup", "stage", "migrate", "promote", "restart", "verify"),
}
#: The phases of an emergency: the overlap is skipped on purpose, and nothing goes back.
EMERGENCY = ("preflight", "replace", "refresh", "restart", "prove", "watch")
#: How re-encryption treats a database, as arguments of ``reencrypt``; and the same for one that must stay calm.
_PACE = {"workers": 0, "batch_rows": 500, "lock_timeout_ms": 100}
_CALM = {"workers": 1, "batch_rows": 200, "lock_timeout_ms": 50}
#: In place of names: every secret that turns by itself, due or not.
ALL = "all"
#: Time kept for going back when the catalog does not say, in seconds.
DEFAULT_OVERLAP = 86400
#: How long logs are watched after an emergency when the catalog does not say.
_WATCH = "1m"


def parse_stamp(stamp: str) -> float:
    """Seconds of a UTC stamp as the register writes it (milliseconds are dropped)."""
    return float(calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")))


def due(secret: Mapping[str, Any], record: Mapping[str, Any], now: float) -> str:
    """``due``, ``fresh`` or ``no period`` for a secret and its entry in the register."""
    if "cryptoperiod" not in secret:
        return "no period"
    since = record.get("primary_since")
    if since is None:
        return "due"
    return "due" if parse_stamp(since) + parse_duration(secret["cryptoperiod"]) <= now else "fresh"


def retire_after(secrets: Iterable[Mapping[str, Any]]) -> int:
    """Seconds from verify to retire: the longest window among the secrets, or ``overlap_min`` where they have none.

    What a rotation measures comes on top: :func:`window.closing_seconds`.
    """
    return max((_retire_seconds(secret) for secret in secrets), default=0)


def _retire_seconds(secret: Mapping[str, Any]) -> int:
    planned = _window(secret)
    if planned is None:
        return parse_duration(secret["overlap_min"]) if "overlap_min" in secret else DEFAULT_OVERLAP
    return closing_seconds({"window": {**planned, "figures": {"jwks_max_age": 0, **planned["figures"]}}}, {})


def _window(secret: Mapping[str, Any]) -> dict[str, Any] | None:
    """The declared figures in seconds, and the floor."""
    figures = declared(secret, "keyturn_secrets")
    if figures is None:
        return None
    return {"figures": figures, "floor": parse_duration(secret.get("overlap_min", "0s"))}


def choose(
    catalog: Catalog,
    register: Mapping[str, Any],
    only: Sequence[str],
    mode: str,
    now: float,
    waived_hosts: Iterable[str] = (),
) -> list[str]:
    """The secrets that a run is about.

    A name asks for that secret. Without a name: what is open, else what is due (``rotate``), or what can be undone
    or retired where that is one rotation. :data:`ALL` asks ``rotate`` for every secret that turns by itself.

    :raises KeyturnError: ``secret-unknown``; ``rotations-several`` when a name is needed, or when hosts have to catch
        up with one of them first.
    """
    for name in only:
        if name not in catalog.secrets and not asks_for_all(catalog, only):
            raise KeyturnError(
                "secret-unknown", f"no secret {name!r}", where="keyturn_only", hint=nearest(name, catalog.secrets)
            )
    records = register["secrets"]
    chosen = catalog.secrets if asks_for_all(catalog, only) else only
    if mode == "prune":
        return sorted(chosen)
    if mode == "restore":
        return _restorable(_sharing(catalog, chosen), register, now)
    if mode == "emergency":
        return _in_emergency(catalog, only)
    if only and not asks_for_all(catalog, only):
        names = list(only)
    elif mode == "rotate":
        hosts = waived_hosts = list(waived_hosts)
        names = [
            name
            for name, secret in catalog.secrets.items()
            if registry.open_for(register, name)
            or (secret.get("auto_rotate", True) and (only or due(secret, records.get(name, {}), now) == "due"))
            or registry.catching_up(register, name, hosts)
        ]
        still_open = [name for name in names if registry.open_for(register, name)]
        names = still_open or _longest_behind(register, names, hosts) or names
    else:
        names = [name for name in catalog.secrets if _can_turn(register, name, mode)]
        names = _due_to_retire(register, names, now) if mode == "retire" else _free_to_go_back(register, names)
        if len({records[name].get("open") or records[name].get("current") for name in names}) > 1:
            raise KeyturnError(
                "rotations-several",
                f"several secrets could be meant: {', '.join(names)}",
                where="keyturn_only",
                hint="Name one",
            )
    names = [*names, *_companions(register, names, mode, waived_hosts)]
    if mode == "rotate":
        _refuse_beside_catching_up(register, sorted(set(names)), list(waived_hosts))
    missing = sorted(set(names) - set(catalog.secrets))
    if missing:
        raise KeyturnError(
            "secret-unknown",
            f"the open rotation is about {', '.join(missing)}, which the catalog does not name",
            where="keyturn_secrets",
            hint="Use the catalog that the rotation was begun with",
        )
    return sorted(set(names))


def _in_emergency(catalog: Catalog, only: Sequence[str]) -> list[str]:
    """The one secret whose version is compromised; nothing is guessed here.

    :raises KeyturnError: ``emergency-name``.
    """
    if len(only) != 1 or only[0] not in catalog.secrets:
        raise KeyturnError(
            "emergency-name",
            "an emergency is about one secret",
            where="keyturn_only",
            hint="Name it; where several are compromised, run it for each",
        )
    return list(only)


def _due_to_retire(register: Mapping[str, Any], names: Sequence[str], now: float) -> list[str]:
    """Of what can be retired: what was begun and did not finish, else the rotation that may be since longest; all where
    none may yet.
    """

    def since(name: str) -> str:
        record = register["secrets"][name]
        return str(register["rotations"][record.get("open") or record["current"]].get("retire_after") or "")

    unfinished = [name for name in names if registry.open_for(register, name)]
    if unfinished:
        return unfinished
    due_ones = [name for name in names if since(name) and parse_stamp(since(name)) <= now]
    first = min(map(since, due_ones), default=None)
    return [name for name in due_ones if since(name) == first] or list(names)


def _free_to_go_back(register: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Without those that turned together with one that is open in another rotation: that one has to end first."""

    def waits(name: str) -> bool:
        rotation = register["rotations"][register["secrets"][name]["current"]]
        return any(registry.open_for(register, each) for each in rotation["secrets"])

    return [name for name in names if registry.open_for(register, name) or not waits(name)] or list(names)


def _sharing(catalog: Catalog, names: Iterable[str]) -> list[str]:
    """These secrets and all that lie in the same files: a file is restored as a whole."""

    def files(name: str) -> set[tuple[str, str]]:
        return {(host, store["path"]) for store in catalog.secrets[name]["stores"] for host in store["hosts"]}

    found = set(names)
    shared: set[tuple[str, str]] = set()
    while True:
        shared.update(place for name in found for place in files(name))
        more = {name for name in catalog.secrets if name not in found and files(name) & shared}
        if not more:
            return sorted(found)
        found |= more


def asks_for_all(catalog: Catalog, only: Sequence[str]) -> bool:
    """Whether no secret is named by itself: nothing is named, or ``all``."""
    return not only or (list(only) == [ALL] and ALL not in catalog.secrets)


def goes_on(register: Mapping[str, Any], names: Sequence[str], waived_hosts: Iterable[str]) -> bool:
    """Whether a rotation of these secrets is open, or has hosts that catch up: then nothing new is decided."""
    hosts = list(waived_hosts)
    return any(registry.open_for(register, name) or registry.catching_up(register, name, hosts) for name in names)


def _longest_behind(register: Mapping[str, Any], names: Sequence[str], waived_hosts: Sequence[str]) -> list[str]:
    """Of the secrets for which hosts have to catch up those of the oldest rotation: each is gone on with by itself, and
    nothing new begins on a host that is behind.
    """
    behind = {name: registry.catching_up(register, name, waived_hosts) for name in names}
    waiting = sorted({found for found in behind.values() if found}, key=lambda one: _began(register, one))
    return [name for name, found in behind.items() if waiting and found == waiting[0]]


def _refuse_beside_catching_up(register: Mapping[str, Any], names: Sequence[str], waived_hosts: Sequence[str]) -> None:
    """Refuse to begin something new for what hosts have to catch up with: they hold a version from before."""
    behind = {name: registry.catching_up(register, name, waived_hosts) for name in names}
    first = next((found for found in behind.values() if found), None)
    if first is None or len(set(behind.values())) == 1 or any(registry.open_for(register, name) for name in names):
        return
    together = [name for name, found in behind.items() if found == first]
    waiting = {entry["host"] for entry in register["rotations"][first]["waived"]} - set(waived_hosts)
    raise KeyturnError(
        "rotations-several",
        f"{', '.join(sorted(waiting))} first has to catch up with rotation {first} of {', '.join(together)}",
        where="keyturn_only",
        hint=f"Run the rotate playbook with keyturn_only={','.join(together)}, then this command again",
    )


def _began(register: Mapping[str, Any], rotation_id: str) -> str:
    return str(register["rotations"][rotation_id]["started_at"])


def _companions(register: Mapping[str, Any], names: Sequence[str], mode: str, waived_hosts: Iterable[str]) -> list[str]:
    """What was turned together goes on, goes back, catches up and is retired together.

    Of a secret that is open only those count that are open with it, not those with which it turned last.
    """
    found = {registry.open_rotation(register, names)}
    names = [name for name in names if not registry.open_for(register, name)]
    if mode == "rotate":
        hosts = list(waived_hosts)
        found |= {registry.catching_up(register, name, hosts) for name in names}
    else:
        found |= {register["secrets"].get(name, {}).get("current") for name in names if _can_turn(register, name, mode)}
    return [name for rotation in found - {None} for name in register["rotations"][rotation]["secrets"]]


def _restorable(names: list[str], register: Mapping[str, Any], now: float) -> list[str]:
    for name in names:
        found = registry.in_use(register, name, now)
        if found is not None:
            raise KeyturnError(
                "rotation-busy",
                f"rotation {found} of {name} is open",
                where="state host",
                hint="Roll it back first" if registry.open_for(register, name) else "A retire asks about it: try later",
            )
    return names


def _can_turn(register: Mapping[str, Any], name: str, mode: str) -> bool:
    record = register["secrets"].get(name, {})
    found = registry.open_for(register, name)
    if found:
        retiring = register["rotations"].get(found, {}).get("status") == "retiring"
        return bool(retiring) == (mode == "retire")
    rotation = register["rotations"].get(record.get("current"))
    return rotation is not None and rotation["status"] == "overlap"


def waived(entries: Iterable[Mapping[str, Any]], today: str) -> dict[str, dict[str, str]]:
    """Hosts that may be missing, by name, with reason and last day.

    :param entries: ``keyturn_waive``: ``{host, reason, until}`` with ``until`` as ``YYYY-MM-DD``.
    :raises KeyturnError: ``waiver-invalid``, ``waiver-ended``.
    """
    found: dict[str, dict[str, str]] = {}
    for index, entry in enumerate(entries):
        where = f"keyturn_waive[{index}]"
        if not isinstance(entry, Mapping) or not all(entry.get(key) for key in ("host", "reason", "until")):
            raise KeyturnError("waiver-invalid", "needs host, reason and until", where=where, hint="until: 2026-12-31")
        until = str(entry["until"])
        try:
            time.strptime(until, "%Y-%m-%d")
        except ValueError:
            raise KeyturnError("waiver-invalid", "until is no date", where=where, hint="Write YYYY-MM-DD") from None
        if until < today:
            raise KeyturnError(
                "waiver-ended",
                f"the waiver of {entry['host']} ended on {until}",
                where=where,
                hint="Bring the host back or renew it",
            )
        found[str(entry["host"])] = {"host": str(entry["host"]), "reason": str(entry["reason"]), "until": until}
    return found


def _consumers(catalog: Catalog, names: Iterable[str]) -> set[str]:
    return {service for name in names for service in catalog.secrets[name].get("consumers", ())}


def _services(catalog: Catalog, affected: Iterable[str]) -> list[list[str]]:
    return [list(wave) for wave in restart_waves(catalog.services, sorted(affected))]


def _refuse_without_backup(catalog: Catalog, names: Iterable[str]) -> None:
    keys = sorted(name for name in names if catalog.secrets[name]["kind"] == "encryption_key")
    if keys:
        raise KeyturnError(
            "backup-needed",
            f"data at rest depends on {', '.join(keys)}, so there must be a backup",
            where="keyturn_skip_backup",
            hint="Leave keyturn_skip_backup away, or turn other secrets with keyturn_only",
        )


def ordered(catalog: Catalog, seen: Mapping[str, Mapping[str, Any]]) -> Catalog:
    """The catalog with what Docker Compose says of the order too.

    :param seen: by host the answer of ``compose_info``.
    """
    merged = merge_depends_on(catalog.services, seen)
    return replace(
        catalog, services={name: {**entry, "depends_on": merged[name]} for name, entry in catalog.services.items()}
    )


def _placed(catalog: Catalog, waves: Sequence[Sequence[str]]) -> list[tuple[str, dict[str, Any]]]:
    """Host and service, in order, as the modules and the role ``restart`` take it."""
    return [
        (
            host,
            {
                "name": name,
                "wave": number,
                **{k: v for k, v in catalog.services[name].items() if k not in ("hosts", "depends_on")},
            },
        )
        for number, wave in enumerate(waves)
        for name in wave
        for host in catalog.services[name]["hosts"]
    ]


def choose_services(
    catalog: Catalog, register: Mapping[str, Any] | None, only: Sequence[str], wanted: Sequence[str]
) -> list[str]:
    """The services that a run is about.

    :param register: only read where nothing is named: the secrets of the last rotation are meant then.
    :param only: secrets; the services that read them are meant.
    :param wanted: services by name, or ``all``.
    :raises KeyturnError: ``service-unknown``, ``secret-unknown``, ``services-none``.
    """
    if list(wanted) == ["all"]:
        return sorted(catalog.services)
    for name in wanted:
        if name not in catalog.services:
            raise KeyturnError(
                "service-unknown",
                f"there is no service {name!r}",
                where="keyturn_restart",
                hint=nearest(name, catalog.services),
            )
    if wanted:
        return sorted(set(wanted))
    for name in only:
        if name not in catalog.secrets:
            raise KeyturnError(
                "secret-unknown", f"no secret {name!r}", where="keyturn_only", hint=nearest(name, catalog.secrets)
            )
    names = list(only)
    if not names and register and register["rotations"]:
        last = max(register["rotations"].values(), key=lambda rotation: str(rotation["started_at"]))
        names = [name for name in last["secrets"] if name in catalog.secrets]
    found = sorted({service for name in names for service in catalog.secrets[name].get("consumers", ())})
    if not found:
        raise KeyturnError(
            "services-none",
            f"no service reads {', '.join(names)}" if names else "nothing has been turned yet",
            where="keyturn_only",
            hint="Name services with keyturn_restart, or say keyturn_restart=all",
        )
    return found


def service_plan(catalog: Catalog, names: Sequence[str]) -> dict[str, Any]:
    """Services without a secret: ``services`` by name, ``waves``, ``hosts`` with what each has, ``state_host``."""
    waves = restart_waves(catalog.services, names)
    hosts: dict[str, list[dict[str, Any]]] = {}
    for host, service in _placed(catalog, waves):
        hosts.setdefault(host, []).append(service)
    return {"services": sorted(names), "waves": waves, "hosts": hosts, "state_host": catalog.state_host}


def _placed_probes(
    catalog: Catalog, secret: Mapping[str, Any], probe: Mapping[str, Any], consumers: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Host and probe. A log is looked for where its service runs; without a source it is that of every consumer."""
    declared = {key: value for key, value in probe.items() if key not in ("hosts", "service")}
    if probe["type"] != "log" or "path" in probe or "unit" in probe:
        if isinstance(probe.get("path"), str):
            declared["path"] = [probe["path"]]
        for host in probe.get("hosts", consumers):
            yield host, declared
        return
    services = [probe["service"]] if "service" in probe else secret["consumers"]
    for service in services:
        entry = catalog.services[service]
        place = {"unit": entry.get("unit")}
        if entry["manager"] == "compose":
            kept = ("project_dir", "project", "docker_host")
            place = {"service": entry.get("service", service), **{key: entry[key] for key in kept if key in entry}}
        name = {"name": f"{probe['name']} of {service}"} if "name" in probe and len(services) > 1 else {}
        for host in entry["hosts"]:
            yield host, {**declared, **name, **place}


def _container_probes(catalog: Catalog, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Host and probe for each consumer that Docker Compose runs where an environment file with this secret lies.

    Only where the file holds one version: readers of several have the old one in their environment too.
    """
    secret = catalog.secrets[name]
    files = [store for store in secret["stores"] if store["type"] == "env_file"]
    if any(store.get("layout", "single") != "single" for store in files):
        return []
    with_file = {host for store in files for host in store["hosts"]}
    found = []
    for service in secret.get("consumers", ()):
        entry = catalog.services[service]
        if entry["manager"] != "compose":
            continue
        place = {key: entry[key] for key in ("project_dir", "project", "docker_host") if key in entry}
        probe = {
            "name": f"{name} in the containers of {service}",
            "type": "container_env",
            "secret": name,
            "version": "old",
            "service": entry.get("service", service),
            "variables": sorted({store.get("variable") or name for store in files}),
            **place,
        }
        found += [(host, probe) for host in entry["hosts"] if host in with_file]
    return found


_ASKED = ("name", "url", "headers", "ca_file", "timeout")


def _published(secret: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By host: the addresses of published keys that it asks, as ``jwks_info`` takes them; the caches that it empties;
    and how many seconds a new key may take.
    """
    found: dict[str, dict[str, Any]] = {}
    for endpoint in secret.get("jwks", ()):
        for number, host in enumerate(endpoint["hosts"]):
            entry = found.setdefault(host, {"endpoints": [], "purge": [], "within": 0})
            entry["endpoints"].append({key: endpoint[key] for key in _ASKED if key in endpoint})
            entry["within"] = max(entry["within"], parse_duration(endpoint.get("within", "15m")))
            if endpoint.get("refresh") == "purge" and number == 0:
                asked = {"url": endpoint["url"], "method": "PURGE", **endpoint.get("purge", {})}
                entry["purge"].append({**({"ca_file": endpoint["ca_file"]} if "ca_file" in endpoint else {}), **asked})
    return found


def _gateways(catalog: Catalog, secret: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Host and service of each gateway that is restarted so that it shows a new key."""
    names = {endpoint["service"] for endpoint in secret.get("jwks", ()) if "service" in endpoint}
    return _placed(catalog, [sorted(names)])


def _quiesce(catalog: Catalog, secret: Mapping[str, Any]) -> str:
    """What a secret's readers do while it turns: stopped only where all of them are.

    Readers of several keys can always read and write.
    """
    if secret["strategy"] != "cutover":
        return "none"
    ways = {catalog.services[service].get("quiesce", "none") for service in secret.get("consumers", ())}
    if "writes" in ways:
        return "writes"
    return "stop" if ways == {"stop"} else "none"


def _jobs(catalog: Catalog, name: str) -> list[tuple[list[str], dict[str, Any]]]:
    """Work in databases: one job per secret and database, with the host that leads and those that help."""
    secret = catalog.secrets[name]
    jobs: dict[str, dict[str, Any]] = {}
    for section, key in (("data", "columns"), ("clear", "clear"), ("indexes", "indexes")):
        for entry in secret.get(section, ()):
            job = jobs.setdefault(
                entry["database"],
                {
                    "secret": name,
                    "database": entry["database"],
                    "columns": [],
                    "clear": [],
                    "indexes": [],
                    **{source: secret[source] for source in ("value_from", "old_from") if source in secret},
                },
            )
            job[key].append({field: value for field, value in entry.items() if field != "database"})
    for database, job in sorted(jobs.items()):
        entry = catalog.databases[database]
        job["dsn_file"] = entry.get("dsn_file", "")
        job["max_wait"] = entry.get("max_wait", 0)
        job["search"] = entry.get("search", True)
        job["cut_over"] = entry.get("cut_over", "auto")
        job["max_writer_wait"] = entry.get("max_writer_wait", 1)
        job["quiesce"] = _quiesce(catalog, secret)
        job["pace"] = _pace(entry)
        job["sanitize"] = secret.get("sanitize", False)
    return [(catalog.databases[database]["hosts"], job) for database, job in sorted(jobs.items())]


#: The part of a host's plan that a role works on; where no host has it there is nothing to do.
_WORKS_ON = {"keyturn.rotation.env_secret": "servers"}


def _kinds(
    named: Sequence[str], kinds: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each role once: several kinds may share one."""
    by_role = {kinds[kind]["role"]: dict(kinds[kind], kind=kind) for kind in reversed(named)}
    for role, part in _WORKS_ON.items():
        if role in by_role and not any(work[part] for work in hosts.values()):
            by_role[role]["phases"] = []
    return [by_role[role] for role in reversed(by_role)]


#: Where a host's plan has the probes of :func:`keysets.probes_of`.
_PROBES = {"always": "probes", "overlap": "overlap_probes", "late": "late_probes"}


def _asked(secret: Mapping[str, Any], probe: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What a probe asks, by its place in a host's plan."""
    plain = {key: value for key, value in probe.items() if key != "hosts"}
    if secret["kind"] != keysets.KIND:
        return {"probes": [plain]}
    return {_PROBES[when]: asked for when, asked in keysets.probes_of(plain).items()}


def _reloading(catalog: Catalog, names: Iterable[str]) -> set[str]:
    """Services that load what turns by themselves, so that they are not restarted."""
    by_themselves = {
        name
        for name in names
        if catalog.secrets[name]["kind"] == keysets.KIND
        and keysets.summary(catalog.secrets[name])["readers"] == "reload"
    }
    return _consumers(catalog, by_themselves) - _consumers(catalog, set(names) - by_themselves)


def _readers_of_several(catalog: Catalog, names: Iterable[str]) -> set[str]:
    """Services that hold two versions until retire, and go on taking the old one once it is out of its stores.

    Keysets have their own way.
    """
    return _consumers(catalog, (name for name in names if holds_several(catalog.secrets[name])))


def _pace(database: Mapping[str, Any]) -> dict[str, int]:
    """How a database is treated; what its entry says by itself goes before ``calm``."""
    pace = dict(_CALM if database.get("calm") else _PACE)
    pace.update({key: database[key] for key in ("workers", "batch_rows") if key in database})
    return {**pace, "rate": database.get("rate", 0), "max_lag": database.get("max_lag", 0) * 2**20}


def _is_shared_by_hosts(hosts: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether several hosts reach a keyset by the same commands, so that it may be one: they take turns then."""
    places = [
        (secret["name"], store["path"])
        for work in hosts.values()
        for secret in work["secrets"]
        for store in secret["stores"]
        if store["type"] == "keyset_command"
    ]
    return len(places) > len(set(places))


def _columns_by_database(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Kept in the register while a rotation lasts: a way back without one of them would leave its rows behind."""
    found: dict[str, dict[str, int]] = {}
    for job in (job for work in hosts.values() for job in work["jobs"]):
        databases = found.setdefault(job["secret"], {})
        databases[job["database"]] = databases.get(job["database"], 0) + len(job["columns"])
    return found


def build(
    catalog: Catalog,
    names: Sequence[str],
    kinds: Mapping[str, Mapping[str, Any]],
    waivers: Mapping[str, Mapping[str, str]],
    *,
    of_files: bool = False,
    all_services: bool = False,
    skip_backup: bool = False,
    emergency: bool = False,
) -> dict[str, Any]:
    """The plan for these secrets.

    :param kinds: by kind: ``role`` (the role's full name) and ``phases`` (the task files it has).
    :param waivers: see :func:`waived`.
    :param of_files: whether nothing turns: it is about files and backups, and secrets of any strategy may be in it.
    :param all_services: whether every service is in it, not only those that read these secrets.
    :param skip_backup: whether nothing is backed up first.
    :param emergency: whether their versions are compromised and replaced at once.
    :returns: ``secrets``, ``hosts`` (what each does), ``helpers`` (jobs of others that a host helps with; it is not
        needed for that), ``waves``, ``phases``, ``kinds``, ``waived``, ``readers_of_several`` (services that retire
        restarts), ``digest``, ``data`` (by secret and database, how many columns), ``at_once`` (how many hosts
        may change their stores at once; 0 for any number).
    :raises KeyturnError: ``strategies-mixed``, ``waiver-invalid`` for a host that cannot be left out,
        ``backup-needed``, ``keys-together``, ``emergency-kind``, ``emergency-no-disable``.
    """
    if emergency:
        _refuse_kinds_without_emergency(catalog, names, kinds)
    if not of_files:
        check_together(catalog.secrets, names)
    strategies = [] if of_files else sorted({catalog.secrets[name]["strategy"] for name in names})
    if len(strategies) > 1:
        raise KeyturnError(
            "strategies-mixed",
            f"these secrets need different orders ({', '.join(strategies)})",
            where="keyturn_only",
            hint="Turn them in runs of their own",
        )
    if skip_backup:
        _refuse_without_backup(catalog, names)
    waves = _services(catalog, catalog.services if all_services else _consumers(catalog, names))
    hosts: dict[str, dict[str, Any]] = {}
    helpers: dict[str, list[dict[str, Any]]] = {}

    def of(host: str) -> dict[str, Any]:
        return hosts.setdefault(host, {"secrets": [], "jobs": [], "servers": [], "services": [], "probes": []})

    of(catalog.state_host)
    origins = {name: _origin(catalog, name, names, waivers) for name in names}
    for name in names:
        secret = catalog.secrets[name]
        for host in sorted({*_store_hosts(secret), *filter(None, [origins[name]])}):
            of(host)["secrets"].append({"name": name, "stores": _stores_on(secret, host)})
        _read_parent(catalog, name, names, origins[name], of)
        for (leader, *others), job in _jobs(catalog, name):
            helping = [host for host in others if host not in waivers] if job["columns"] else []
            shared = {"hosts": 1 + len(helping)} if helping else {}
            of(leader)["jobs"].append({**job, **shared})
            for host in helping:
                helpers.setdefault(host, []).append({**job, **shared})
        _sign(catalog, name, waivers, of)
        for host, servers in work_of(name, secret, catalog.databases).items():
            of(host)["servers"].extend(servers)
        consumers = sorted({h for service in secret.get("consumers", ()) for h in catalog.services[service]["hosts"]})
        for probe in secret["probes"]:
            if signing_api.asked_elsewhere(secret, probe):
                continue
            for host, placed in _placed_probes(catalog, secret, probe, consumers):
                for when, asked in _asked(secret, placed).items():
                    of(host).setdefault(when, []).extend({"secret": name, **one} for one in asked)
        for host, probe in _container_probes(catalog, name):
            of(host)["probes"].append(probe)
        for host, published in _published(secret).items():
            of(host).setdefault("jwks", []).append({"secret": name, **published})
        for host, gateway in _gateways(catalog, secret):
            gateways = of(host).setdefault("gateways", [])
            gateways += [gateway] if gateway not in gateways else []
    for host, work in hosts.items():
        if work["secrets"]:
            work["search"] = _searched(catalog, host)
    reloading = _reloading(catalog, names)
    for host, service in _placed(catalog, waves):
        of(host)["services"].append({**service, **({"reloads": True} if service["name"] in reloading else {})})
    escrow = _escrow(catalog, names)
    for host in escrow["hosts"]:
        of(host)
    talking = (host for host, work in hosts.items() if work["jobs"] or work["servers"] or work.get("signing"))
    needed = {catalog.state_host, *escrow["hosts"], *talking}
    for host in waivers:
        if host in needed:
            raise KeyturnError(
                "waiver-invalid",
                f"{host} keeps the state or copies of keys, or talks to a database or another server",
                where="keyturn_waive",
                hint="It cannot be left out",
            )
    plan: dict[str, Any] = {
        "secrets": [_summary(catalog, name, names, origins[name]) for name in names],
        "strategy": strategies[0] if strategies else "",
        "phases": [phase for phase in PHASES[strategies[0]] if not skip_backup or phase != "backup"]
        if strategies
        else [],
        "kinds": _kinds(sorted({catalog.secrets[name]["kind"] for name in names}), kinds, hosts),
        "waves": waves,
        "hosts": {host: hosts[host] for host in sorted(hosts) if host not in waivers},
        "helpers": {host: helpers[host] for host in sorted(helpers)},
        "waived": [dict(waivers[host]) for host in sorted(waivers) if host in hosts],
        "state_host": catalog.state_host,
        "backup": dict(catalog.backup),
        "project": dict(catalog.project),
        "escrow": escrow,
        "skip_backup": skip_backup,
        "readers_of_several": sorted(_readers_of_several(catalog, names) - reloading),
    }
    plan["origins"] = origins
    _name_probing_hosts(plan["hosts"])
    if emergency:
        plan.update(phases=list(EMERGENCY), emergency={name: _exposed(catalog, name) for name in names})
        for work in plan["hosts"].values():
            work.update(split_probes(work["probes"]))
    plan["digest"] = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    plan["data"] = _columns_by_database(plan["hosts"])
    plan["at_once"] = 1 if _is_shared_by_hosts(plan["hosts"]) else 0
    return plan


def tied(plan: Mapping[str, Any]) -> list[list[str]]:
    """Pairs of a plan's secrets of which neither goes back without the other: a value and what it is made from, and
    keys of one table.
    """
    names = {secret["name"] for secret in plan["secrets"]}
    parents = {secret["name"]: parent_of(secret) for secret in plan["secrets"]}
    pairs = {(parent, name) for name, parent in parents.items() if parent in names}
    tables: dict[tuple[str, str], set[str]] = {}
    for job in (job for work in plan["hosts"].values() for job in work["jobs"]):
        for entry in (*job["columns"], *job.get("clear", ())):
            tables.setdefault((job["database"], entry["table"]), set()).add(job["secret"])
    for keys in map(sorted, tables.values()):
        pairs |= set(zip(keys, keys[1:]))
    return [list(pair) for pair in sorted(pairs)]


def _name_probing_hosts(hosts: Mapping[str, dict[str, Any]]) -> None:
    """Keys that lie in a table are sealed to the hosts whose probes use them; only the table's own host can read it."""
    for work in hosts.values():
        for job in work.get("signing", ()):
            probing = [host for host, other in hosts.items() if any(_uses(probe, job) for probe in other["probes"])]
            if probing:
                job["probed_on"] = probing


def _uses(probe: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    return (
        probe["secret"] == job["secret"]
        and probe.get("version", "none") != "none"
        and (probe["type"] != "log" or not probe.get("pattern"))
    )


def _refuse_kinds_without_emergency(
    catalog: Catalog, names: Iterable[str], kinds: Mapping[str, Mapping[str, Any]]
) -> None:
    for name in names:
        if signing_api.summary(catalog.secrets[name]).get("stays_listed"):
            raise KeyturnError(
                "emergency-no-disable",
                f"the issuer of {name} disables no keys, so the compromised one would stay accepted",
                where=f"keyturn_secrets.{name}.key_api",
                hint="Declare disable. Or run rotate, and take the compromised key away by the issuer's own means",
            )
        kind = catalog.secrets[name]["kind"]
        if "replace" not in kinds[kind]["phases"]:
            raise KeyturnError(
                "emergency-kind",
                f"{name} is of the kind {kind}, which has no emergency mode",
                where="keyturn_only",
                hint=f"Run rotate with keyturn_only={name}, then retire with keyturn_confirm={name}",
            )


def _exposed(catalog: Catalog, name: str) -> dict[str, Any]:
    """What :func:`window.exposure` needs to know of a secret."""
    secret = catalog.secrets[name]
    addresses = secret.get("jwks", ())
    emptied = bool(addresses) and all(entry.get("refresh") in ("purge", "restart") for entry in addresses)
    return {
        "window": _window(secret),
        "retire_seconds": retire_after([secret]),
        "emptied": emptied,
        "restarted": bool(secret.get("consumers")),
        "watch_s": parse_duration(secret.get("watch", _WATCH)),
    }


def _escrow(catalog: Catalog, names: Iterable[str]) -> dict[str, Any]:
    """Where copies of new data keys go, and which secrets are such keys; no host where there are none."""
    keys = [name for name in names if catalog.secrets[name].get("data")]
    return {**catalog.escrow, "secrets": keys} if catalog.escrow and keys else {"hosts": [], "secrets": []}


def _store_hosts(secret: Mapping[str, Any]) -> list[str]:
    return sorted({host for store in secret["stores"] for host in store["hosts"]})


def _stores_on(secret: Mapping[str, Any], host: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in store.items() if key not in ("hosts", "count")}
        for store in secret["stores"]
        if host in store["hosts"]
    ]


#: The names that Docker Compose looks for (Compose specification, "Compose file"; docker compose, "Merge").
_COMPOSE_FILES = tuple(
    f"{name}{more}.{end}"
    for name in ("compose", "docker-compose")
    for more in ("", ".override")
    for end in ("yaml", "yml")
)


def _searched(catalog: Catalog, host: str) -> list[str]:
    """Files of a host in which a value may stand that no store names: dotenv files, and those of Compose.

    Where the catalog does not say which, those that Compose looks for; what is not there is passed over.
    """
    found = {
        store["path"]
        for secret in catalog.secrets.values()
        for store in secret["stores"]
        if host in store["hosts"] and store["type"] == "env_file"
    }
    for service in catalog.services.values():
        if host in service["hosts"] and "project_dir" in service:
            names = [*(service.get("files") or _COMPOSE_FILES), *(service.get("env_files") or (".env",))]
            found |= {posixpath.join(service["project_dir"], name) for name in names}
    return sorted(found)


def _origin(catalog: Catalog, name: str, names: Sequence[str], waivers: Mapping[str, Any]) -> str | None:
    """The host that makes the new value: for a derived one a host where the value that it is made from is.

    A parent and all that is made from it are made on one host, in one call.
    """
    root = root_of(catalog.secrets, name, names)
    source = parent_of(catalog.secrets[root]) or root
    hosts = [host for host in _store_hosts(catalog.secrets[source]) if host not in waivers]
    own = [host for host in hosts if host in _store_hosts(catalog.secrets[name])]
    return next(iter([*(own if source != root else []), *hosts]), None)


def _read_parent(
    catalog: Catalog, name: str, names: Sequence[str], origin: str | None, of: Callable[[str], dict[str, Any]]
) -> None:
    """Where a derived value turns alone, the value that it is made from is read."""
    parent = parent_of(catalog.secrets[name])
    if not parent or parent in names or origin is None:
        return
    parents = of(origin).setdefault("parents", [])
    if all(entry["name"] != parent for entry in parents):
        parents.append({"name": parent, "stores": _stores_on(catalog.secrets[parent], origin)})


def _sign(catalog: Catalog, name: str, waivers: Mapping[str, Any], of: Callable[[str], dict[str, Any]]) -> None:
    """Signing keys: in a table its database's first host turns them, with the encryption key that another one reads;
    behind an API the host that asks it, and the hosts of its issuer restart that.
    """
    secret = catalog.secrets[name]
    overlap = retire_after([secret])
    job = job_of(name, secret, catalog.databases, overlap) or signing_api.job_of_api(name, secret, overlap)
    if not job:
        return
    of(job["host"]).setdefault("signing", []).append(job)
    for host, issuer in _placed(catalog, [[job["restart"]]] if job.get("restart") else []):
        issuers = of(host).setdefault("issuers", [])
        issuers += [issuer] if issuer not in issuers else []
    under = job.get("under")
    if not under:
        return
    holders = [host for host in _store_hosts(catalog.secrets[under]) if host not in waivers]
    if not holders:
        message, hint = f"every host that holds {under} is waived", "Bring one of them back"
        raise KeyturnError("waiver-invalid", message, where="keyturn_waive", hint=hint)
    holder = job["host"] if job["host"] in holders else holders[0]
    parents = of(holder).setdefault("parents", [])
    known = next((entry for entry in parents if entry["name"] == under), None)
    if known is None:
        known = {"name": under, "stores": _stores_on(catalog.secrets[under], holder)}
        parents.append(known)
    known["for"] = sorted({*known.get("for", ()), job["host"]})


def _summary(catalog: Catalog, name: str, names: Sequence[str], origin: str | None) -> dict[str, Any]:
    secret = catalog.secrets[name]
    derive = dict(secret.get("derive") or {})
    if derive and derive["from"] not in names and origin is not None:
        derive["stores"] = _stores_on(catalog.secrets[derive["from"]], origin)
    window = _window(secret)
    kept = ("kind", "strategy", "generate", "consumers", "value_from", "notice", "options")
    return {
        "name": name,
        **{key: secret[key] for key in kept if key in secret},
        **({"derive": derive} if derive else {}),
        **({"keyset": keysets.summary(secret), **_kid(secret)} if secret["kind"] == keysets.KIND else {}),
        "retire_seconds": retire_after([secret]),
        **({"window": window} if window else {}),
        **signing_api.summary(secret),
    }


def _kid(secret: Mapping[str, Any]) -> dict[str, str]:
    """The form of new kids, where the catalog has one."""
    kid = secret.get("keyset", {}).get("kid")
    return {"kid": kid} if kid else {}
