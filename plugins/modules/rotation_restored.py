#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The record of a restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_restored
short_description: Seal what a restore changed
version_added: 0.1.0
description:
  - Used by the role P(keyturn.rotation.rotation#role). Nothing is sealed where no file changed.
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
  reason:
    description: Why, for the evidence.
    type: str
    default: ''
  state_dir:
    description: The state host's folder.
    type: path
    default: /var/lib/keyturn
seealso:
  - module: keyturn.rotation.evidence
  - module: keyturn.rotation.secret_backup
"""

EXAMPLES = r"""
- name: Seal what was restored
  keyturn.rotation.rotation_restored:
    plan: "{{ planned.plan }}"
    reason: the vendor took the new key back
"""

RETURN = r"""
path:
  description: The folder of the event; empty where nothing had changed.
  returned: success
  type: str
  sample: /var/lib/keyturn/evidence/20261123T120000Z-4c45a8.restored
"""
