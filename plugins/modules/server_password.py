#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords that a server checks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: server_password
short_description: Change a password in the server that checks it, and show it
version_added: 0.1.0
description:
  - For PostgreSQL the role's password is altered. The statement holds a SCRAM verifier, so the password is in no log
    and no statistics. Old and new are never both valid.
  - For Redis the new password is added to the user by its hash, and the old one taken away by O(state=retired).
    Both are valid in between. The server then writes its ACL file or its configuration, where it has one.
  - Each call tries to log in. A refusal counts only where the other password is accepted right after it.
    A server that lets everybody in fails the call, since no check would prove anything.
  - Where a rotation stands is asked of the server each time. A call that was killed is finished by the same call.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session, keyturn.rotation.servers]
requirements:
  - psycopg >= 3.1, for PostgreSQL
  - redis >= 4.0, for Redis
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode. No value is shown.
    support: full
options:
  state:
    description:
      - V(changed) makes the new password valid.
      - V(verified) shows that it is accepted, and for PostgreSQL that the old one is refused. Nothing is changed.
      - V(retired) takes the old password away where it is still valid, shows that it is refused, and forgets what was
        kept for the way back.
      - V(rolled_back) makes the old password valid again. In Redis the new one stays valid beside it, until V(retired)
        with O(direction=back) takes it away.
    type: str
    choices: [changed, verified, retired, rolled_back]
    required: true
  direction:
    description: V(back) says that the old password is the one to be valid, for V(verified) and V(retired).
    type: str
    choices: [forward, back]
    default: forward
"""

EXAMPLES = r"""
- name: Change the password of a role
  keyturn.rotation.server_password:
    state: changed
    rotation_id: r-20250601
    servers:
      - name: POSTGRES_PASSWORD
        type: postgres
        database: app
        role: app
        dsn: {file: /etc/app/admin-dsn}
        old: {env_file: /srv/app/.env, variable: POSTGRES_PASSWORD}
        new: {file: /root/new-password}
"""

RETURN = r"""
servers:
  description: What was done and shown, server by server.
  returned: success
  type: list
  elements: dict
  contains:
    secret:
      description: The secret.
      type: str
    type:
      description: What checks it.
      type: str
    place:
      description: The login and its server.
      type: str
    changed:
      description: Whether the server was changed.
      type: bool
    took_ms:
      description: How long the change took, in milliseconds.
      type: int
    logins:
      description: The logins that were tried, with what was expected and what the server said.
      type: list
      elements: dict
      sample: [{version: new, expected: accepted, result: accepted}, {version: old, expected: refused, result: refused}]
    kept_in:
      description:
        - Where a Redis server keeps its passwords, V(acl_file) or V(config_file).
        - With V(none) it has no file, so it must be started with the new password from then on.
      returned: for V(redis)
      type: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.job import ARGUMENTS, run


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
