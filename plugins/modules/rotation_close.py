#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The end of a run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_close
short_description: Seal the evidence of a run and end it in the register
version_added: 0.1.0
description:
  - Used by the role P(keyturn.rotation.rotation#role). Fails when the run did not reach what was asked for.
  - Runs on the state host.
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
  plan:
    description: The plan.
    type: dict
    required: true
  mode:
    description: What the run wanted.
    type: str
    choices: [rotate, rollback, retire, emergency]
    default: rotate
  until:
    description: The phase after which the run was asked to stop.
    type: str
    default: ''
  state_dir:
    description: The state host's folder.
    type: path
    default: /var/lib/keyturn
  session_dir:
    description: Where the keys of the present run lie.
    type: path
  rotation_id:
    description: The rotation.
    type: str
    required: true
  epoch:
    description: The number of the run.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Write the register and the evidence
  keyturn.rotation.rotation_close:
    plan: "{{ planned.plan }}"
    rotation_id: "{{ run.rotation_id }}"
    epoch: "{{ run.epoch }}"
"""

RETURN = r"""
status:
  description: How the rotation stands now.
  returned: always
  type: str
event:
  description: What people are told; empty when that is nothing.
  returned: always
  type: str
stopped_at:
  description: Hosts and tasks that failed.
  returned: when evidence was sealed
  type: list
  elements: str
retire_after:
  description: When the previous version may be retired; empty when there is none.
  returned: when evidence was sealed
  type: str
lost:
  description: Hosts that were lost on the way.
  returned: always
  type: list
  elements: str
evidence:
  description: The folder with the evidence.
  returned: when evidence was sealed
  type: str
report:
  description: The report for people.
  returned: when evidence was sealed
  type: str
"""
