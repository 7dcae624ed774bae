#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show, save and compare the health of all services."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_report
short_description: Show, save and compare the health of all services
version_added: 0.1.0
description:
  - Collects what M(keyturn.rotation.service_health) said on every host, and shows it in a few lines.
  - Fails when a service is not healthy. Where it is compared with a file of before, what was as bad then is shown and
    is no failure. One that got worse is, and one that is not healthy and of which nothing is known.
  - Runs on the controller. It never changes anything on a host.
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
    description: What M(keyturn.rotation.rotation_plan) planned in its mode C(services).
    type: dict
    required: true
  answers:
    description: The variable that the hosts registered their answers in.
    type: str
    default: __health_seen
  save:
    description: A file on the controller to write what was seen to. In check mode nothing is written.
    type: str
    default: ''
  compare:
    description:
      - A file on the controller that was saved before. It must name a service, and one that was looked at.
    type: str
    default: ''
  whole_catalog:
    description:
      - Whether O(plan) has every service of the catalog. Then a service that O(compare) alone names is not there any
        more, and counts as worse where it was well.
    type: bool
    default: false
  before:
    description:
      - The variable that the hosts registered their answers of before in, to say what got worse and what was so before.
        What is not healthy is a failure either way. Not used with O(compare).
    type: str
    default: ''
  note:
    description: What people have to know besides. It is shown at the end, and in the message of a failure.
    type: str
    default: ''
  verbose:
    description: Whether healthy services, and the last lines of logs, are shown too.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Say how the services are
  keyturn.rotation.health_report:
    plan: "{{ planned.plan }}"
    save: services.json
  run_once: true
"""

RETURN = r"""
services:
  description: What was seen, by name and host.
  returned: always
  type: dict
snapshot:
  description: What O(save) holds.
  returned: always
  type: dict
healthy:
  description: Whether all services are healthy.
  returned: always
  type: bool
worse:
  description: Services that are worse than before, with C(name), C(host), C(before), C(after) and C(detail).
  returned: always
  type: list
  elements: dict
"""
