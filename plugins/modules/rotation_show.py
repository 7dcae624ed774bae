#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines for people."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_show
short_description: Show a plan or the status
version_added: 0.1.0
description:
  - Used by the playbooks. Runs on the controller alone.
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
  planned:
    description: What M(keyturn.rotation.rotation_plan) returned.
    type: dict
    required: true
  what:
    description: What to show. With V(held) it ends by failing, since something was not turned.
    type: str
    choices: [plan, status, pace, due, backups, held]
    default: plan
  only:
    description: With V(status), secrets by name, joined by commas; the others are not shown. Files have them all.
    type: str
    default: ''
  to:
    description:
      - A private file on the controller. With V(due) for what a schedule has to do, as JSON; with V(status) for the
        same as a page in HTML.
    type: str
    default: ''
  inventory_to:
    description: With V(status), a private file on the controller for a cryptographic inventory, CycloneDX 1.6 in JSON.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Show the status
  keyturn.rotation.rotation_show:
    planned: "{{ planned }}"
    what: status
"""

RETURN = r"""
lines:
  description: The lines that were shown.
  returned: success
  type: list
  elements: str
exposed_s:
  description: For how many seconds a compromised version may be accepted once it is disabled; 0 for other plans.
  returned: success
  type: int
"""
