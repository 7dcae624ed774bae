# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Catalog, register and inventory become a plan; a run that would split a key is refused."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from ansible import context
from ansible.utils.collection_loader._collection_finder import _get_collection_path
from ansible_collections.keyturn.rotation.plugins.module_utils import plan as planning
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.held import settle
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.catalog_variables import catalog_variables
from ansible_collections.keyturn.rotation.plugins.plugin_utils.controller import seen_alive

_COLLECTION = "keyturn.rotation"
_ENTRY_POINTS = ("preflight", "stage", "migrate", "promote", "verify", "retire", "rollback")


def kind_of(kind: str) -> dict[str, Any]:
    """The role behind a kind and the phases it has a task file for.

    :raises KeyturnError: ``kind-unknown``.
    """
    collection, _dot, role = kind.rpartition(".")
    collection = collection or _COLLECTION
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


def _kinds(catalog: Catalog) -> dict[str, dict[str, Any]]:
    return {secret["kind"]: kind_of(secret["kind"]) for secret in catalog.secrets.values()}


class ActionModule(KeyturnAction):
    """Run on the state host; its register is the only thing that is read."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Guard, load, choose, build."""
        args = self._task.args
        mode = args.get("mode", "rotate")
        self._refuse_partial_run()
        catalog = self._load(catalog_variables(self._templar, task_vars), task_vars)
        if mode == "validate":
            return self._validated(catalog)
        read = self.call("rotation_state", {"action": "read", "state_dir": args["state_dir"]}, task_vars)
        register = read["register"]
        now = planning.parse_stamp(read["now"])
        only = [name.strip() for name in str(args.get("only") or "").split(",") if name.strip()]
        choice = "rotate" if mode == "plan" else mode
        waivers = planning.waived(args.get("waive") or (), read["now"][:10])
        names = [] if mode == "status" else planning.choose(catalog, register, only, choice, now, waivers)
        held: list[dict[str, Any]] = []
        if choice == "rotate" and not planning.goes_on(register, names, waivers):
            names, held = settle(catalog.secrets, names, not planning.asks_for_all(catalog, only))
        until = str(args.get("until") or "")
        plan = {**planning.build(catalog, names, _kinds(catalog), waivers), "held": held}
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
        if args.get("digest") and args["digest"] != plan["digest"]:
            raise KeyturnError(
                "plan-changed",
                f"the plan is {plan['digest']} now, not the one that was agreed to",
                where="keyturn_plan",
                hint="Run the plan playbook, look at it, and use its digest",
            )
        if names:
            self._refuse_missing_hosts(plan, task_vars)
        holders = [(rotation.get("holder") or {}).get("run_id", "") for rotation in register["rotations"].values()]
        return {
            "changed": False,
            "plan": plan,
            "names": names,
            "secrets": self._overview(catalog, register, now),
            "rotations": register["rotations"],
            "sees_alive": seen_alive(filter(None, holders)),
            "now": read["now"],
            "run": secrets.token_hex(4),
        }

    @staticmethod
    def _validated(catalog: Catalog) -> dict[str, Any]:
        """Plan each secret by itself, without a host."""
        kinds = _kinds(catalog)
        for name in sorted(catalog.secrets):
            planning.build(catalog, [name], kinds, {})
        return {"changed": False, "names": sorted(catalog.secrets)}

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
    def _overview(catalog: Catalog, register: Mapping[str, Any], now: float) -> list[dict[str, Any]]:
        rows = []
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
                    "primary_since": record.get("primary_since", ""),
                    "rotation_id": rotation_id or "",
                    "status": rotation.get("status", "never turned"),
                    "phase": rotation.get("phase", ""),
                    "retire_after": rotation.get("retire_after", ""),
                    "waived": [entry["host"] for entry in rotation.get("waived", ())],
                    "lost": rotation.get("lost", []),
                }
            )
        return rows
