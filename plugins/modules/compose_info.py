#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The containers behind services of Docker Compose, and what depends on what."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_info
short_description: Find the containers of Docker Compose services
version_added: 0.1.0
description:
  - Finds containers by the labels that Docker Compose v2 sets, and reads from them which service depends on which.
  - It asks the Docker Engine, not Compose, so it reads no Compose file. It never changes anything.
author: keyturn.rotation contributors (@keyturn)
requirements: [docker (Python library) on the host]
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  services:
    description:
      - The services, as in the catalog.
      - Each has C(name) and C(project_dir), and C(project), C(service) and C(docker_host) where the catalog has them.
    type: list
    elements: dict
    default: []
  of_catalog:
    description: The Compose services of the catalog on this host instead. For playbooks; the controller fills them in.
    type: bool
    default: false
  required:
    description: Whether a service without any container is an error.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Find the containers
  keyturn.rotation.compose_info:
    services:
      - {name: api, project_dir: /srv/app, service: web}
    required: true
  register: found
"""

RETURN = r"""
services:
  description: What was found, by name.
  returned: success
  type: dict
  contains:
    project:
      description: The name of the Compose project.
      returned: always
      type: str
    service:
      description: The name of the service in that project.
      returned: always
      type: str
    files:
      description: The Compose files that it was started with, here and in this folder; otherwise empty.
      returned: always
      type: list
      elements: str
    env_files:
      description: The files for C(--env-file) that it was started with; empty where there were none.
      returned: always
      type: list
      elements: str
    docker_host:
      description: The address of the daemon, where one was given.
      returned: always
      type: str
    replicas:
      description: How many containers it has; while replicas are replaced, half of those that are there.
      returned: always
      type: int
    containers:
      description: Its containers, each with C(id), C(name) and C(state).
      returned: always
      type: list
      elements: dict
projects:
  description: For each project C(depends_on), the services that each of its services waits for.
  returned: success
  type: list
  elements: dict
"""

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.compose import info
from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module

ARGUMENTS: dict[str, dict[str, Any]] = {
    "services": {"type": "list", "elements": "dict", "default": []},
    "of_catalog": {"type": "bool", "default": False},
    "required": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    run_module(info, ARGUMENTS)


if __name__ == "__main__":
    main()
