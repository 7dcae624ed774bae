#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bundle for somebody who looks into a fault."""

from __future__ import annotations

DOCUMENTATION = r"""
module: diagnose
short_description: Put what all hosts said into a bundle without secrets
version_added: 0.1.0
description:
  - Used by the playbook C(keyturn.rotation.diagnose). Runs on the controller alone.
  - The bundle has versions, the catalog without values, the register, the health of services, journals and evidence.
  - It is a private folder, or one private archive where its name ends in C(.tar.gz). It never replaces anything.
author: keyturn.rotation contributors (@keyturn)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
    details: Nothing is written.
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
  to:
    description: Where the bundle goes, on the controller. By default a folder named after the time.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Write the bundle
  keyturn.rotation.diagnose:
    planned: "{{ planned }}"
    to: /tmp/keyturn.tar.gz
"""

RETURN = r"""
bundle:
  description: Where it is.
  returned: success
  type: str
files:
  description: What is in it.
  returned: success
  type: list
  elements: str
missing:
  description: Hosts that said nothing.
  returned: success
  type: list
  elements: str
"""
