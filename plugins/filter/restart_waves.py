# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order services for a restart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.waves import restart_waves

DOCUMENTATION = r"""
name: restart_waves
short_description: Order services for a restart
version_added: 0.1.0
description:
  - Turns services that depend on each other into waves. Everything in a wave may restart at once, after all waves
    before it.
author: keyturn.rotation contributors (@keyturn)
positional: affected
options:
  _input:
    description:
      - All services, by name. Each is a mapping with C(depends_on), or just the list of names it depends on.
    type: dict
    required: true
  affected:
    description: Names of the services to restart.
    type: list
    elements: str
    required: true
  dependants:
    description: Whether the services that depend on these restart too.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the order
  ansible.builtin.debug:
    msg: "{{ services | keyturn.rotation.restart_waves(['worker', 'db']) }}"  # [['db'], ['worker']]
  vars:
    services:
      db: {}
      api: {depends_on: [db]}
      worker: {depends_on: [api]}
"""

RETURN = r"""
_value:
  description: Waves, in order; each is a sorted list of names.
  type: list
  elements: list
"""


def _filter(services: Mapping[str, Any], affected: Iterable[str], dependants: bool = False) -> list[list[str]]:
    if not isinstance(services, Mapping) or isinstance(affected, str):
        raise AnsibleFilterError("restart_waves: needs a mapping of services and a list of names")
    try:
        return restart_waves(services, affected, dependants)
    except KeyturnError as error:
        raise AnsibleFilterError(f"restart_waves: {error}") from None


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"restart_waves": _filter}
