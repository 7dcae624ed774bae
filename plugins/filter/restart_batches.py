# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put services together that are restarted in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.keyturn.rotation.plugins.module_utils.waves import restart_batches

DOCUMENTATION = r"""
name: restart_batches
short_description: Put services together that are restarted in one call
version_added: 0.1.0
description:
  - Keeps the order of the services, and puts neighbours together that one call can treat.
  - Those are services with the manager C(command), and services of one project and one C(wave) of Docker Compose that
    are not C(rolling). Every other service is by itself.
author: keyturn.rotation contributors (@keyturn)
options:
  _input:
    description: Services of one host, as in the catalog, each with C(name) and C(manager).
    type: list
    elements: dict
    required: true
  found:
    description:
      - What M(keyturn.rotation.compose_info) found of each service.
      - Services that do not say C(files) or C(env_files) get those that they were started with, and are together
        only with those that have the same.
    type: dict
"""

EXAMPLES = r"""
- name: Show what is restarted together, [['api', 'web'], ['agent']]
  ansible.builtin.debug:
    msg: "{{ services | keyturn.rotation.restart_batches | map('map', attribute='name') }}"
  vars:
    services:
      - {name: api, manager: compose, project_dir: /srv/app, wave: 0}
      - {name: web, manager: compose, project_dir: /srv/app, wave: 0}
      - {name: agent, manager: systemd, wave: 0}
"""

RETURN = r"""
_value:
  description: Lists of services, in order.
  type: list
  elements: list
"""


def _filter(
    services: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]] | None = None
) -> list[list[dict[str, Any]]]:
    if isinstance(services, (str, Mapping)) or not all(isinstance(service, Mapping) for service in services):
        raise AnsibleFilterError("restart_batches: needs a list of services")
    return restart_batches(services, found)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"restart_batches": _filter}
