# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``jws_resign``: the connection string and the encryption key in boxes."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.long_job import LongJobAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.signing_arguments import (
    documents_told,
    with_document_references,
)


class ActionModule(LongJobAction):
    """Runs the module ``jws_resign``; signing the documents of a plan is a job that is watched."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Fill in what only the controller knows and run the module."""
        arguments = with_document_references(self._task.args, self._templar, task_vars)
        if "job" in self._task.args and arguments["state"] == "resigned" and not self._task.check_mode:
            result = self.watch("jws_resign", arguments, arguments["progress_path"], task_vars)
        else:
            result = self.call("jws_resign", arguments, task_vars)
        return {**result, **documents_told(result, self._task.args)}
