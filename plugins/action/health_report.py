# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all hosts said of their services: shown, saved, compared with before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic, snapshot
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.health_report import collect, problems, report, unwell
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, answers_of, display

_SHOWN = 5


def _running_is_enough(plan: Mapping[str, Any]) -> set[str]:
    """The services for which it is."""
    return {
        service["name"]
        for services in plan["hosts"].values()
        for service in services
        if (service.get("health") or {}).get("running_is_enough")
    }


def _loaded(compare: str, now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The services of a file.

    :raises KeyturnError: ``snapshot-invalid``, ``snapshot-unrelated`` where it has none of those of now.
    """
    path = os.path.abspath(os.path.expanduser(compare))
    before = snapshot.load(atomic.read_file(path).decode("utf-8", "replace"), path)
    if not set(before) & set(now):
        raise KeyturnError(
            "snapshot-unrelated",
            f"it names {_few(before)}, and what was looked at is {_few(now)}: nothing can be compared",
            where=path,
            hint="Compare with a state that keyturn_save wrote for this catalog",
        )
    return before


def _few(names: Iterable[str]) -> str:
    first = sorted(names)
    more = f" and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""
    return ", ".join(first[:_SHOWN]) + more or "no service"


class ActionModule(KeyturnAction):
    """Runs on the controller alone."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Collect, save, compare, show; what is not well makes the task fail after it was shown."""
        args = self._task.args
        plan = args["plan"]
        seen = collect(plan, answers_of(task_vars, str(args.get("answers") or "__health_seen")))
        enough = _running_is_enough(plan)
        content = snapshot.snapshot(seen, datetime.now(), enough)
        compared, compare, before = None, str(args.get("compare") or ""), str(args.get("before") or "")
        if compare:
            saved = _loaded(compare, content["services"])
            compared = snapshot.contrast(saved, content["services"], enough, whole=bool(args.get("whole_catalog")))
        elif before:
            earlier = snapshot.snapshot(collect(plan, answers_of(task_vars, before)), datetime.now(), enough)
            compared = snapshot.contrast(earlier["services"], content["services"], enough)
        changed = self._save(str(args.get("save") or ""), content)
        order = [name for wave in plan["waves"] for name in wave]
        for line in report(seen, compared, order, bool(args.get("verbose"))):
            display.display(line)
        note = str(args.get("note") or "")
        if note:
            display.display(f"  {note}")
        result: dict[str, Any] = {
            "changed": changed,
            "services": seen,
            "snapshot": content,
            "healthy": not unwell(seen),
            "worse": compared.worse if compared else [],
        }
        found = problems(seen, compared, only_worse=bool(compare))
        if found:
            lost = ", ".join(sorted({entry["name"] for entry in result["worse"]} - set(seen)))
            hint = "Look at these services"
            hint += f". The catalog does not name {lost}: if that is right, save the state anew" if lost else ""
            hint += f". {note}" if note else ""
            error = KeyturnError("services-not-healthy", "; ".join(found), hint=hint)
            result.update(error.as_result(), failed=True)
        return result

    def _save(self, save: str, content: Mapping[str, Any]) -> bool:
        if not save or self._task.check_mode:
            return False
        path = os.path.abspath(os.path.expanduser(save))
        atomic.write_file(path, snapshot.text_of(content))
        return True
