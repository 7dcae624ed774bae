#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn the keys of keysets on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keyset
short_description: Turn the keys of keysets on a host
version_added: 0.1.0
description:
  - A keyset holds keys by their kid, of which one is active. A reader takes each of them, a writer uses the active one.
  - Brings keysets into a state on this host. All keysets and files of a call change, or none.
  - It has the same life as a secret of M(keyturn.rotation.secret), whose stores may be keysets too.
  - Other keys, other members of a JSON file, its style, owner and mode stay.
  - Beside a JSON file lies, with C(.last-known-good) behind its name, the keyset of before the last change. It never
    holds a key that the file itself has no more.
  - No key is in the result, nor in messages or in the diff.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode. Keys are shown as fingerprints.
    support: full
options:
  state:
    description:
      - V(staged) adds a new key, which is not active.
      - V(promoted) makes it the active one. It must have been staged by the same O(rotation_id).
      - V(withdrawn) removes the key that was active before. It is still kept on the host, for the proof that it is
        refused.
      - V(retired) removes it and forgets it.
      - V(rolled_back) puts back what was there before, to the byte.
      - A state that was passed already is not gone back to.
    type: str
    choices: [staged, promoted, withdrawn, retired, rolled_back]
    required: true
  keysets:
    description: The keysets.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name.
        type: str
        required: true
      stores:
        description: Where the keyset is on this host. All of them hold the same keys.
        type: list
        elements: dict
        default: []
        suboptions:
          type:
            description: A JSON file, two variables of a dotenv file, or commands.
            type: str
            choices: [env_file, file, keyset_command]
            required: true
          path:
            description: The file. Symbolic links are refused.
            type: path
          variable:
            description: The variable in a dotenv file that holds C(kid:key,kid:key). The default is the keyset's name.
            type: str
          active_variable:
            description: The variable in a dotenv file that holds the active kid. Both change in one write.
            type: str
          if_missing:
            description: Whether a variable or file that is not there is an error, or is added (first adoption).
            type: str
            choices: [error, add]
            default: error
          layout:
            description: What it is, so that entries of a catalog can be handed over as they are.
            type: str
            choices: [keyset]
            default: keyset
          mode:
            description: The most that the permissions of a JSON file may be. With more, it is refused.
            type: str
            default: "0600"
          read:
            description: The command that prints the keyset as a JSON document.
            type: list
            elements: str
          provision:
            description: The command that adds a key. It reads C({"kid", "key"}) from its standard input.
            type: list
            elements: str
          promote:
            description: The command that makes a key active. It reads C({"kid"}) from its standard input.
            type: list
            elements: str
          remove:
            description: The command that removes a key. It reads C({"kid"}) from its standard input.
            type: list
            elements: str
          timeout:
            description: Seconds that one of these commands may take.
            type: int
            default: 60
      seal_to:
        description: Hosts that get the keys in boxes which only they can open.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: The host's name, as it shall stand in the result.
            type: str
            required: true
          public:
            description: The public key that RV(keyturn.rotation.rotation_host#module:public) gave there in this run.
            type: str
            required: true
          versions:
            description: Which versions to seal.
            type: list
            elements: str
            choices: [new, old]
            default: [new, old]
      generate:
        description:
          - How the new key is made, with the options of M(keyturn.rotation.generate_secret). It must be text.
          - The default is 32 random bytes in base64url.
        type: dict
      kid:
        description:
          - The form of its kid, for C(strftime) in UTC. Where a kid is taken, a number is added.
          - The default is C(%Y%m%dT%H%M%SZ).
        type: str
      new:
        description: The new key, where it is not made here, or C({"kid", "key"}) as JSON.
        type: dict
        suboptions:
          file:
            description: A file on this host that only its owner may read.
            type: path
          env_file:
            description: A dotenv file on this host.
            type: path
          variable:
            description: The variable in O(keysets[].new.env_file).
            type: str
          sealed:
            description: A box for this host.
            type: str
          value:
            description: The key itself. The playbooks never use this.
            type: str
      origin:
        description: Whether this host makes the new key.
        type: bool
        default: true
      accept:
        description: Boxes from the host that made the key.
        type: dict
        suboptions:
          new:
            description: The new key.
            type: str
          old:
            description: The old key.
            type: str
seealso:
  - module: keyturn.rotation.keyset_info
  - module: keyturn.rotation.secret
"""

EXAMPLES = r"""
- name: Add a key that is not active yet
  keyturn.rotation.keyset:
    state: staged
    rotation_id: 2026-11-jwt
    keysets:
      - name: JWT_KEYSET
        kid: "%Y-%m"
        generate: {type: bytes, length: 32}
        stores: [{type: file, path: /etc/app/jwt-keyset.json}]

- name: Sign with it
  keyturn.rotation.keyset:
    state: promoted
    rotation_id: 2026-11-jwt
    keysets:
      - name: JWT_KEYSET
        stores: [{type: file, path: /etc/app/jwt-keyset.json}]
"""

RETURN = r"""
keysets:
  description: What holds now, by name.
  returned: success
  type: dict
  contains:
    state:
      description: The state on this host. Empty when this rotation was never staged here.
      type: str
    had_old:
      description: Whether there was an active key before.
      type: bool
    fingerprints:
      description: Of the keys C(new) and C(old). Empty texts when the run has no fingerprint key.
      type: dict
    stores:
      description: For each store its C(path), C(variable), and which version its active key is.
      type: list
      elements: dict
      sample: [{path: /etc/app/jwt-keyset.json, variable: "", holds: new}]
    boxes:
      description: By host the keys in boxes. One that does not exist, or is gone, is left out.
      type: dict
loose_files:
  description: Store files that others than their owner may read.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.call import KEYSET_OPTIONS, run
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module

ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "state": {
        "type": "str",
        "choices": ["staged", "promoted", "withdrawn", "retired", "rolled_back"],
        "required": True,
    },
    "keysets": {"type": "list", "elements": "dict", "required": True, "no_log": False, "options": KEYSET_OPTIONS},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
