# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that every changing module shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments ``keyturn.rotation.session`` and ``keyturn.rotation.session.info``."""

    DOCUMENTATION = r"""
options:
  state_dir:
    description:
      - The folder in which this host keeps the state of rotations. It is made with mode C(0700).
    type: path
    default: /var/lib/keyturn
  session_dir:
    description:
      - Where the keys of the present run lie. The playbooks name a temporary folder in check mode.
      - The default is the folder C(host) in O(state_dir).
    type: path
  rotation_id:
    description:
      - The rotation this call belongs to. The same call with the same identifier changes nothing the second time.
    type: str
  epoch:
    description:
      - The number of the run. A run with a lower number than the host has seen is refused.
    type: int
    default: 0
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
  platform:
    description: Target operating systems.
    platforms: posix
    support: full
"""
