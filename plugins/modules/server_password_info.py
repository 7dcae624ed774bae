#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a password can be changed in the server that checks it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: server_password_info
short_description: See whether a password can be changed in the server that checks it
version_added: 0.1.0
description:
  - Logs in with the versions that are known and says which are accepted.
  - Fails where none is, where the server cannot be reached or lets everybody in, and where the admin may not change the
    password. Nothing is changed.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
requirements:
  - psycopg >= 3.1, for PostgreSQL
  - redis >= 4.0, for Redis
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
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
- name: See whether the password can be changed
  keyturn.rotation.server_password_info:
    servers:
      - name: CACHE_PASSWORD
        type: redis
        address: 127.0.0.1:6379
        old: {env_file: /srv/app/.env, variable: CACHE_PASSWORD}
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
    accepted:
      description: The versions that the server accepts.
      type: list
      elements: str
    kept_in:
      description:
        - Where a Redis server keeps its passwords, V(acl_file) or V(config_file).
        - With V(none) it has no file, so it must be started with the new password from then on.
      returned: for V(redis)
      type: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.job import INFO_ARGUMENTS, run_info


def main() -> None:
    """Run the module."""
    run_module(run_info, INFO_ARGUMENTS)


if __name__ == "__main__":
    main()
