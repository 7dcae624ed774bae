#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show how secrets stand on a host, without showing them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_info
short_description: Show how secrets stand on a host, without showing them
version_added: 0.1.0
description:
  - Reads the stores and the versions that this host keeps. No value is in the result.
  - What is wrong comes in a list, all of it at once, and the module does not fail for it.
  - Nothing on the host is changed. Only the box with the fingerprint key is kept for the run.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
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
  search:
    description:
      - Files in which the values are looked for, besides those of the stores. A file that is not there is left out.
      - Values of less than 8 bytes are not looked for.
    type: list
    elements: path
    default: []
  replaced:
    description: Files that will be replaced. One that cannot be is among the problems, and so is one of O(backup).
    type: list
    elements: path
    default: []
  accept_fingerprint:
    description: The inventory's fingerprint key in a box for this host. It is kept for the run.
    type: str
  backup:
    description: Look at the files as this backup of M(keyturn.rotation.secret_backup) holds them.
    type: dict
    suboptions:
      name:
        description: Its name or time, or V(latest).
        type: str
        required: true
      backup_dir:
        description: Where the backups lie.
        type: path
      root:
        description: The project's folder.
        type: path
      filename_format:
        description: The form of the names.
        type: str
      key:
        description: What opens an encrypted backup.
        type: dict
        suboptions:
          file:
            description: A file of mode C(0600) on the host.
            type: path
          env_file:
            description: A dotenv file on the host.
            type: path
          variable:
            description: The variable in it.
            type: str
          sealed:
            description: A box for this host.
            type: str
          value:
            description: The value itself.
            type: str
notes:
  - Before a version is staged, a box of the version C(old) holds what the stores hold.
seealso:
  - module: keyturn.rotation.secret
"""

EXAMPLES = r"""
- name: Look at a secret
  keyturn.rotation.secret_info:
    secrets:
      - name: APP_KEY
        stores: [{type: env_file, path: /srv/app/.env}]
  register: found

- name: Show what is wrong
  ansible.builtin.debug:
    var: found.problems
"""

RETURN = r"""
secrets:
  description: What was found, by name.
  returned: success
  type: dict
  contains:
    stores:
      description:
        - For each store its C(path), C(variable), whether a value is C(present), its C(fingerprint), and which version
          it C(holds), one of C(new), C(old), C(absent), C(other), C(unknown).
        - The versions are those of O(rotation_id), or of the last rotation where none is named.
      type: list
      elements: dict
    versions:
      description: By rotation its C(state), C(made_at), C(had_old) and C(fingerprints).
      type: dict
    boxes:
      description: By host the versions in boxes.
      type: dict
problems:
  description: What is wrong, each with C(code), C(where) and C(msg).
  returned: success
  type: list
  elements: dict
copies:
  description:
    - Where values stand that no store names, each with C(secret), C(path), C(line), C(variable) and C(form), which is
      C(literal), C(percent-encoded) or C(base64).
  returned: success
  type: list
  elements: dict
loose_files:
  description: Store files that others than their owner may read.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.look import run_info
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.options import FROM_BACKUP, INFO_OPTIONS

ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "secrets": {"type": "list", "elements": "dict", "required": True, "no_log": False, "options": INFO_OPTIONS},
    "search": {"type": "list", "elements": "path", "default": []},
    "replaced": {"type": "list", "elements": "path", "default": []},
    "accept_fingerprint": {"type": "str"},
    "backup": {"type": "dict", "options": FROM_BACKUP},
}


def main() -> None:
    """Run the module."""
    run_module(run_info, ARGUMENTS)


if __name__ == "__main__":
    main()
