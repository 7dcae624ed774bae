#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seal what happened in a rotation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: evidence
short_description: Seal what happened in a rotation
version_added: 0.1.0
description:
  - Writes one folder for an event of a rotation, with C(evidence.json), C(summary.json), C(report.html),
    C(fingerprint.sha256), C(keyset.json) where a keyset was turned, and a signature if a key is named.
  - The record carries the hash of the record before in the chain of each of its secrets, and in the inventory.
  - Nothing is ever overwritten. The same record again changes nothing; another record of the same event gets a
    folder of its own, with C(-2), C(-3) at the end of its name.
  - A record that looks as if it holds private material is refused.
  - In check mode the record and the state of the evidence are checked and nothing is written.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: full
options:
  record:
    description:
      - What happened, in the shape of C(docs/evidence.schema.json) without its C(seal).
    type: dict
    required: true
  dir:
    description:
      - Where the evidence lies. The default is the folder C(evidence) in O(state_dir).
    type: path
  signing_key:
    description:
      - A file of mode C(0600) on this host with an Ed25519 private key, PEM without passphrase or 32 raw bytes.
      - Needs the Python library C(cryptography).
    type: path
  copies:
    description:
      - Further directories on this host that get every folder, the chains and the head, for example a git repository.
      - A copy that cannot be made is a warning, not a failure.
    type: list
    elements: path
    default: []
seealso:
  - module: keyturn.rotation.evidence_verify
"""

EXAMPLES = r"""
- name: Seal a rotation
  keyturn.rotation.evidence:
    rotation_id: 2026-11-api
    epoch: 1
    signing_key: /etc/keyturn/evidence.pem
    record:
      schema_version: 1
      rotation_id: 2026-11-api
      event: rotated
      secrets:
        - name: API_KEY
          kind: env_secret
          strategy: replace
          versions:
            - {version: new, state: primary, at: '2026-11-21T10:00:12Z'}
            - {version: old, state: previous, at: '2026-11-21T10:00:12Z'}
          fingerprint_changed: true
      who: {user: anna, controller: deploy1}
      when: {started_at: '2026-11-21T10:00:00Z', ended_at: '2026-11-21T10:01:05Z'}
      why: due after 90 days
"""

RETURN = r"""
path:
  description: The folder of the record.
  returned: success
  type: str
  sample: /var/lib/keyturn/evidence/2026-11-api.rotated
report:
  description: The page for people.
  returned: success
  type: str
digest:
  description:
    - SHA-256 of C(evidence.json). Kept elsewhere, it proves later that nothing was cut off. Empty in check mode.
  returned: success
  type: str
sequence:
  description: The number of the record in the inventory.
  returned: success
  type: int
summary:
  description: The content of C(summary.json).
  returned: success
  type: dict
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
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.sealing import seal
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import load_signer
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Seal ``record``."""
    session = Session.from_params(params)
    record = params["record"]
    if session.rotation_id and record.get("rotation_id") != session.rotation_id:
        raise KeyturnError(
            "evidence-rotation",
            "the record is of another rotation than this call",
            where="rotation_id",
            hint="Name the same rotation in both",
        )
    signer = load_signer(params["signing_key"]) if params["signing_key"] else None
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    directory = params["dir"] or os.path.join(session.state_dir, "evidence")
    with session.changing(check_mode):
        sealed = seal(directory, record, now=now, signer=signer, copies=params["copies"], check_mode=check_mode)
    for problem in sealed.problems:
        warn(problem)
    return {
        "changed": sealed.changed,
        "path": sealed.path,
        "report": sealed.report,
        "digest": sealed.digest,
        "sequence": sealed.sequence,
        "summary": sealed.summary,
        "problems": sealed.problems,
        "diff": {"before": {}, "after": sealed.summary if sealed.changed else {}, "after_header": sealed.path},
    }


def main() -> None:
    """Run the module."""
    run_module(
        work,
        {
            **SESSION_ARGUMENTS,
            "record": {"type": "dict", "required": True},
            "dir": {"type": "path"},
            "signing_key": {"type": "path", "no_log": False},
            "copies": {"type": "list", "elements": "path", "default": []},
        },
    )


if __name__ == "__main__":
    main()
