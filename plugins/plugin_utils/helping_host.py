# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that help another one: nothing depends on them, so what goes wrong there is said and does not end the run."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import display

__all__ = ["tolerated"]


def tolerated(host: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of ``work``; where the host cannot be reached, or refuses, one that counts as skipped.

    Ansible itself would give the host up, and with it the run.
    """
    try:
        return work()
    except KeyturnError as error:
        why = str(error)
    except AnsibleConnectionFailure:
        why = "it cannot be reached"
    except AnsibleError as error:  # its text may show the source of a variable
        why = type(error).__name__
    display.warning(f"{host} does not help: {why}")
    return {"skipped": True, "skip_reason": why}
