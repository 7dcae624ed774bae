# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection's action plugins share: errors in one place, and the way to their module."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError, refusal_of

__all__ = ["KeyturnAction", "answers_of", "display", "failure_of", "names_in", "plan_of", "silent_hosts"]

display = Display()

#: With which a shell says that it found no interpreter; Ansible names it then.
_NOT_STARTED = (126, 127)


def answers_of(task_vars: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """What every host registered under ``name`` and did not fail: host to result."""
    hostvars = task_vars["hostvars"]
    found: dict[str, dict[str, Any]] = {}
    for host in task_vars.get("ansible_play_hosts_all", ()):
        result = hostvars[host].get(name)
        if isinstance(result, Mapping) and not (
            result.get("failed") or result.get("unreachable") or result.get("skipped")
        ):
            found[host] = dict(result)
    return found


def silent_hosts(task_vars: Mapping[str, Any], name: str) -> list[str]:
    """The hosts that were asked for ``name`` and failed, or could not be reached."""
    hostvars = task_vars["hostvars"]
    results = {host: hostvars[host].get(name) for host in task_vars.get("ansible_play_hosts_all", ())}
    return [
        host
        for host, result in results.items()
        if isinstance(result, Mapping) and (result.get("failed") or result.get("unreachable"))
    ]


def names_in(text: Any) -> list[str]:
    """Names joined by commas, as people give them."""
    return [name.strip() for name in str(text or "").split(",") if name.strip()]


def plan_of(task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plan of this run. As an argument it would be templated, entry by entry, for every host."""
    plan: Mapping[str, Any] = task_vars["__rotation_planned"]["plan"]
    return plan


def failure_of(result: Mapping[str, Any]) -> KeyturnError:
    """What a module that failed reported.

    One that was killed reported nothing: Ansible then has a text about its own reading, and what was printed.
    """
    was_printed = "module_stdout" in result or "data" in result
    if "code" not in result and was_printed and result.get("rc") not in _NOT_STARTED:
        ending = f" (exit code {result['rc']})" if "rc" in result else ""
        return KeyturnError(
            "module-lost",
            f"the module on this host ended without a result{ending}",
            hint="Something has killed it, such as a want of memory, or its Python does not run. Look at the host's "
            "log, then run the same command again",
        )
    return KeyturnError(
        result.get("code", "module-failed"),
        result.get("msg", "the module failed without a message"),
        where=result.get("where", "") if not result.get("msg") else "",
    )


class KeyturnAction(ActionBase):
    """An action whose ``work`` returns the result; what it raises becomes one clear failure."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run ``work`` and map its errors."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            result.update(self.work(task_vars or {}))
        except KeyturnError as error:
            result.update(failed=True, **error.as_result())
        except Exception as error:  # the text may carry a value: name type and place only
            if type(error).__module__.startswith("ansible.errors"):
                raise
            refused = refusal_of(error)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
            internal = {
                "msg": f"internal error {type(error).__name__} at {place}. Please report it with this line.",
                "code": "internal",
            }
            result.update(failed=True, **(refused.as_result() if refused else internal))
        return result

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do the task; each action has its own."""
        raise NotImplementedError

    def call(self, module: str, arguments: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run a module of this collection on the task's host; a failure is raised as it was reported.

        :raises KeyturnError: the module's own code and text.
        """
        result: dict[str, Any] = self._execute_module(
            module_name=f"keyturn.rotation.{module}", module_args=dict(arguments), task_vars=task_vars
        )
        if result.get("failed"):
            raise failure_of(result)
        return result
