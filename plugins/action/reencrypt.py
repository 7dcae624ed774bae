# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of re-encryption: the connection string in a box, progress in plain sight."""

from __future__ import annotations

from functools import partial
from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.helping_host import tolerated
from ansible_collections.keyturn.rotation.plugins.plugin_utils.long_job import LongJobAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.reencrypt_arguments import job_of, with_references

_LONG = ("in_place", "prepared", "swept")


class ActionModule(LongJobAction):
    """Runs the module ``reencrypt``, the long states as a job that is watched, or left alone on a host that helps."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        step = self._task.args.get("help")
        if step in ("begin", "end"):
            work = {"begin": self._begin_to_help, "end": self._end_to_help}[step]
            return tolerated(task_vars["inventory_hostname"], partial(work, task_vars))
        arguments = with_references(self._task.args, self._templar, task_vars)
        state = arguments.get("state")
        is_long = state in _LONG or (state == "cleaned" and arguments.get("sanitize"))
        if is_long and not self._task.check_mode and "job" in self._task.args:
            result = self.watch("reencrypt", arguments, arguments["progress_path"], task_vars)
        else:
            result = self.call("reencrypt", arguments, task_vars)
        return {**result, **job_of(self._task.args)}

    def _begin_to_help(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Start a job that waits for the host that leads; it ends by itself."""
        arguments = with_references(self._task.args, self._templar, task_vars)
        started = self.start("reencrypt", arguments, arguments["progress_path"], task_vars)
        files = {"results": started["results_file"], "progress": arguments["progress_path"]}
        return {"changed": True, "files": files, **job_of(self._task.args)}

    def _end_to_help(self, _task_vars: dict[str, Any]) -> dict[str, Any]:
        """What became of that job, and its files away."""
        begun = self._task.args["begun"]
        result = self.finish(begun["files"]["results"], begun["files"]["progress"])
        return {"changed": False, "rows_written": result.get("rows_written", 0), "job": begun["job"]}
