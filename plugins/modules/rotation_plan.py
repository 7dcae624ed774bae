#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of a rotation, from catalog, register and inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_plan
short_description: Plan a rotation
version_added: 0.1.0
description:
  - Reads the catalog variables and the register on the state host.
  - Says what a run would do, in what order, on which hosts.
  - Refuses a run that would split a key over hosts that are left out.
  - Runs on the state host. It never changes anything.
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
    description: The state host's folder.
    type: path
    default: /var/lib/keyturn
  mode:
    description: What the run wants.
    type: str
    choices: [rotate, rollback, retire, emergency, restore, prune, plan, status, due, diagnose, validate, services]
    default: rotate
  only:
    description: Secrets by name, joined by commas. Without it what is open, or what is due.
    type: str
    default: ''
  services:
    description:
      - Which services are in the plan, V(all) of them or, without it, those that read the secrets.
      - >-
        For O(mode=services), services by name, joined by commas, or V(all). Without it those that read the secrets in
        O(only), or else those of the rotation that began last.
    type: str
    default: ''
  restarts:
    description: Whether the services of the plan may be restarted.
    type: bool
    default: false
  digest:
    description: Refuse when the plan is no longer the one with this digest.
    type: str
    default: ''
  require_digest:
    description: Refuse to begin a rotation without O(digest). One that is open goes on without it.
    type: bool
    default: false
  until:
    description: The phase after which the run stops.
    type: str
    default: ''
  grace:
    description: How long a secret may be due before it is overdue.
    type: str
    default: 7d
  watch:
    description: For O(mode=emergency), how long logs are watched after the turn. As the catalog says by default.
    type: str
    default: ''
  waive:
    description: Hosts that may be missing.
    type: list
    elements: dict
    default: []
  skip_backup:
    description: Plan without a backup. Refused where data at rest depends on a secret.
    type: bool
    default: false
  gate:
    description: The services that must be well before a rotation begins, those concerned or all of the catalog.
    type: str
    default: concerned
    choices: [concerned, all]
"""

EXAMPLES = r"""
- name: Plan
  keyturn.rotation.rotation_plan:
    only: JWK_AES_KEY
  delegate_to: state1
  run_once: true
  register: planned
"""

RETURN = r"""
plan:
  description: Phases, hosts, waves and the digest.
  returned: success
  type: dict
steps:
  description: What the run does, step by step, each a task file of the role. What nothing needs is left out.
  returned: success
  type: list
  elements: dict
gate:
  description: All services by host, where they must be well before the rotation that begins here; otherwise empty.
  returned: success
  type: dict
watch_s:
  description: For how many seconds logs are watched after an emergency.
  returned: success
  type: int
names:
  description: The secrets it is about.
  returned: success
  type: list
  elements: str
secrets:
  description: How every secret of the catalog stands.
  returned: success
  type: list
  elements: dict
agenda:
  description: What a schedule has to do now, each in a run of its own; what waits for a person; what is overdue.
  returned: success
  type: dict
catalog:
  description: The catalog, without what may be a value.
  returned: for O(mode=diagnose)
  type: dict
services:
  description: The services of every host.
  returned: for O(mode=diagnose)
  type: dict
evidence:
  description: What was sealed last, by secret. Empty with other modes than V(status) and V(diagnose).
  returned: success
  type: dict
rotations:
  description: The rotations in the register.
  returned: success
  type: dict
"""
