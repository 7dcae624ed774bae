#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host says of itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: diagnose_info
short_description: Say what helps to look into a fault
version_added: 0.1.0
description:
  - Returns versions, free space, the clock, and what lies in the state folder, by name, mode and size.
  - On the state host it also returns the journals and the last evidence of some rotations.
  - No file that may hold a value is opened.
author: keyturn.rotation contributors (@keyturn)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
    details: It never changes anything.
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  platform:
    description: Target operating systems.
    platforms: posix
    support: full
options:
  state_dir:
    description: The state folder of this host.
    type: path
    default: /var/lib/keyturn
  rotations:
    description: Rotations whose journal and evidence are wanted.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Look at a host
  keyturn.rotation.diagnose_info:
  register: found
"""

RETURN = r"""
system:
  description: Names and versions of the system, of Python and of libraries.
  returned: success
  type: dict
disk_free:
  description: Bytes free where the state lies.
  returned: success
  type: int
clock:
  description: The host's clock, seconds since 1970 UTC.
  returned: success
  type: float
uid:
  description: Who the module runs as.
  returned: success
  type: int
state:
  description: The files of the state folder, at most 500 of them.
  returned: success
  type: list
  elements: dict
journals:
  description: The last lines of each journal, by rotation.
  returned: success
  type: dict
evidence:
  description: The last record of each rotation, by its folder.
  returned: success
  type: dict
problems:
  description: What could not be read.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.diagnosis import run
from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state_dir": {"type": "path", "default": "/var/lib/keyturn"},
    "rotations": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
