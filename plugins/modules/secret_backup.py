#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back up the files that hold secrets, and bring them back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_backup
short_description: Back up the files that hold secrets, and bring them back
version_added: 0.1.0
description:
  - A backup is a folder with mode C(0700) that is named by its time in UTC. Its metadata is written last.
  - Each backup is restored once into a scratch folder and compared before it counts. An encrypted one is read back,
    opened and compared.
  - All files are restored, or none. What they replace is backed up first.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode. Contents are never in it.
    support: full
options:
  state:
    description:
      - V(created) backs O(files) up, once for each O(rotation_id).
      - V(restored) brings the files of O(name) back.
      - V(listed) shows the backups and V(verified) fails where one is damaged. Both change nothing.
      - V(pruned) removes those older than O(retention_days) and those beyond O(keep). The only sound backup of a secret
        stays, and so do those of O(rotation_id) and O(needed).
    type: str
    choices: [created, restored, listed, verified, pruned]
    required: true
  backup_dir:
    description:
      - Where the backups lie. The default is the folder C(backups) in O(state_dir).
      - A relative path lies in O(root), or in O(state_dir) where O(root) is not given.
      - Backups in the folders that it was before are found, restored and removed too.
    type: path
  files:
    description: The files. One that does not exist is noted, and removed again by a restore.
    type: list
    elements: path
    default: []
  secrets:
    description: The names of the secrets that will change, for the metadata.
    type: list
    elements: str
    default: []
  services:
    description: The services that read them, for the metadata.
    type: list
    elements: str
    default: []
  name:
    description: A backup's name or time, or V(latest).
    type: str
  root:
    description:
      - The project's folder. Files below it lie in a backup at their relative paths.
      - Backups that another program made belong to it. They may lack metadata and have no checksums. Without O(root)
        they are not restored.
    type: path
  filename_format:
    description: The form of the names, with C(%Y), C(%m) and C(%d), and where wanted C(%H), C(%M) and C(%S).
    type: str
    default: secrets-backup-%Y%m%d-%H%M%S
  encrypt:
    description: How the copies are encrypted. Without it they are as the files are.
    type: dict
    suboptions:
      type:
        description: The format. What is written opens with the program of that name.
        type: str
        choices: [age, ansible_vault]
        required: true
      recipients:
        description: Public keys of age, C(age1...).
        type: list
        elements: str
        default: []
      key:
        description: The vault password.
        type: dict
        suboptions: &value
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
  key:
    description: What opens an encrypted backup, the identity of age or the vault password.
    type: dict
    suboptions: *value
  gitignore:
    description: Whether a folder that lies in a work tree of git gets a C(.gitignore) that leaves everything in it out.
    type: bool
    default: true
  retention_days:
    description: How long a backup is kept. With V(created) it is noted in the metadata.
    type: int
  keep:
    description: How many backups of a secret are kept. V(0) is for no limit.
    type: int
    default: 0
  prune:
    description: With V(created), remove what has had its time. What cannot be removed is a warning.
    type: bool
    default: false
  insist:
    description: With V(pruned), whether a backup that cannot be removed is a failure, or a warning. The others go.
    type: bool
    default: true
  needed:
    description: Rotations whose backups stay, because they are open or may still be undone.
    type: list
    elements: str
    default: []
  release:
    description: Secrets of which even the only sound backup may go.
    type: list
    elements: str
    default: []
  confirm_old:
    description: Restore even when values in the backup were retired on this host since.
    type: bool
    default: false
  compare:
    description: With V(restored), secrets of which it is told whether their values change with the files.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name.
        type: str
        required: true
      stores:
        description: Its stores on this host, as in O(keyturn.rotation.secret#module:secrets[].stores).
        type: list
        elements: dict
        default: []
seealso:
  - module: keyturn.rotation.secret
"""

EXAMPLES = r"""
- name: Back up
  keyturn.rotation.secret_backup:
    state: created
    rotation_id: 2026-11-app
    files: [/srv/app/.env]
    secrets: [APP_KEY]
    services: [api]

- name: Bring the last backup back
  keyturn.rotation.secret_backup:
    state: restored
    name: latest
"""

RETURN = r"""
backup:
  description: The backup that was made or restored.
  returned: created, restored
  type: dict
  contains: &backup
    name:
      description: The name of its folder.
      type: str
    short_name:
      description: Its time, as people type it.
      type: str
    path:
      description: The folder.
      type: str
    time:
      description: When it was made, UTC.
      type: str
    rotation_id:
      description: The rotation it was made for.
      type: str
    reason:
      description: Why it was made, where that was not for a rotation.
      type: str
    secrets:
      description: The secrets that changed then.
      type: list
      elements: str
    services:
      description: The services that read them.
      type: list
      elements: str
    files:
      description: The files in it.
      type: list
      elements: str
    complete:
      description: Whether it can be restored.
      type: bool
    foreign:
      description: Whether another program made it.
      type: bool
    encryption:
      description: How its copies are encrypted, or an empty text.
      type: str
    checksums:
      description: Whether the copies are as they were made, V(ok), V(wrong), or V(none) where there are no checksums.
      returned: restored, listed, verified, pruned
      type: str
    proven:
      description: What was done to see that the copies are good.
      returned: created
      type: str
    expires:
      description: When it may be removed, or an empty text.
      type: str
backups:
  description: The backups, the oldest first. After pruning, those that are left.
  returned: listed, verified, pruned
  type: list
  elements: dict
  contains: *backup
restored:
  description: The files that changed.
  returned: restored
  type: list
  elements: str
replaced:
  description: The name of the backup of what these files held before.
  returned: restored
  type: str
differing:
  description: The secrets in O(compare) that have another value than before.
  returned: restored, with O(compare)
  type: list
  elements: str
astray:
  description: Those of them that a rotation turned which may still be rolled back, and that have not its new value now.
  returned: restored, with O(compare)
  type: list
  elements: str
removed:
  description: The backups that were removed, each with C(name), C(time) and C(why).
  returned: pruned
  type: list
  elements: dict
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.backup import BACKUP_OPTIONS, run
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module

ARGUMENTS = {**SESSION_ARGUMENTS, **BACKUP_OPTIONS}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS, required_if=[("state", "restored", ["name"])])


if __name__ == "__main__":
    main()
