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
  - Each backup is restored once into a scratch folder and compared before it counts.
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
      - V(listed) shows the backups and V(verified) checks them. Both change nothing.
      - V(pruned) removes those older than O(retention_days), except those of O(rotation_id).
    type: str
    choices: [created, restored, listed, verified, pruned]
    required: true
  backup_dir:
    description: Where the backups lie. The default is the folder C(backups) in O(state_dir).
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
      - The folder to which backups that another program made belong.
      - Their files lie at relative paths, and they may lack metadata. Without O(root) they are not restored.
    type: path
  retention_days:
    description: How long a backup is kept. With V(created) it is noted in the metadata.
    type: int
  confirm_old:
    description: Restore even when values in the backup were retired on this host since.
    type: bool
    default: false
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
    expires:
      description: When it may be removed, or an empty text.
      type: str
backups:
  description: The backups, the oldest first.
  returned: listed, verified
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
removed:
  description: The names of the backups that were removed.
  returned: pruned
  type: list
  elements: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.backup import run
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module

ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "state": {"type": "str", "choices": ["created", "restored", "listed", "verified", "pruned"], "required": True},
    "backup_dir": {"type": "path"},
    "files": {"type": "list", "elements": "path", "default": []},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "services": {"type": "list", "elements": "str", "default": []},
    "name": {"type": "str"},
    "root": {"type": "path"},
    "retention_days": {"type": "int"},
    "confirm_old": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS, required_if=[("state", "restored", ["name"])])


if __name__ == "__main__":
    main()
