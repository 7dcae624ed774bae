#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep encrypted copies of new data keys away from the hosts that use them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_escrow
short_description: Keep encrypted copies of new data keys away from the hosts that use them
version_added: 0.1.0
description:
  - A host that holds a staged version encrypts it for people's age keys. Another host stores that as a file.
  - The copy opens with C(age -d -i identity), on any machine, without this collection.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  state:
    description:
      - V(sealed) returns the new versions of O(rotation_id), encrypted.
      - V(stored) writes O(copies) below O(directory), once for each O(rotation_id), and again where one is not whole.
      - V(kept) says which copies are there. It changes nothing, as V(sealed).
      - V(removed) removes those of other rotations, where the one of O(rotation_id) is there and whole.
    type: str
    choices: [sealed, stored, kept, removed]
    required: true
  secrets:
    description: The names of the secrets.
    type: list
    elements: str
    required: true
  recipients:
    description: Public keys of age, C(age1...).
    type: list
    elements: str
    default: []
  directory:
    description: Where the copies lie.
    type: path
  copies:
    description: What V(sealed) returned, by name.
    type: dict
    default: {}
seealso:
  - module: keyturn.rotation.secret
"""

EXAMPLES = r"""
- name: Encrypt the new version where it was made
  keyturn.rotation.secret_escrow:
    state: sealed
    rotation_id: 2026-11-app
    secrets: [APP_KEY]
    recipients: [age1mrlqcq6x5z4da0nzvz0u763ypsrn3admrrx3qrwsjc8mnwqq79jsfs0lnk]
  register: sealed

- name: Store it elsewhere
  keyturn.rotation.secret_escrow:
    state: stored
    rotation_id: 2026-11-app
    secrets: [APP_KEY]
    directory: /srv/escrow
    copies: "{{ sealed.copies }}"
  delegate_to: vaultbox
"""

RETURN = r"""
copies:
  description: The encrypted versions by name, base64.
  returned: sealed
  type: dict
paths:
  description: Where the copies of this rotation lie.
  returned: stored
  type: list
  elements: str
removed:
  description: The files that were removed.
  returned: removed
  type: list
  elements: str
damaged:
  description: Copies of this rotation that are gone or not whole. The others of that secret stay then, with a warning.
  returned: kept, removed
  type: list
  elements: str
left:
  description: The rotations of which copies are there, by secret.
  returned: kept, removed
  type: dict
"""

from typing import Any

from ansible.module_utils.common.warnings import warn
from ansible_collections.keyturn.rotation.plugins.module_utils.escrow import ESCROW_OPTIONS, run
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module

ARGUMENTS = {**SESSION_ARGUMENTS, **ESCROW_OPTIONS}


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Store, remove or tell."""
    result = run(params, check_mode)
    for path in result.get("damaged", ()):
        warn(f"{path} is gone or no whole age file, so the copies of earlier versions stay. Turn the key once more")
    return result


def main() -> None:
    """Run the module."""
    places = [("state", state, ["directory"]) for state in ("stored", "kept", "removed")]
    run_module(work, ARGUMENTS, required_if=places)


if __name__ == "__main__":
    main()
