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
extends_documentation_fragment: [keyturn.rotation.session]
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
  servers:
    description: The servers and the login on each.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name of the secret.
        type: str
        required: true
      type:
        description: What checks the password.
        type: str
        choices: [postgres, redis]
        required: true
      database:
        description: For V(postgres), the name of the admin's connection. Required there.
        type: str
      role:
        description: For V(postgres), the role whose password it is. Required there.
        type: str
      dsn:
        description:
          - For V(postgres), the admin's connection string. Required there.
          - The admin may be the role itself; then whichever of its two passwords is valid is used.
        type: dict
        suboptions: &reference
          file:
            description: A file of mode C(0600) that holds the value.
            type: path
          env_file:
            description: A dotenv file.
            type: path
          variable:
            description: The variable in the dotenv file.
            type: str
          sealed:
            description: The value, sealed to this host.
            type: str
          value:
            description: The value itself.
            type: str
      host:
        description: For V(postgres), where a login is tried over TCP. By default it is the admin's server.
        type: str
      port:
        description: For V(postgres), the port of that login.
        type: int
      dbname:
        description: For V(postgres), the database of that login.
        type: str
      address:
        description: For V(redis), C(host:port) or the path of a socket. Required there.
        type: str
      user:
        description: For V(redis), the ACL user. The password of V(default) is C(requirepass).
        type: str
        default: default
      tls:
        description: For V(redis), whether to speak TLS. Certificates are checked.
        type: bool
        default: false
      ca_file:
        description: For V(redis), a PEM file with the certificates to trust instead of the system's.
        type: path
      cert_file:
        description: For V(redis), a client certificate.
        type: path
      key_file:
        description: For V(redis), its key.
        type: path
      admin_user:
        description: For V(redis), who may change the user. The default is the user itself.
        type: str
      admin_password:
        description: For V(redis), the password of O(servers[].admin_user).
        type: dict
        suboptions: *reference
      new:
        description: The new password.
        type: dict
        suboptions: *reference
      old:
        description: The old password.
        type: dict
        suboptions: *reference
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
