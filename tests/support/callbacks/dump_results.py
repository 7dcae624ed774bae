# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback that writes down all that any callback may see, as the job databases of the field do."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.executor.stats import AggregateStats
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook.task import Task
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: dump_results
type: notification
short_description: Write down every result with its task's arguments
description: Writes one line of JSON per event to the file in KEYTURN_DUMP.
notes: [Arguments of tasks are left out of results when KEYTURN_DUMP_ARGS is 0.]
"""

_WITH_ARGUMENTS = os.environ.get("KEYTURN_DUMP_ARGS") != "0"


def _content(value: Any) -> Any:
    """All that is in what an event hands over."""
    if isinstance(value, CallbackTaskResult):
        fields = value.task_fields if _WITH_ARGUMENTS else value.task_name
        return {"host": value.host.name, "result": value.result, "task": fields}
    if isinstance(value, Task):
        return {"name": value.get_name(), "args": value.args, "vars": value.get_vars()}
    if isinstance(value, AggregateStats):
        return {"stats": vars(value)}
    return repr(value)


class CallbackModule(CallbackBase):
    """Writes a line for every event."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "dump_results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Listen to every event."""
        super().__init__()
        for name in dir(self):
            if name.startswith("v2_") and name != "v2_on_any":
                setattr(self, name, self._write)

    def _write(self, *args: Any, **kwargs: Any) -> None:
        line = [_content(value) for value in (*args, *kwargs.values())]
        with open(os.environ["KEYTURN_DUMP"], "a", encoding="utf-8") as dump:
            dump.write(json.dumps(line, default=repr, skipkeys=True) + "\n")
