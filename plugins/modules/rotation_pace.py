#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at re-encryptions that run on a host, and steer them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_pace
short_description: Look at re-encryptions that run on a host, pause, resume or stop them, or limit their rate
version_added: 0.1.0
description:
  - Says how far the jobs of M(keyturn.rotation.reencrypt) are that run on this host, and leaves them an order, which
    they look for twice a second. Takes no lock, and opens no session.
  - An order lasts until its job ends.
author: keyturn.rotation contributors (@keyturn)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  platform:
    description: Target operating systems.
    platforms: posix
    support: full
options:
  state_dir:
    description: The folder in which this host keeps the state of rotations.
    type: path
    default: /var/lib/keyturn
  jobs:
    description: The jobs that are meant. Those that do not run now are left out.
    type: list
    elements: dict
    required: true
    suboptions:
      secret:
        description: The name of the secret.
        type: str
        required: true
      database:
        description: The name of the database in the catalog.
        type: str
        required: true
  action:
    description:
      - V(read) looks and changes nothing.
      - V(pause) lets the job rest between two batches, until V(resume).
      - V(stop) ends it; the same call of M(keyturn.rotation.reencrypt) goes on later. Refused for states that swap.
      - V(limit) sets another O(rate).
      - V(resume) takes back what was asked for.
    type: str
    choices: [read, pause, resume, stop, limit]
    default: read
  rate:
    description: Rows per second at most, for O(action=limit); 0 for no limit.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Let the re-encryption rest
  keyturn.rotation.rotation_pace:
    jobs:
      - {secret: JWK_AES_KEY, database: app}
    action: pause
"""

RETURN = r"""
jobs:
  description:
    - The jobs that run; C(left_s) is null while it is unknown, C(silent_s) says how long ago the job said this.
  returned: success
  type: list
  elements: dict
  sample:
    - {secret: JWK_AES_KEY, database: app, state: prepared, table: public.jwks_keys, column: private_jwk, done: 1200,
       total: 2000, rate: 450.0, left_s: 1.8, paused: false, behind: false, silent_s: 0.4}
"""

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.steering import run

_JOB = {
    "secret": {"type": "str", "required": True, "no_log": False},
    "database": {"type": "str", "required": True},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "state_dir": {"type": "path", "default": "/var/lib/keyturn"},
    "jobs": {"type": "list", "elements": "dict", "required": True, "options": _JOB},
    "action": {"type": "str", "choices": ["read", "pause", "resume", "stop", "limit"], "default": "read"},
    "rate": {"type": "int", "default": 0},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
