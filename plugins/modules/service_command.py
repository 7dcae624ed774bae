#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Start, stop and restart services by their own commands."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_command
short_description: Start, stop and restart services by their own commands
version_added: 0.1.0
description:
  - Runs the commands of one service after the other. When one does not end with 0, none after it is run.
  - What a service prints while it starts may hold a secret, so nothing of it is read or shown.
  - A command runs without a shell. A program that it leaves behind is not waited for.
  - One that does not end in time is killed with all that it started in its session, and counts as failed.
author: keyturn.rotation contributors (@keyturn)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  services:
    description:
      - The services, as in the catalog.
      - Each has C(name), C(start) and C(stop), and C(restart) if there is such a command.
      - A command is a list of words. C(~) and C($NAME) are filled in. The words show in the arguments of the task, so
        they must hold no secret.
      - C(command_timeout) is how many seconds each may take, 300 by default.
    type: list
    elements: dict
    required: true
  action:
    description: What to do. Without a command of its own, a restart is a stop and a start.
    type: str
    choices: [started, stopped, restarted]
    default: restarted
"""

EXAMPLES = r"""
- name: Restart the worker
  keyturn.rotation.service_command:
    services:
      - name: worker
        start: [/srv/worker/bin/worker, --daemon]
        stop: [/srv/worker/bin/worker, --stop]
"""

RETURN = r"""
code:
  description: What was wrong, C(service-command-failed) or C(service-invalid).
  returned: failed
  type: str
where:
  description: The service.
  returned: failed
  type: str
"""

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.service_command import ACTIONS, run

ARGUMENTS: dict[str, dict[str, Any]] = {
    "services": {"type": "list", "elements": "dict", "required": True},
    "action": {"type": "str", "choices": list(ACTIONS), "default": "restarted"},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
