# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Catalog, register and inventory become a plan; a run that would split a key is refused."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible import context
from ansible.plugins.loader import module_loader
from ansible.utils.collection_loader._collection_finder import _get_collection_path
from ansible.utils.vars import load_extra_vars
from ansible_collections.keyturn.rotation.plugins.module_utils import plan as planning
from ansible_collections.keyturn.rotation.plugins.module_utils import registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.columns import check_shared
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.held import reasons_to_hold, settle
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest, parse_duration
from ansible_collections.keyturn.rotation.plugins.module_utils.steps import steps
from ansible_collections.keyturn.rotation.plugins.plugin_utils import notices
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import (
    KeyturnAction,
    answers_of,
    display,
    names_in,
)
from ansible_collections.keyturn.rotation.plugins.plugin_utils.agenda import age, agenda
from ansible_collections.keyturn.rotation.plugins.plugin_utils.bundle import shown_catalog
from ansible_collections.keyturn.rotation.plugins.plugin_utils.catalog_variables import catalog_variables
from ansible_collections.keyturn.rotation.plugins.plugin_utils.controller import seen_alive
from ansible_collections.keyturn.rotation.plugins.plugin_utils.known_variables import refuse_misspelt
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import render
from ansible_collections.keyturn.rotation.plugins.plugin_utils.standing import only_these

_COLLECTION = "keyturn.rotation"
_COMPOSE = "community.docker.docker_compose_v2"
#: Modes that look at everything and plan no run.
_LOOKING = ("status", "due", "diagnose")
#: Kinds that are another one by a name of their own.
_SAME_ROLE = {"database_login": "env_secret", "redis_login": "env_secret"}
_FORWARD = ("preflight", "stage", "migrate", "promote", "replace", "verify", "retire")
_ENTRY_POINTS = (*_FORWARD, "help", "helped", "before_retire", "before_rollback", "rollback")


def kind_of(kind: str) -> dict[str, Any]:
    """The role behind a kind and the phases it has a task file for.

    :raises KeyturnError: ``kind-unknown``.
    """
    collection, _dot, role = kind.rpartition(".")
    if not collection:
        collection, role = _COLLECTION, _SAME_ROLE.get(role, role)
    try:
        folder = os.path.join(_get_collection_path(collection), "roles", role, "tasks")
    except ValueError:
        folder = ""
    phases = [name for name in _ENTRY_POINTS if os.path.isfile(os.path.join(folder, f"{name}.yml"))]
    if not phases:
        raise KeyturnError(
            "kind-unknown",
            f"there is no role {collection}.{role}",
            where="keyturn_secrets",
            hint="See docs/catalog.md for the kinds",
        )
    return {"role": f"{collection}.{role}", "phases": phases}


def _refuse_missing_collection(services: Iterable[Mapping[str, Any]]) -> None:
    """Before anything changes: a task whose module is not there ends a whole play, past every way back."""
    managed = [service for service in services if service["manager"] == "compose"]
    if managed and not module_loader.find_plugin(_COMPOSE):
        raise KeyturnError(
            "collection-missing",
            "Docker Compose needs the collection community.docker, which is not on this controller",
            where="keyturn_services",
            hint="ansible-galaxy collection install community.docker (or add it to the execution environment)",
        )


def _gate(catalog: Catalog, waivers: Mapping[str, Any]) -> dict[str, Any]:
    """All services, but those of hosts that may be missing."""
    plan = planning.service_plan(catalog, sorted(catalog.services))
    return {**plan, "hosts": {host: services for host, services in plan["hosts"].items() if host not in waivers}}


def _kinds(catalog: Catalog) -> dict[str, dict[str, Any]]:
    return {secret["kind"]: kind_of(secret["kind"]) for secret in catalog.secrets.values()}


def _skips_backup(register: Mapping[str, Any], names: Sequence[str], asked: bool) -> bool:
    """Whether there is no backup: as the rotation was begun, where one is open."""
    found = registry.open_rotation(register, names) if names else None
    return bool(register["rotations"][found].get("skip_backup")) if found else asked


def _everything(catalog: Catalog) -> dict[str, Any]:
    """The catalog as it may be shown, and the services of every host."""
    services: dict[str, list[dict[str, Any]]] = {}
    for name, service in sorted(catalog.services.items()):
        entry = {"name": name, **{key: value for key, value in service.items() if key not in ("hosts", "depends_on")}}
        for host in service["hosts"]:
            services.setdefault(host, []).append(entry)
    return {
        "catalog": shown_catalog(catalog.secrets, catalog.services, catalog.databases),
        "services": services,
    }


def _watch_s(plan: Mapping[str, Any], asked: str) -> int:
    """For how long logs are watched after an emergency: as was asked, else as the catalog says."""
    if asked:
        return parse_duration(f"{asked}s" if asked.isdigit() else asked, "keyturn_watch")
    return max((secret["watch_s"] for secret in plan.get("emergency", {}).values()), default=0)


class ActionModule(KeyturnAction):
    """Run on the state host; its register is the only thing that is read."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Guard, load, choose, build."""
        args = self._task.args
        mode = args.get("mode", "rotate")
        self._refuse_partial_run()
        for name in refuse_misspelt(load_extra_vars(self._loader), mode not in ("rollback", "emergency")):
            display.warning(f"{name} was given, and nothing of this collection reads a variable of that name")
        catalog = self._load(catalog_variables(self._templar, task_vars), task_vars)
        if mode == "validate":
            self._check_recipients(task_vars)
            return self._validated(catalog)
        composed = answers_of(task_vars, "__rotation_compose")
        catalog = planning.ordered(catalog, {host: said for host, said in composed.items() if "projects" in said})
        if mode == "services":
            return self._planned_services(catalog, task_vars)
        asked = {"action": "read", "state_dir": args["state_dir"], "evidence": mode in ("status", "diagnose")}
        read = self.call("rotation_state", asked, task_vars)
        register, evidence = read["register"], read.get("evidence", {})
        now = planning.parse_stamp(read["now"])
        only = names_in(args.get("only"))
        choice = "rotate" if mode == "plan" else mode
        waivers = planning.waived(args.get("waive") or (), read["now"][:10])
        names = [] if mode in _LOOKING else planning.choose(catalog, register, only, choice, now, waivers)
        if mode in ("rotate", "rollback", "retire"):
            registry.one_way(register, names, mode)
        held: list[dict[str, Any]] = []
        begins = choice == "rotate" and not planning.goes_on(register, names, waivers)
        if begins:
            names, held = settle(catalog.secrets, names, not planning.asks_for_all(catalog, only))
            kept = [name for name in catalog.secrets if registry.has_way_back(register, name)]
            check_shared(catalog.secrets, names, kept)
        until = str(args.get("until") or "")
        built = planning.build(
            catalog,
            names,
            _kinds(catalog),
            waivers,
            of_files=mode in ("restore", "prune"),
            all_services=args.get("services") == "all",
            skip_backup=_skips_backup(register, names, bool(args.get("skip_backup"))),
            emergency=mode == "emergency",
        )
        losing = registry.losing(register, names) if choice in ("rotate", "emergency") else []
        left_out = registry.left_out(register, names, built["data"]) if begins else []
        plan = {**built, "held": held, "losing": losing + left_out}
        if until and names and until not in plan["phases"]:
            raise KeyturnError(
                "phase-unknown", f"no phase {until!r} here", where="keyturn_until", hint=nearest(until, plan["phases"])
            )
        if until == "promote":
            raise KeyturnError(
                "phase-unsafe",
                "promote cannot be left half way: services would stay down",
                where="keyturn_until",
                hint="Stop after migrate, or go on to restart",
            )
        if begins and names and args.get("require_digest") and not args.get("digest"):
            raise KeyturnError(
                "plan-needed",
                "nothing begins here without a plan that was agreed to",
                where="keyturn_plan",
                hint="Run the plan playbook with the same variables, let it be approved, and give its digest",
            )
        if args.get("digest") and args["digest"] != plan["digest"]:
            raise KeyturnError(
                "plan-changed",
                f"the plan is {plan['digest']} now, not the one that was agreed to",
                where="keyturn_plan",
                hint="Run the plan playbook, look at it, and use its digest",
            )
        if names:
            self._refuse_missing_hosts(plan, task_vars)
            if args.get("restarts"):
                _refuse_missing_collection(service for work in plan["hosts"].values() for service in work["services"])
        if plan["skip_backup"]:
            display.warning("no backup will be made, as keyturn_skip_backup asks")
        holders = [(rotation.get("holder") or {}).get("run_id", "") for rotation in register["rotations"].values()]
        seen = seen_alive(filter(None, holders))
        grace = parse_duration(str(args.get("grace") or "7d"), "keyturn_grace")
        overview = self._overview(catalog, register, evidence, now)
        asked_for = [row["name"] for row in only_these(overview, only)] if only and mode == "due" else []
        return {
            "changed": False,
            "agenda": agenda(catalog.secrets, register, seen, now, grace, waivers, asked_for),
            "grace_s": grace,
            "watch_s": _watch_s(plan, str(args.get("watch") or "")),
            "plan": plan,
            "gate": _gate(catalog, waivers) if begins and names and args.get("gate") == "all" else {},
            "steps": steps(plan, until),
            "names": names,
            "secrets": overview,
            "evidence": evidence,
            "rotations": register["rotations"],
            "needed": registry.undoable(register),
            "sees_alive": seen,
            **(_everything(catalog) if mode == "diagnose" else {}),
            "now": read["now"],
            "run": secrets.token_hex(4),
        }

    @staticmethod
    def _validated(catalog: Catalog) -> dict[str, Any]:
        """Plan each secret by itself, without a host."""
        try:
            _refuse_missing_collection(catalog.services.values())
        except KeyturnError as error:  # whoever only reads the catalog may be another machine
            display.warning(str(error))
        kinds = _kinds(catalog)
        for name in sorted(catalog.secrets):
            planning.build(catalog, [name], kinds, {})
        return {"changed": False, "names": sorted(catalog.secrets)}

    def _check_recipients(self, task_vars: Mapping[str, Any]) -> None:
        """Who is to be told; a rotation itself goes on when that is wrong, so it is said here."""
        for index, entry in enumerate(render(self._templar, task_vars.get("keyturn_notify") or [], "keyturn_notify")):
            notices.check(entry, f"keyturn_notify[{index}]")

    def _planned_services(self, catalog: Catalog, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Services by themselves; the register is read only where nothing is named."""
        args = self._task.args
        only, wanted = (names_in(args.get(name)) for name in ("only", "services"))
        register = None
        if not only and not wanted:
            read = self.call("rotation_state", {"action": "read", "state_dir": args["state_dir"]}, task_vars)
            register = read["register"]
        plan = planning.service_plan(catalog, planning.choose_services(catalog, register, only, wanted))
        if args.get("restarts"):
            _refuse_missing_collection(service for services in plan["hosts"].values() for service in services)
        return {"changed": False, "plan": plan, "names": plan["services"]}

    @staticmethod
    def _refuse_partial_run() -> None:
        options = context.CLIARGS
        for option, spelling in (
            ("start_at_task", "--start-at-task"),
            ("skip_tags", "--skip-tags"),
            ("step", "--step"),
        ):
            if options.get(option):
                raise KeyturnError(
                    "run-partial",
                    f"{spelling} would run a part of the phases",
                    where=spelling,
                    hint="Use keyturn_until to stop after a phase",
                )
        tags = [tag for tag in options.get("tags") or () if tag != "all"]
        if tags:
            raise KeyturnError(
                "run-partial",
                "--tags would run a part of the phases",
                where="--tags",
                hint="Use keyturn_until to stop after a phase",
            )

    @staticmethod
    def _refuse_missing_hosts(plan: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        missing = sorted(set(plan["hosts"]) - set(task_vars["ansible_play_hosts_all"]))
        if missing:
            raise KeyturnError(
                "hosts-missing",
                f"the key also concerns {', '.join(missing)}, which this run leaves out",
                where="--limit",
                hint="Run without --limit and slices, or waive a host that is down with keyturn_waive",
            )
        if set(task_vars.get("ansible_play_batch", ())) < set(task_vars["ansible_play_hosts"]):
            raise KeyturnError("hosts-missing", "serial would split the key", where="serial", hint="Leave serial away")

    @staticmethod
    def _load(variables: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Catalog:
        catalog = load_catalog(variables, task_vars["groups"])
        for name, secret in catalog.secrets.items():
            for index, store in enumerate(secret["stores"]):
                if "count" in store and len(store["hosts"]) != store["count"]:
                    raise KeyturnError(
                        "hosts-missing",
                        f"{len(store['hosts'])} hosts here, the catalog expects {store['count']}",
                        where=f"keyturn_secrets.{name}.stores[{index}]",
                        hint="Run on the whole inventory (no job slices)",
                    )
        return catalog

    @staticmethod
    def _overview(
        catalog: Catalog, register: Mapping[str, Any], evidence: Mapping[str, Any], now: float
    ) -> list[dict[str, Any]]:
        rows, held = [], reasons_to_hold(catalog.secrets)
        for name, secret in sorted(catalog.secrets.items()):
            record = register["secrets"].get(name, {})
            rotation_id = record.get("open") or record.get("current")
            rotation = register["rotations"].get(rotation_id, {})
            rows.append(
                {
                    "name": name,
                    "kind": secret["kind"],
                    "hosts": catalog.hosts_of(name),
                    "databases": catalog.databases_of(name),
                    "open": bool(record.get("open")),
                    "due": planning.due(secret, record, now),
                    "held_back": held.get(name, ("",))[0],
                    **age(secret, record, now),
                    "primary_since": record.get("primary_since", ""),
                    "rotation_id": rotation_id or "",
                    "status": rotation.get("status", "never turned"),
                    "phase": rotation.get("phase", ""),
                    "retire_after": rotation.get("retire_after", ""),
                    "waived": [entry["host"] for entry in rotation.get("waived", ())],
                    "exposed_until": rotation.get("exposed_until", ""),
                    "lost": rotation.get("lost", []),
                    "held": rotation.get("held", []),
                    "evidence": {key: value for key, value in evidence.get(name, {}).items() if key != "keyset"},
                }
            )
        return rows
