# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where the core meets ``AnsibleModule``: arguments in, results out, errors mapped."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError, refusal_of

__all__ = ["SESSION_ARGUMENTS", "run_module"]

#: Arguments of every changing module: whose rotation this is, and where the host keeps its own state.
SESSION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "state_dir": {"type": "path", "default": "/var/lib/keyturn"},
    "session_dir": {"type": "path"},
    "rotation_id": {"type": "str"},
    "epoch": {"type": "int", "default": 0},
}


def run_module(
    work: Callable[[dict[str, Any], bool], dict[str, Any]],
    argument_spec: dict[str, dict[str, Any]],
    hidden: Callable[[dict[str, Any]], Iterable[str]] | None = None,
    **options: Any,
) -> None:
    """Run ``work(params, check_mode)`` and leave with its result, or with one clear error.

    An unexpected exception is reported by its type and place only: its text may carry a value. Where the system refused
    a file, by its path and the reason.

    :param hidden: values among the arguments that no ``no_log`` option takes in; the answer masks them too.
    """
    # no_log here keeps the arguments out of the host's journal: there, a nested value of several lines is not masked
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True, no_log=True, **options)
    if hidden is not None:
        module.no_log_values.update(hidden(module.params))
    failure: dict[str, str] = {}
    result: dict[str, Any] = {}
    try:
        result = work(module.params, module.check_mode)
    except KeyturnError as error:
        failure = error.as_result()
    except Exception as error:  # the last line of defence: no exception text leaves the host
        refused = refusal_of(error)
        failure = refused.as_result() if refused else _internal(error)
    if failure:
        # No exception is being handled here: with DISPLAY_TRACEBACK, fail_json adds the text of one that is
        module.fail_json(**failure)
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


def _internal(error: Exception) -> dict[str, str]:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return {
        "msg": f"internal error {type(error).__name__} at {place}. Please report it with this line.",
        "code": "internal",
        "where": place,
        "hint": "",
    }
