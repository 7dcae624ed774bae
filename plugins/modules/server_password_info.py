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
extends_documentation_fragment: [keyturn.rotation.session, keyturn.rotation.servers]
requirements:
  - psycopg >= 3.1, for PostgreSQL
  - redis >= 4.0, for Redis
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
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
