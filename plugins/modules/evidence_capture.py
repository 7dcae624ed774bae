#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seal a keyset as it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: evidence_capture
short_description: Seal a keyset as it is, outside of any rotation
version_added: 0.1.0
description:
  - Writes the folder of an event under a name that a person chose, in the evidence of the inventory, with
    C(evidence.json), C(keyset.json), C(summary.json), C(fingerprint.sha256) and C(report.html). It holds no secret.
  - The keyset is compared with the event before. Kids that were added or removed, secrets that changed under the same
    kid, and an active kid that moved are in the record.
  - Nothing is ever overwritten. The same event of the same keyset again changes nothing; of another one it is refused.
  - In the playbook, an action on the controller brings what M(keyturn.rotation.evidence_keyset) said on every host, and
    refuses when hosts hold different keysets.
author: keyturn.rotation contributors (@keyturn)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: full
  platform:
    description: Target operating systems.
    platforms: posix
    support: full
options:
  state_dir:
    description: The folder in which the state host keeps the state of rotations.
    type: path
    default: /var/lib/keyturn
  event_id:
    description: The name of the event. Letters, digits, dot, dash and underscore.
    type: str
    required: true
  keyset:
    description: What M(keyturn.rotation.evidence_keyset) returned. The action takes it from the hosts.
    type: dict
    required: true
  hosts:
    description: The hosts that hold the keyset.
    type: list
    elements: str
    default: []
  previous:
    description: The event to compare with, by the name of its folder. The default is the last one of this keyset.
    type: str
    default: ''
  reason:
    description: Why, for the evidence.
    type: str
    default: ''
  who:
    description: Who runs this. The action knows it.
    type: dict
    default: {}
  signing_key:
    description: A file of mode C(0600) on this host with an Ed25519 private key.
    type: path
  copies:
    description: Further directories on this host that get every folder, the chains and the head.
    type: list
    elements: path
    default: []
seealso:
  - module: keyturn.rotation.evidence
  - module: keyturn.rotation.evidence_keyset
  - module: keyturn.rotation.evidence_verify
"""

EXAMPLES = r"""
- name: Seal a keyset that was read before
  keyturn.rotation.evidence_capture:
    event_id: rotation-20260212-a
    keyset: "{{ read.keyset }}"
    hosts: [api1]
    reason: before the audit
"""

RETURN = r"""
path:
  description: The folder of the event.
  returned: success
  type: str
  sample: /var/lib/keyturn/evidence/rotation-20260212-a
digest:
  description: SHA-256 of C(evidence.json). Kept elsewhere, it proves later that nothing was cut off.
  returned: success
  type: str
summary:
  description: The content of C(summary.json).
  returned: success
  type: dict
lines:
  description: What became of the keyset since the event before, for people.
  returned: success
  type: list
  elements: str
problems:
  description: Copies that were not made, and folders that belong to no chain.
  returned: success
  type: list
  elements: str
"""

import os
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.common.warnings import warn
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.capture import capture
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.keyset import comparison_lines
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import load_signer
from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Seal ``keyset``."""
    keyset, hosts = params["keyset"], params["hosts"]
    loose = ["Others than its owner can read the keyset's file."] if keyset.get("loose") else []
    sealed, record = capture(
        os.path.join(params["state_dir"], "evidence"),
        params["event_id"],
        {**keyset, "messages": loose},
        {
            "who": {"user": "unknown", **params["who"]},
            "why": params["reason"] or "no reason given",
            "hosts": {"expected": hosts, "done": hosts},
        },
        now=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        previous=params["previous"],
        signer=load_signer(params["signing_key"]) if params["signing_key"] else None,
        copies=params["copies"],
        check_mode=check_mode,
    )
    for problem in sealed.problems:
        warn(problem)
    return {
        "changed": sealed.changed,
        "path": sealed.path,
        "digest": sealed.digest,
        "summary": sealed.summary,
        "lines": comparison_lines(record) + loose,
        "problems": sealed.problems,
        "diff": {"before": {}, "after": sealed.summary if sealed.changed else {}, "after_header": sealed.path},
    }


def main() -> None:
    """Run the module."""
    run_module(
        work,
        {
            "state_dir": {"type": "path", "default": "/var/lib/keyturn"},
            "event_id": {"type": "str", "required": True},
            "keyset": {"type": "dict", "required": True, "no_log": False},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "previous": {"type": "str", "default": ""},
            "reason": {"type": "str", "default": ""},
            "who": {"type": "dict", "default": {}},
            "signing_key": {"type": "path", "no_log": False},
            "copies": {"type": "list", "elements": "path", "default": []},
        },
    )


if __name__ == "__main__":
    main()
