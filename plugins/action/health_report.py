# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all hosts said of their services: shown, saved, compared with before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic, snapshot
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.health_report import collect, report, unwell
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, answers_of, display


class ActionModule(KeyturnAction):
    """Runs on the controller alone."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Collect, save, compare, show; what is not well makes the task fail after it was shown."""
        args = self._task.args
        plan = args["plan"]
        seen = collect(plan, answers_of(task_vars, str(args.get("answers") or "__health_seen")))
        content = snapshot.snapshot(seen, datetime.now())
        compare = str(args.get("compare") or "")
        before = args.get("before")
        if compare:
            path = os.path.abspath(os.path.expanduser(compare))
            before = snapshot.load(atomic.read_file(path).decode("utf-8", "replace"), path)
        worse = None if before is None else self._worse(plan, before, content["services"])
        changed = self._save(str(args.get("save") or ""), content)
        order = [name for wave in plan["waves"] for name in wave]
        for line in report(seen, worse, order, bool(args.get("verbose"))):
            display.display(line)
        bad = unwell(seen)
        result: dict[str, Any] = {
            "changed": changed,
            "services": seen,
            "snapshot": content,
            "healthy": not bad,
            "worse": worse or [],
        }
        problems = [f"{name} on {host} is {why}" for name, host, why in bad] if worse is None else []
        problems += [f"{entry['name']} was {entry['before']} and is {entry['after']}" for entry in worse or ()]
        if problems:
            error = KeyturnError("services-not-healthy", "; ".join(problems), hint="Look at these services")
            result.update(error.as_result(), failed=True)
        return result

    @staticmethod
    def _worse(plan: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, str]]:
        """Among the services that were looked at; the file may name others."""
        enough = {
            service["name"]
            for services in plan["hosts"].values()
            for service in services
            if (service.get("health") or {}).get("running_is_enough")
        }
        known = {name: entry for name, entry in before.items() if name in after}
        return snapshot.compare(known, after, enough)

    def _save(self, save: str, content: Mapping[str, Any]) -> bool:
        if not save or self._task.check_mode:
            return False
        path = os.path.abspath(os.path.expanduser(save))
        atomic.write_file(path, snapshot.text_of(content))
        return True
