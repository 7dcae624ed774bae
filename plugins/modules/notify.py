#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Telling people."""

from __future__ import annotations

DOCUMENTATION = r"""
module: notify
short_description: Tell people what became of a rotation
version_added: 0.1.0
description:
  - Sends one message to every recipient in the variable C(keyturn_notify) that wants this event, from the controller.
  - The variable is read by the module itself, so that addresses of webhooks and passwords are in no task's arguments.
  - It never fails. Who could not be told is said, returned, and noted in the rotation's journal.
  - The message holds names, hosts, times and commands, and no value.
author: keyturn.rotation contributors (@keyturn)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
    details: Nothing is sent.
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  platform:
    description: Target operating systems.
    platforms: posix
    support: full
options:
  event:
    description: What happened.
    type: str
    required: true
    choices: [started, succeeded, failed, rolled_back, stuck, overdue]
  about:
    description:
      - What is known of it. C(secrets) are the names.
      - C(rotation_id), C(mode), C(status), C(hosts), C(lost), C(who), C(started_at), C(retire_after), C(stopped_at),
        C(evidence), C(state_host) and C(commands) are shown where they are given.
    type: dict
    default: {}
  state_dir:
    description: The state host's folder, when the task runs there. Who could not be told is noted in it.
    type: path
"""

EXAMPLES = r"""
- name: Say that a secret should have been turned
  keyturn.rotation.notify:
    event: overdue
    about: {secrets: [JWK_AES_KEY]}
"""

RETURN = r"""
message:
  description: What was sent.
  returned: always
  type: dict
told:
  description: Who was told.
  returned: always
  type: list
  elements: str
not_told:
  description: Who was not, and why.
  returned: always
  type: list
  elements: str
"""
