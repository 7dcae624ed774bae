#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A gate over all hosts between two phases."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_gate
short_description: Compare what all hosts said before the next phase
version_added: 0.1.0
description:
  - Used by the role P(keyturn.rotation.rotation#role). Compares what the hosts registered.
  - Fails everywhere when one of them may not go on.
  - Runs on the controller alone.
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
  gate:
    description: Which gate.
    type: str
    required: true
    choices: [preflight, made, staged, promoted, found, answers, data_back, backups, readable, affected, scanned]
  plan:
    description: The plan.
    type: dict
    required: true
  rotation_id:
    description: The rotation whose versions are looked for.
    type: str
  mode:
    description:
      - With V(found), what was asked for. With V(rollback) and V(retire) hosts that a secret has turned without are
        refused, where that stands in the way.
      - With V(preflight), V(emergency) makes a warning of a clock that is off.
    type: str
  timed:
    description:
      - With V(found), whether time alone says that a version may go. Then hosts with a clock of their own are refused.
    type: bool
    default: false
  entered:
    description: With V(found), the phases that the rotation has entered.
    type: list
    elements: str
  backup:
    description: With V(backups), the backup that is asked for, by its name, its time, its rotation, or V(latest).
    type: str
  confirmed:
    description: With V(readable), secrets, joined by commas, of which a person said to restore them all the same.
    type: str
  everything:
    description: With V(affected), whether every service of the plan restarts.
    type: bool
    default: false
  restarts:
    description: With V(affected), whether any service restarts.
    type: bool
    default: true
  check_health:
    description: Whether services must be healthy.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Refuse what would fail later
  keyturn.rotation.rotation_gate:
    gate: preflight
    plan: "{{ planned.plan }}"
"""

RETURN = r"""
boxes:
  description: Sealed values by recipient.
  returned: success
  type: dict
forgotten:
  description: By host, secrets of which it keeps no version, and those whose data cannot be asked for any more.
  returned: preflight, made, staged, found
  type: dict
later:
  description: What is wrong with hosts that a secret has turned without, by host.
  returned: found
  type: dict
backup:
  description: The backup of this host that is asked for.
  returned: backups
  type: dict
services:
  description: The services that read what was restored.
  returned: affected
  type: list
  elements: str
"""
