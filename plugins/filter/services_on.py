# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the services of the catalog that are on a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import services_on

DOCUMENTATION = r"""
name: services_on
short_description: Find the services of the catalog that are on a host
version_added: 0.1.0
description:
  - Returns the services of one manager that a host has, each with its C(name).
  - An entry that is not right is left out; M(keyturn.rotation.rotation_plan) says what is wrong with it.
author: keyturn.rotation contributors (@keyturn)
positional: groups, host, manager
options:
  _input:
    description: The services of the catalog, by name.
    type: dict
    required: true
  groups:
    description: The groups of the inventory, by name.
    type: dict
    required: true
  host:
    description: The host's name in the inventory.
    type: str
    required: true
  manager:
    description: Who starts and stops the services.
    type: str
    default: compose
"""

EXAMPLES = r"""
- name: Find the containers of this host
  keyturn.rotation.compose_info:
    services: "{{ keyturn_services | keyturn.rotation.services_on(groups, inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The services, each as in the catalog, without C(hosts).
  type: list
  elements: dict
"""


def _filter(services: Any, groups: Mapping[str, Sequence[str]], host: str, manager: str = "compose") -> list[Any]:
    return services_on(services, groups, host, manager)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"services_on": _filter}
