# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules for passwords that a server checks."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment ``keyturn.rotation.servers``."""

    DOCUMENTATION = r"""
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
