# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that takes long: started so that it outlives a lost connection, with a line now and then for people."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import control_path
from ansible_collections.keyturn.rotation.plugins.plugin_utils import figures
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, display, failure_of

__all__ = ["LongJobAction"]

_LIMIT_SECONDS = 7 * 86400
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_LOOK_FOR_LIFE = 10.0
_LAST_WORDS = 10.0


def _seconds_between(said: Any) -> float:
    """Between two lines of progress."""
    try:
        return float(said or 1)
    except (TypeError, ValueError):
        raise KeyturnError(
            "progress-invalid",
            "is no number of seconds",
            where="keyturn_progress_seconds",
            hint="Write one, such as 15",
        ) from None


class LongJobAction(KeyturnAction):
    """Runs a module under ``async_wrapper`` and watches its progress file with plain reads, not with more modules."""

    def watch(
        self, module: str, arguments: Mapping[str, Any], progress_path: str, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Start the module, show how far it is, and return its result.

        :raises KeyturnError: what the module reported; ``job-lost`` when it vanished without a word;
            ``progress-invalid``.
        """
        every = _seconds_between(task_vars.get("keyturn_progress_seconds"))
        started = self.start(module, arguments, progress_path, task_vars)
        job = started["ansible_job_id"]
        result = self._until_finished(started["results_file"], job, progress_path, every, task_vars)
        return self._result(result, started["results_file"], progress_path)

    def start(
        self, module: str, arguments: Mapping[str, Any], progress_path: str, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Start the module and leave it alone; gives ``results_file`` and ``ansible_job_id``.

        :raises KeyturnError: ``job-not-started``.
        """
        self._shell(f"rm -f -- {shlex.quote(control_path(progress_path))}")  # what was asked of a job before
        self._task.async_val = _LIMIT_SECONDS
        try:
            started: dict[str, Any] = self._execute_module(
                module_name=f"keyturn.rotation.{module}",
                module_args=dict(arguments),
                task_vars=task_vars,
                wrap_async=True,
            )
        finally:
            self._task.async_val = 0
        if started.get("failed") or "results_file" not in started:
            raise KeyturnError(started.get("code", "job-not-started"), started.get("msg", "the job did not start"))
        return started

    def finish(self, results_file: str, progress_path: str) -> dict[str, Any]:
        """The result of a job that is about to end; empty where it does not.

        :raises KeyturnError: what the module reported.
        """
        deadline = time.monotonic() + _LAST_WORDS
        while time.monotonic() < deadline:
            found = self._read(results_file)
            if found is not None and ("started" not in found or found.get("finished")):
                return self._result(found, results_file, progress_path)
            time.sleep(_FIRST_PAUSE)
        return {}

    def _result(self, result: dict[str, Any], results_file: str, progress_path: str) -> dict[str, Any]:
        """Remove the files of a job that has ended; its result."""
        files = (results_file, progress_path, control_path(progress_path))
        self._shell("rm -f -- " + " ".join([shlex.quote(path) for path in files]))
        if result.get("failed"):
            raise failure_of(result)
        for key in ("ansible_job_id", "results_file", "started", "finished", "stdout", "stderr", "invocation"):
            result.pop(key, None)
        return result

    def _until_finished(
        self, results: str, job: str, progress: str, every: float, task_vars: Mapping[str, Any]
    ) -> dict[str, Any]:
        pause = _FIRST_PAUSE
        said = ""
        spoken_at = looked_at = time.monotonic()
        while True:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            found = self._read(results)
            if found is not None and ("started" not in found or found.get("finished")):
                return found
            now = time.monotonic()
            if now - spoken_at >= every:
                spoken_at = now
                news = self._read(progress)
                line = f"  {task_vars['inventory_hostname']}: {figures.progress(news)}" if news else said
                if news and (news.get("done") or news.get("paused") or news.get("behind")) and line != said:
                    said = line
                    display.display(line)
            if now - looked_at >= _LOOK_FOR_LIFE:
                looked_at = now
                if not self._lives(job) and self._read(results) == found:
                    raise KeyturnError(
                        "job-lost",
                        "the job on this host ended without a word",
                        where="",
                        hint="Run the same command again",
                    )

    def _shell(self, command: str) -> dict[str, Any]:
        """Run one plain command on the host: no module, so it costs little."""
        run: Callable[..., dict[str, Any]] = self._low_level_execute_command
        return run(command, sudoable=True)

    def _read(self, path: str) -> dict[str, Any] | None:
        answer = self._shell(f"cat -- {shlex.quote(path)}")
        if answer.get("rc") != 0:
            return None
        try:
            content = json.loads(answer["stdout"])
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    def _lives(self, job: str) -> bool:
        name = job.split(".")[0]  # the part that stands in the command line of async_wrapper
        pattern = f"{name[:-1]}[{name[-1]}]"  # so that the search does not find itself
        answer = self._shell(f"grep -l -s -a -e {shlex.quote(pattern)} /proc/[0-9]*/cmdline")
        return bool(answer.get("stdout", "").strip())
