#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The end of pruning."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_prune
short_description: Say which backups were removed, and close the versions that none holds any more
version_added: 0.1.0
description:
  - Used by the role P(keyturn.rotation.rotation#role) after the hosts have removed backups. Runs on the state host.
  - A version is closed when no backup may hold it any more. That is sealed as evidence and noted in the register.
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
  state_dir:
    description: The state host's folder.
    type: path
    default: /var/lib/keyturn
"""

EXAMPLES = r"""
- name: Close what no backup holds any more
  keyturn.rotation.rotation_prune:
    plan: "{{ planned.plan }}"
  delegate_to: state1
  run_once: true
"""

RETURN = r"""
lines:
  description: The lines that were shown.
  returned: success
  type: list
  elements: str
"""
