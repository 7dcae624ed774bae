#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lock and the register of rotations on the state host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_state
short_description: Keep the lock and the register of rotations on the state host
version_added: 0.1.0
description:
  - Opens, resumes, advances and ends rotations in one file on the state host.
  - One rotation is open for a secret at a time. A run that is taken over by another one is refused from then on.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  action:
    description:
      - V(read) returns the register.
      - V(acquire) opens a rotation or goes on with the one that is open.
      - V(advance) enters a phase.
      - V(turn_back) changes direction. V(begin_back) notes that the way back changes things from now on.
      - V(stay) ends a way back that has not begun, and leaves the rotation as it was before.
      - V(release) stops and leaves the rotation open.
      - V(finish) ends the run with O(status).
      - V(close) notes in C(held) of O(facts) which backups hold a retired version. When there is none it is closed.
      - V(seal) seals the inventory's fingerprint key to hosts.
      - V(note) keeps O(notes) in the rotation's journal.
    type: str
    choices: [read, acquire, advance, turn_back, begin_back, stay, release, finish, close, seal, note]
    default: read
  mode:
    description: What the run wants.
    type: str
    choices: [rotate, rollback, retire, emergency]
    default: rotate
  secrets:
    description: Names of the secrets.
    type: list
    elements: str
    default: []
  run:
    description: Who runs this, and which other runs the controller knows to be alive or dead.
    type: dict
    default: {}
  details:
    description: What to keep of a rotation that begins. Its C(data) is compared with what a rotation began with.
    type: dict
    default: {}
  gone:
    description: Data that a rotation began with and that is gone for good, each as C(secret/database).
    type: list
    elements: str
    default: []
  take_over:
    description: Take a rotation over although its run may be alive.
    type: bool
    default: false
  phase:
    description: The phase that begins.
    type: str
    default: ''
  status:
    description: How the run ends.
    type: str
    choices: [overlap, retired, retiring, replaced, replacing, rolled_back, rollback_pending, stuck]
  facts:
    description: What a later run needs to know.
    type: dict
    default: {}
  recipients:
    description: Public keys by host name, for O(action=seal).
    type: dict
    default: {}
  evidence:
    description: Whether O(action=read) also says what was sealed last of each secret.
    type: bool
    default: false
  notes:
    description: Lines for O(action=note).
    type: list
    elements: str
    default: []
  sealing:
    description: How evidence is sealed here. A rotation does not begin where C(signing_key) does not sign.
    type: dict
    default: {}
  syslog:
    description:
      - Whether each step is also one line in this host's system log, from syslog or journald.
      - It is C(key=value), begins with C(event), and has the names of the secrets in it.
      - A host without a system log is no error.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Read the register
  keyturn.rotation.rotation_state:
    action: read
  register: register
"""

RETURN = r"""
register:
  description: The register, for O(action=read).
  returned: read
  type: dict
evidence:
  description: What was sealed last, by secret. C(event), C(at), C(folder), C(record) and C(keyset).
  returned: read, when O(evidence)
  type: dict
rotation_id:
  description: The rotation.
  returned: when a rotation is concerned
  type: str
rotation:
  description: Its record.
  returned: when a rotation is concerned
  type: dict
epoch:
  description: The number of the run.
  returned: when a rotation is concerned
  type: int
boxes:
  description: The fingerprint key, sealed to each host.
  returned: seal
  type: dict
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import run

ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "action": {
        "type": "str",
        "choices": [
            *("read", "acquire", "advance", "turn_back", "begin_back", "stay", "release", "finish"),
            *("close", "seal", "note"),
        ],
        "default": "read",
    },
    "mode": {"type": "str", "choices": ["rotate", "rollback", "retire", "emergency"], "default": "rotate"},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "run": {"type": "dict", "default": {}},
    "details": {"type": "dict", "default": {}},
    "gone": {"type": "list", "elements": "str", "default": []},
    "take_over": {"type": "bool", "default": False},
    "phase": {"type": "str", "default": ""},
    "status": {
        "type": "str",
        "choices": [
            "overlap",
            "retired",
            "retiring",
            "replaced",
            "replacing",
            "rolled_back",
            "rollback_pending",
            "stuck",
        ],
    },
    "facts": {"type": "dict", "default": {}},
    "evidence": {"type": "bool", "default": False},
    "recipients": {"type": "dict", "default": {}},
    "notes": {"type": "list", "elements": "str", "default": []},
    "sealing": {"type": "dict", "default": {}},
    "syslog": {"type": "bool", "default": True},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
