# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all hosts said becomes one bundle on the controller."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from typing import Any

from ansible.release import __version__ as ansible_version
from ansible_collections.keyturn.rotation.plugins.module_utils.diagnosis import library_versions
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.bundle import bundle_files, write_bundle
from ansible_collections.keyturn.rotation.plugins.plugin_utils.standing import agenda_lines, status_lines


class ActionModule(KeyturnAction):
    """Runs on the controller alone."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Collect, redact, write."""
        planned = self._task.args["planned"]
        given = str(self._task.args.get("to") or "") or time.strftime("keyturn-diagnose-%Y%m%dT%H%M%SZ", time.gmtime())
        to = os.path.abspath(os.path.expanduser(given))
        read = "agenda" in planned
        lines = (
            [*status_lines(planned, {}), *agenda_lines(planned["agenda"])] if read else [str(planned.get("msg", ""))]
        )
        controller = {
            "ansible-core": ansible_version,
            "python": platform.python_version(),
            "system": platform.platform(),
            "libraries": library_versions(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        found = _said(task_vars, "__rotation_diagnosis")
        files = bundle_files(planned, found, _said(task_vars, "__rotation_health"), controller, lines)
        if not self._task.check_mode:
            write_bundle(files, to)
        silent = sorted(host for host, said in found.items() if "system" not in said)
        display.display(f"  bundle      {to}")
        for host in silent:
            display.display(f"  missing     {host}")
        return {"changed": not self._task.check_mode, "bundle": to, "files": sorted(files), "missing": silent}


def _said(task_vars: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """What every host registered, also where it failed."""
    hostvars = task_vars["hostvars"]
    results = {host: hostvars[host].get(name) for host in task_vars["ansible_play_hosts_all"]}
    return {host: dict(said) if isinstance(said, Mapping) else {} for host, said in results.items()}
