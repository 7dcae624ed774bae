# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines for people: the plan, or how every secret stands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import write_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils import emergencies
from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import (
    backup_lines,
    held_lines,
    job_lines,
    plan_lines,
)
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import (
    KeyturnAction,
    answers_of,
    display,
    names_in,
    silent_hosts,
)
from ansible_collections.keyturn.rotation.plugins.plugin_utils.crypto_inventory import crypto_inventory
from ansible_collections.keyturn.rotation.plugins.plugin_utils.gather import gather
from ansible_collections.keyturn.rotation.plugins.plugin_utils.standing import agenda_lines, only_these, status_lines
from ansible_collections.keyturn.rotation.plugins.plugin_utils.status_page import status_page


class ActionModule(KeyturnAction):
    """Runs on the controller alone."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Show what was asked for."""
        args = self._task.args
        planned = args["planned"]
        exposed_s = 0
        jobs = {host: said["jobs"] for host, said in answers_of(task_vars, "__rotation_jobs").items()}
        if args.get("what") == "held":
            held = planned["plan"]["held"]
            for line in ["", "Not turned", *held_lines(held)]:
                display.display(line)
            names = ", ".join(entry["name"] for entry in held)
            hint = "What to write or run stands above; all else was done"
            raise KeyturnError("held-back", f"held back: {names}", where="keyturn_overlay", hint=hint)
        if args.get("what") == "pace":
            lines = [line for host, running in sorted(jobs.items()) for line in job_lines(host, running)]
            if not lines and not silent_hosts(task_vars, "__rotation_jobs"):
                hint = "Only what writes rows can be steered; the status playbook shows it while it runs"
                raise KeyturnError("nothing-runs", "no re-encryption runs now", where="keyturn_only", hint=hint)
        elif args.get("what") == "backups":
            lines = backup_lines(answers_of(task_vars, "__rotation_backups"))
        elif args.get("what") == "due":
            lines = agenda_lines(planned["agenda"])
            if args.get("to"):
                content = {"schema_version": 1, "now": planned["now"], **planned["agenda"]}
                write_file(os.path.abspath(os.path.expanduser(args["to"])), json.dumps(content).encode(), 0o600)
        elif args.get("what") == "status":
            shown = only_these(planned["secrets"], names_in(args.get("only")))
            lines = status_lines({**planned, "secrets": shown}, jobs)
            lines += self._written(args.get("to"), partial(status_page, planned, jobs))
            lines += self._written(args.get("inventory_to"), partial(crypto_inventory, planned))
        else:
            run = gather({"plan": planned["plan"]}, {}, {}, task_vars)
            lines = plan_lines(run, planned["secrets"])
            exposed_s = emergencies.longest(planned["plan"], run.answers["jwks"])
        for line in lines:
            display.display(line)
        return {"changed": False, "lines": lines, "exposed_s": exposed_s}

    @staticmethod
    def _written(to: str | None, made: Callable[[], str]) -> list[str]:
        """Make what was asked for, write it where it is to be, and say so."""
        if not to:
            return []
        path = os.path.abspath(os.path.expanduser(to))
        write_file(path, made().encode(), 0o600)
        return [f"  written to {path}"]
