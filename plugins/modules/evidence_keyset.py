#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a keyset for evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
module: evidence_keyset
short_description: Read the kids and fingerprints of a keyset for evidence
version_added: 0.1.0
description:
  - Reads a keyset C({"active_kid", "keys"}) from a file or from what a command prints, and returns its kids with a
    keyed fingerprint of each secret. No secret leaves the module.
  - A keyset that a careful reader would refuse is refused, for example one whose active kid names no key.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  name:
    description: The name of the keyset. It is part of the fingerprints.
    type: str
    required: true
  file:
    description: The file with the keyset.
    type: path
  command:
    description: A command that prints the keyset, as a list of words. It runs without a shell.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds within which the command has to end.
    type: float
    default: 60
  accept_fingerprint:
    description: The inventory's fingerprint key in a box for this host. It is kept for the run.
    type: str
    required: true
seealso:
  - module: keyturn.rotation.evidence_capture
"""

EXAMPLES = r"""
- name: Read a keyset
  keyturn.rotation.evidence_keyset:
    name: JWT
    command: [kms-client, get-jwt-keyset, --format, json]
    accept_fingerprint: "{{ sealing.boxes[inventory_hostname] }}"
"""

RETURN = r"""
keyset:
  description: >-
    C(name), C(source_mode), C(active_kid), C(fingerprints) by kid, C(fingerprint_key), which tells fingerprints under
    another key apart, and C(loose), whether others can read the file.
  returned: success
  type: dict
"""

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.keyset import fingerprints, load
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session, check_name


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """Read the keyset."""
    name = check_name(params["name"], "keyset name")
    if bool(params["file"]) == bool(params["command"]):
        raise KeyturnError("keyset-source", "needs either file or command", where=name, hint="Name one of them")
    session = Session.from_params(params)
    session.accept_fingerprint_key(params["accept_fingerprint"])
    found = load(params["file"], params["command"], params["timeout"])
    return {
        "changed": False,
        "keyset": {
            "name": name,
            "source_mode": "file" if params["file"] else "command",
            "active_kid": found.active_kid,
            "fingerprints": fingerprints(found, name, session.fingerprint),
            "fingerprint_key": session.fingerprint("fingerprint-key", b""),
            "loose": found.loose,
        },
    }


def main() -> None:
    """Run the module."""
    run_module(
        work,
        {
            **SESSION_ARGUMENTS,
            "name": {"type": "str", "required": True},
            "file": {"type": "path"},
            "command": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 60},
            "accept_fingerprint": {"type": "str", "required": True},
        },
    )


if __name__ == "__main__":
    main()
