# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From catalog and register to a plan: which secrets, in what order, on which hosts. Pure; time is passed in."""

from __future__ import annotations

import calendar
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest, parse_duration
from ansible_collections.keyturn.rotation.plugins.module_utils.waves import restart_waves

__all__ = ["PHASES", "build", "choose", "due", "parse_stamp", "retire_after", "waived"]

#: The phases after plan, by strategy.
PHASES: dict[str, tuple[str, ...]] = {
    "replace": ("preflight", "backup", "stage", "promote", "restart", "verify"),
    "overlap": ("preflight", "backup", "stage", "reload", "promote", "restart", "migrate", "verify"),
    "cutover": ("preflight", "backup", "stage", "migrate", "promote", "restart", "verify"),
}
#: How re-encryption treats a database, as arguments of ``reencrypt``; and the same for one that must stay calm.
_PACE = {"workers": 0, "count_workers": 0, "batch_rows": 500, "lock_timeout_ms": 100}
_CALM = {"workers": 1, "count_workers": 0, "batch_rows": 200, "lock_timeout_ms": 50}
#: Time kept for going back when the catalog does not say, in seconds.
DEFAULT_OVERLAP = 86400


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
    """Seconds from verify to retire: the longest ``overlap_min`` among the secrets."""
    return max(
        (parse_duration(s["overlap_min"]) if "overlap_min" in s else DEFAULT_OVERLAP for s in secrets), default=0
    )


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
    or retired where that is one rotation.

    :raises KeyturnError: ``secret-unknown``; ``rotations-several`` when a name is needed.
    """
    for name in only:
        if name not in catalog.secrets:
            raise KeyturnError(
                "secret-unknown", f"no secret {name!r}", where="keyturn_only", hint=nearest(name, catalog.secrets)
            )
    records = register["secrets"]
    if mode == "restore":
        return _restorable(sorted(only or catalog.secrets), records)
    if only:
        names = list(only)
    elif mode == "rotate":
        hosts = list(waived_hosts)
        names = [
            name
            for name, secret in catalog.secrets.items()
            if records.get(name, {}).get("open")
            or due(secret, records.get(name, {}), now) == "due"
            or registry.catching_up(register, name, hosts)
        ]
        still_open = [name for name in names if records.get(name, {}).get("open")]
        names = still_open or names
    else:
        names = [name for name in catalog.secrets if _can_turn(register, name, mode)]
        if len({records[name].get("open") or records[name].get("current") for name in names}) > 1:
            raise KeyturnError(
                "rotations-several",
                f"several secrets could be meant: {', '.join(names)}",
                where="keyturn_only",
                hint="Name one",
            )
    found = registry.open_rotation(register, names)
    if found:
        names = [*names, *register["rotations"][found]["secrets"]]
    missing = sorted(set(names) - set(catalog.secrets))
    if missing:
        raise KeyturnError(
            "secret-unknown",
            f"the open rotation is about {', '.join(missing)}, which the catalog does not name",
            where="keyturn_secrets",
            hint="Use the catalog that the rotation was begun with",
        )
    return sorted(set(names))


def _restorable(names: list[str], records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    for name in names:
        if records.get(name, {}).get("open"):
            raise KeyturnError(
                "rotation-busy",
                f"rotation {records[name]['open']} of {name} is open",
                where="state host",
                hint="Roll it back first",
            )
    return names


def _can_turn(register: Mapping[str, Any], name: str, mode: str) -> bool:
    record = register["secrets"].get(name, {})
    if record.get("open"):
        retiring = register["rotations"].get(record["open"], {}).get("status") == "retiring"
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


def _services(catalog: Catalog, names: Sequence[str]) -> list[list[str]]:
    affected = sorted({service for name in names for service in catalog.secrets[name].get("consumers", ())})
    return [list(wave) for wave in restart_waves(catalog.services, affected)]


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


def _pace(database: Mapping[str, Any]) -> dict[str, int]:
    """How a database is treated; what its entry says by itself goes before ``calm``."""
    pace = dict(_CALM if database.get("calm") else _PACE)
    pace.update({key: database[key] for key in ("workers", "batch_rows") if key in database})
    pace["count_workers"] = database.get("workers", pace["count_workers"])
    return {**pace, "rate": database.get("rate", 0), "max_lag": database.get("max_lag", 0) * 2**20}


def build(
    catalog: Catalog,
    names: Sequence[str],
    kinds: Mapping[str, Mapping[str, Any]],
    waivers: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """The plan for these secrets.

    :param kinds: by kind: ``role`` (the role's full name) and ``phases`` (the task files it has).
    :param waivers: see :func:`waived`.
    :returns: ``secrets``, ``hosts`` (what each does), ``helpers`` (jobs of others that a host helps with; it is not
        needed for that), ``waves``, ``phases``, ``kinds``, ``waived``, ``digest``.
    :raises KeyturnError: ``strategies-mixed``, ``waiver-invalid`` for a host that cannot be left out.
    """
    strategies = sorted({catalog.secrets[name]["strategy"] for name in names})
    if len(strategies) > 1:
        raise KeyturnError(
            "strategies-mixed",
            f"these secrets need different orders ({', '.join(strategies)})",
            where="keyturn_only",
            hint="Turn them in runs of their own",
        )
    waves = _services(catalog, names)
    hosts: dict[str, dict[str, Any]] = {}
    helpers: dict[str, list[dict[str, Any]]] = {}

    def of(host: str) -> dict[str, Any]:
        return hosts.setdefault(host, {"secrets": [], "jobs": [], "services": [], "probes": []})

    of(catalog.state_host)
    for name in names:
        secret = catalog.secrets[name]
        for host in sorted({host for store in secret["stores"] for host in store["hosts"]}):
            stores = [
                {key: value for key, value in store.items() if key not in ("hosts", "count")}
                for store in secret["stores"]
                if host in store["hosts"]
            ]
            of(host)["secrets"].append({"name": name, "stores": stores})
        for (leader, *others), job in _jobs(catalog, name):
            helping = [host for host in others if host not in waivers] if job["columns"] else []
            shared = {"hosts": 1 + len(helping)} if helping else {}
            of(leader)["jobs"].append({**job, **shared})
            for host in helping:
                helpers.setdefault(host, []).append({**job, **shared})
        consumers = sorted({h for service in secret.get("consumers", ()) for h in catalog.services[service]["hosts"]})
        for probe in secret["probes"]:
            for host in probe.get("hosts", consumers):
                of(host)["probes"].append({"secret": name, **{k: v for k, v in probe.items() if k != "hosts"}})
    for number, wave in enumerate(waves):
        for service in wave:
            entry = catalog.services[service]
            for host in entry["hosts"]:
                of(host)["services"].append(
                    {
                        "name": service,
                        "wave": number,
                        **{k: v for k, v in entry.items() if k not in ("hosts", "depends_on")},
                    }
                )
    needed = {catalog.state_host, *(host for host, work in hosts.items() if work["jobs"])}
    for host in waivers:
        if host in needed:
            raise KeyturnError(
                "waiver-invalid",
                f"{host} keeps the state or talks to a database",
                where="keyturn_waive",
                hint="It cannot be left out",
            )
    plan: dict[str, Any] = {
        "secrets": [_summary(catalog.secrets[name], name) for name in names],
        "strategy": strategies[0] if strategies else "",
        "phases": list(PHASES[strategies[0]]) if strategies else [],
        "kinds": [dict(kinds[kind], kind=kind) for kind in sorted({catalog.secrets[name]["kind"] for name in names})],
        "waves": waves,
        "hosts": {host: hosts[host] for host in sorted(hosts) if host not in waivers},
        "helpers": {host: helpers[host] for host in sorted(helpers)},
        "waived": [dict(waivers[host]) for host in sorted(waivers) if host in hosts],
        "state_host": catalog.state_host,
    }
    plan["origins"] = {
        name: next(
            (host for host, work in plan["hosts"].items() if any(entry["name"] == name for entry in work["secrets"])),
            None,
        )
        for name in names
    }
    plan["digest"] = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    return plan


def _summary(secret: Mapping[str, Any], name: str) -> dict[str, Any]:
    kept = ("kind", "strategy", "generate", "consumers", "value_from", "notice", "options")
    return {
        "name": name,
        **{key: secret[key] for key in kept if key in secret},
        "retire_seconds": retire_after([secret]),
    }
