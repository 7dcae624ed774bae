#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Open and close a run on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_host
short_description: Open and close a run on a host
version_added: 0.1.0
description:
  - Opening makes a key for this run, to which values for this host are sealed, and says what the host lacks.
  - Closing forgets the key.
  - In check mode the key lies in O(session_dir), which must be a temporary folder then, and nothing else is written.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  state:
    description: What to do.
    type: str
    choices: [opened, closed]
    default: opened
  libraries:
    description: Python libraries that this host needs.
    type: list
    elements: str
    default: [cryptography]
"""

EXAMPLES = r"""
- name: Open the run on this host
  keyturn.rotation.rotation_host:
    state: opened
    rotation_id: "{{ rotation_id }}"
    epoch: 1
"""

RETURN = r"""
public:
  description: The public half of the key that was made for this run.
  returned: opened, when nothing is missing
  type: str
missing:
  description: Python libraries that are missing, with the distribution's package names.
  returned: opened
  type: list
  elements: dict
compose:
  description: Whether C(docker compose) can be run, where services of this host need it.
  returned: opened
  type: bool
loose:
  description: The state folder, where others may write to it; else empty.
  returned: opened
  type: str
disk_free:
  description: Bytes free where the state lies.
  returned: opened
  type: int
clock:
  description: The host's clock, seconds since 1970 UTC.
  returned: opened
  type: float
asked:
  description: Between which times of the controller's clock the host read its own, seconds since 1970 UTC.
  returned: opened
  type: list
  elements: float
python:
  description: The version of Python.
  returned: opened
  type: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.host import run
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module

ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "state": {"type": "str", "choices": ["opened", "closed"], "default": "opened"},
    "libraries": {"type": "list", "elements": "str", "default": ["cryptography"]},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
