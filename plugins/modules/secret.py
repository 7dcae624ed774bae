#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn the versions of secrets in the stores of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret
short_description: Turn the versions of secrets in the stores of a host
version_added: 0.1.0
description:
  - Brings secrets into a state on this host. All secrets and files of a call change, or none.
  - The new value is on the disk before anything uses it, and the same O(rotation_id) never makes a second one.
  - In a file only the bytes of the value change. Owner, mode, comments, quotes and line ends stay.
  - No value is in the result, nor in messages or in the diff.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode. Values are shown as fingerprints.
    support: full
options:
  state:
    description:
      - V(staged) makes or takes the new version. Services still use the old one.
      - V(promoted) makes the new version primary. It must have been staged by the same O(rotation_id).
      - V(withdrawn) takes the old version out of the stores. It is still kept on the host, for the proof that it is
        refused.
      - V(retired) takes the old version out of the stores and forgets all values of this and earlier rotations.
      - V(rolled_back) puts back what was there before, to the byte.
      - A state that was passed already is not gone back to. V(staged) on a promoted secret changes nothing.
    type: str
    choices: [staged, promoted, withdrawn, retired, rolled_back]
    required: true
  secrets:
    description: The secrets.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name.
        type: str
        required: true
      stores:
        description:
          - Where the value lives on this host.
          - A host without stores only keeps the versions, for work on data.
        type: list
        elements: dict
        default: []
        suboptions:
          type:
            description: A dotenv file, a plain file that is the value, or commands that read and change a keyset.
            type: str
            choices: [env_file, file, keyset_command]
            required: true
          path:
            description: The file. Symbolic links are refused.
            type: path
          variable:
            description: The variable in a dotenv file. The default is the secret's name.
            type: str
          layout:
            description:
              - V(single) holds one version. A staged one lies beside it, where no service reads.
              - V(list) holds several in one variable, the primary one first.
              - V(pair) holds the primary one in O(secrets[].stores[].variable) and the other in
                O(secrets[].stores[].previous_variable).
              - V(keyset) holds keys by their kid, see M(keyturn.rotation.keyset).
            type: str
            choices: [single, list, pair, keyset]
            default: single
          separator:
            description: What stands between the versions of a V(list).
            type: str
            default: ","
          previous_variable:
            description: The second variable of a V(pair). The default is the first one with C(_PREVIOUS) behind it.
            type: str
          if_missing:
            description: Whether a variable or file that is not there is an error, or is added (first adoption).
            type: str
            choices: [error, add]
            default: error
          newline:
            description: Whether a line end stands behind the value in a plain file. The default is as the file has it.
            type: bool
          inside:
            description:
              - The part of the variable or file that is the value. What is around it stays.
              - V(url) is the password of a URL, percent-encoded.
              - A mapping with C(pattern) is a regular expression of which the one group is the value. It matches once.
            type: raw
          active_variable:
            description: The variable of a V(keyset) in a dotenv file that holds the active kid.
            type: str
          mode:
            description: The most that the permissions of a V(keyset) file may be.
            type: str
            default: "0600"
          read:
            description: The command that prints a keyset as a JSON document.
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
        description: Hosts that get the versions in boxes which only they can open.
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
          - How the new value is made, with the options of M(keyturn.rotation.generate_secret).
          - Used only where O(secrets[].origin=true). A value that is given is checked for its C(min_length).
        type: dict
      derive:
        description:
          - How the new value is made from another secret's value, where O(secrets[].origin=true).
          - Where that secret is staged in the same call, its new value counts, else the one its stores hold.
        type: dict
        suboptions:
          type:
            description: A signed token.
            type: str
            choices: [jwt]
            default: jwt
          from:
            description: The name of the secret whose value signs it.
            type: str
            required: true
          claims:
            description: Its claims but for C(iat) and C(exp), in this order.
            type: dict
            default: {}
          lifetime:
            description: How long it is valid, for example V(5y) or V(90d).
            type: str
            required: true
          algorithm:
            description: How it is signed.
            type: str
            choices: [HS256]
            default: HS256
          allow_weak:
            description: Accept a signing value of less than 32 bytes.
            type: bool
            default: false
          stores:
            description: The stores of that secret on this host, as in O(secrets[].stores).
            type: list
            elements: dict
            default: []
      new:
        description: The new value, where it is not made here.
        type: dict
        suboptions:
          file:
            description: A file on this host that only its owner may read.
            type: path
          env_file:
            description: A dotenv file on this host.
            type: path
          variable:
            description: The variable in O(secrets[].new.env_file).
            type: str
          sealed:
            description: A box for this host.
            type: str
          value:
            description: The value itself. The playbooks never use this.
            type: str
      old:
        description: The old value. The default is what the stores hold.
        type: dict
        suboptions:
          file:
            description: A file on this host that only its owner may read.
            type: path
          env_file:
            description: A dotenv file on this host.
            type: path
          variable:
            description: The variable in O(secrets[].old.env_file).
            type: str
          sealed:
            description: A box for this host.
            type: str
          value:
            description: The value itself. The playbooks never use this.
            type: str
      origin:
        description: Whether this host makes the new value.
        type: bool
        default: false
      accept:
        description: Boxes from the host that made the value.
        type: dict
        suboptions:
          new:
            description: The new value.
            type: str
          old:
            description: The old value.
            type: str
      kid:
        description: The form of the kid of a new key in a keyset, for C(strftime) in UTC.
        type: str
notes:
  - Values in dotenv files are read as python-dotenv and Docker Compose read them.
  - A value that readers disagree about, and a variable that is set twice, are refused.
  - A list keeps versions that stood in it before this rotation, behind the new one.
seealso:
  - module: keyturn.rotation.secret_info
  - module: keyturn.rotation.keyset
  - module: keyturn.rotation.secret_backup
"""

EXAMPLES = r"""
- name: Make a new key on one host, for itself and another
  keyturn.rotation.secret:
    state: staged
    rotation_id: 2026-11-app
    secrets:
      - name: APP_KEY
        origin: true
        generate: {type: bytes, length: 32, encoding: base64url}
        stores: [{type: env_file, path: /srv/app/.env}]

- name: Make it primary
  keyturn.rotation.secret:
    state: promoted
    rotation_id: 2026-11-app
    secrets:
      - name: APP_KEY
        stores: [{type: env_file, path: /srv/app/.env}]
"""

RETURN = r"""
secrets:
  description: What holds now, by name.
  returned: success
  type: dict
  contains:
    state:
      description: The state on this host. Empty when this rotation was never staged here.
      type: str
    had_old:
      description: Whether there was a value before.
      type: bool
    fingerprints:
      description: Of the versions C(new) and C(old). Empty texts when the run has no fingerprint key.
      type: dict
    kids:
      description: Of the versions C(new) and C(old) that are private JWKs.
      type: dict
    stores:
      description:
        - For each store its C(path), C(variable), and which version it C(holds).
        - A store of which this rotation never staged a version is not read, and C(holds) is V(unknown).
      type: list
      elements: dict
      sample: [{path: /srv/app/.env, variable: APP_KEY, holds: new}]
    boxes:
      description: By host the versions in boxes. A version that does not exist, or is gone, is left out.
      type: dict
loose_files:
  description: Store files that others than their owner may read.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.options import SECRET_OPTIONS
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.turn import run

ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "state": {
        "type": "str",
        "choices": ["staged", "promoted", "withdrawn", "retired", "rolled_back"],
        "required": True,
    },
    "secrets": {"type": "list", "elements": "dict", "required": True, "no_log": False, "options": SECRET_OPTIONS},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
