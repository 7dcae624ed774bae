# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback that counts module executions: all pass through one method, wrapped before the workers are forked."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: count_executions
type: notification
short_description: Count module executions
description: Writes one line of JSON per module execution to the file in KEYTURN_EXECUTIONS.
"""

_METHOD = "_execute_module"
_execute = ActionBase._execute_module


def _counted(self: ActionBase, *args: Any, **kwargs: Any) -> Any:
    started = time.time()
    result = _execute(self, *args, **kwargs)
    host = self._task.delegate_to or (kwargs.get("task_vars") or {}).get("inventory_hostname")
    line = {
        "host": host,
        "task": self._task.get_name(),
        "module": kwargs.get("module_name") or self._task.action,
        "started": started,
        "seconds": time.time() - started,
    }
    with open(os.environ["KEYTURN_EXECUTIONS"], "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    return result


class CallbackModule(CallbackBase):
    """Wraps the one method on load."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "count_executions"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Begin to count."""
        super().__init__()
        if os.environ.get("KEYTURN_EXECUTIONS"):
            setattr(ActionBase, _METHOD, _counted)
