# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of an event of a person's own: what every host said of the keyset, and who asks."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, answers_of, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.controller import on_record, whoami
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import evidence_choice


class ActionModule(KeyturnAction):
    """Runs on the state host."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """See that all hosts agree, seal, and say what has changed since the event before."""
        args = {**evidence_choice(self._templar, task_vars), **self._task.args}
        if "keyset" not in args:
            args["keyset"] = self._agreed(args["hosts"], task_vars)
        args["who"] = on_record(whoami())
        result = self.call("evidence_capture", args, task_vars)
        result.pop("invocation", None)
        word = "sealed" if result["changed"] else "is there already, and nothing has changed"
        lines = [f"{result['path']} {word}", *result["lines"], f"digest {result['digest']}"]
        for line in lines if result["digest"] else lines[:-1]:
            display.display(f"  {line}")
        return result

    @staticmethod
    def _agreed(hosts: list[str], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The keyset, where every host holds the same one."""
        said = {host: answer["keyset"] for host, answer in answers_of(task_vars, "__rotation_keyset").items()}
        missing = sorted(set(hosts) - set(said))
        if missing or not hosts:
            raise KeyturnError(
                "hosts-missing",
                f"no keyset from {', '.join(missing) or 'any host'}",
                where="keyturn_keyset_hosts",
                hint="Look at what failed there",
            )
        first, *others = hosts
        facts = ("active_kid", "fingerprints")
        differ = [host for host in others if any(said[host][name] != said[first][name] for name in facts)]
        if differ:
            raise KeyturnError(
                "keysets-differ",
                f"the keyset on {', '.join(differ)} is another one than on {first}",
                where="keyturn_keyset_hosts",
                hint="Bring them to the same keyset, or capture them under names of their own",
            )
        return {**said[first], "loose": any(entry["loose"] for entry in said.values())}
