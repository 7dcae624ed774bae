#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show how keysets stand on a host, without showing a key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keyset_info
short_description: Show how keysets stand on a host, without showing a key
version_added: 0.1.0
description:
  - Reads keysets and tells their kids, which one is active, and a fingerprint of each key. No key is in the result.
  - What is wrong comes in lists, all of it at once, and the module does not fail for it.
  - Nothing on the host is changed. Only the box with the fingerprint key is kept for the run.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
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
  accept_fingerprint:
    description: The inventory's fingerprint key in a box for this host. It is kept for the run.
    type: str
  previous:
    description: What an earlier call returned as RV(keysets), to compare with.
    type: dict
  policy:
    description: What keys and files must be. RV(findings) tells what is not so.
    type: dict
    suboptions:
      external:
        description: Whether keys must come from a file or a command, not from the environment.
        type: bool
        default: true
      min_bytes:
        description: The least length of a key in bytes. HS256 asks for 32.
        type: int
        default: 32
      min_bits:
        description: The least randomness that the characters of a key show, in bits. It is a guess from above.
        type: int
        default: 100
      max_keys:
        description: How many keys a keyset holds at most. V(0) for any number.
        type: int
        default: 0
      defaults:
        description: Keys that stand in documents and sources, so that everybody knows them.
        type: list
        elements: str
        default: [dev-insecure-change-me]
      owner:
        description: Who owns keyset files.
        type: str
  environments:
    description:
      - Dotenv files of services that say where keys are. Readers look for a file, then a command, then an inline
        keyset, then a single key. They are looked at where there is a O(policy).
    type: list
    elements: dict
    default: []
    suboptions:
      env_file:
        description: The dotenv file.
        type: path
        required: true
      file:
        description: The variable that names a keyset file.
        type: str
      command:
        description: The variable that holds a command.
        type: str
      inline:
        description: The variable that holds an inline keyset.
        type: str
      secret:
        description: The variable that holds a single key.
        type: str
seealso:
  - module: keyturn.rotation.keyset
"""

EXAMPLES = r"""
- name: Look at the keyset
  keyturn.rotation.keyset_info:
    keysets:
      - name: JWT_KEYSET
        stores: [{type: file, path: /etc/app/jwt-keyset.json}]
    policy: {min_bytes: 32, owner: app}
  register: found
"""

RETURN = r"""
keysets:
  description: What was found, by name.
  returned: success
  type: dict
  contains:
    active_kid:
      description: The kid of the active key. Empty where there is no keyset.
      type: str
    previous_active_kid:
      description: The kid that was active before this rotation. Empty when that is not known.
      type: str
    source:
      description: The type of the first store.
      type: str
    keys:
      description:
        - For each key its C(kid), its C(state) (C(primary), C(staged) or C(previous)), its C(fingerprint), C(since)
          when this rotation made it, and which version of the rotation it C(holds).
      type: list
      elements: dict
    fingerprint:
      description: Of the whole keyset, whatever its form. The same on all hosts that agree.
      type: str
    state:
      description: The state of this rotation's key on this host. Empty when it was never staged here.
      type: str
    had_old:
      description: Whether there was an active key before this rotation.
      type: bool
    has_old:
      description: Whether the key that was active before this rotation is still in it.
      type: bool
    change:
      description:
        - Compared with O(previous), its C(state) (C(initial), C(rotated) or C(unchanged)) and the kids that were
          C(added), C(removed), or C(changed) their key.
      type: dict
    stores:
      description: As M(keyturn.rotation.secret_info) tells them.
      type: list
      elements: dict
    versions:
      description: By rotation its C(state), C(made_at), C(had_old) and C(fingerprints).
      type: dict
    boxes:
      description: By host the keys in boxes.
      type: dict
problems:
  description: What is wrong, each with C(code), C(where) and C(msg).
  returned: success
  type: list
  elements: dict
findings:
  description: What goes against O(policy), each with C(code), C(where) and C(msg).
  returned: success
  type: list
  elements: dict
copies:
  description: Where active keys stand that no store names, as M(keyturn.rotation.secret_info) tells them.
  returned: success
  type: list
  elements: dict
loose_files:
  description: Store files that others than their owner may read.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.call import (
    ENVIRONMENT_OPTIONS,
    INFO_OPTIONS,
    POLICY_OPTIONS,
    run_info,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module

ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "keysets": {"type": "list", "elements": "dict", "required": True, "no_log": False, "options": INFO_OPTIONS},
    "accept_fingerprint": {"type": "str"},
    "previous": {"type": "dict", "no_log": False},
    "policy": {"type": "dict", "options": POLICY_OPTIONS},
    "environments": {"type": "list", "elements": "dict", "default": [], "options": ENVIRONMENT_OPTIONS},
}


def main() -> None:
    """Run the module."""
    run_module(run_info, ARGUMENTS)


if __name__ == "__main__":
    main()
