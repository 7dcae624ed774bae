#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the health of services."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_health
short_description: Look at the health of services
version_added: 0.1.0
description:
  - Says of each service whether it is C(healthy), C(unhealthy), C(starting) or C(unknown), waits until all are
    healthy, and compares with what was seen before.
  - A service is healthy only if what it declares was really seen. No check, no answer and still starting are not.
  - It never fails because a service is not well. Use RV(ignore:healthy) in C(failed_when).
  - The options of the run (O(state_dir) and so on) are accepted so that one C(module_defaults) serves all modules.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  check_mode:
    support: full
    details: It looks in check mode as well. Nothing is ever changed.
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  services:
    description: The services. One of the catalog can be handed over as it is.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name of the service.
        type: str
        required: true
      health:
        description:
          - How to see that the service is well. With several checks the worst counts.
          - Without any check the service is C(unknown).
        type: dict
        suboptions:
          url:
            description:
              - An C(http) or C(https) address that answers when the service is well.
              - Certificates are always checked. Redirects are followed within the same host only. Proxies of the
                environment are not used.
            type: str
          expect_status:
            description: The statuses that count. The default is 200.
            type: list
            elements: int
          expect_body:
            description: A regular expression that must be found in the answer.
            type: str
          headers:
            description: Headers to send. They show in the task's arguments, so they must hold no secret.
            type: dict
          ca_file:
            description: A PEM file with the certificates to trust instead of the system's.
            type: path
          tcp:
            description: C(host:port) that accepts connections. Write an IPv6 address in brackets.
            type: str
          process:
            description: A process that must run.
            type: dict
            suboptions:
              pid_file:
                description: The file with its number.
                type: path
              command:
                description: Its exact name. With O(services[].health.process.pid_file) that process must have it.
                type: str
          systemd:
            description: A unit that must be active, and of which something must run.
            type: str
          command:
            description: A command that exits with 0 when the service is well. What it prints is not read.
            type: list
            elements: str
          timeout:
            description: Seconds that one look may take.
            type: float
            default: 5
          running_is_enough:
            description:
              - Whether it is enough that the service runs. Without any other check O(services[].unit) is looked at.
              - A unit that is C(active) and has exited counts as running then.
            type: bool
            default: false
      unit:
        description: The systemd unit, for O(services[].health.running_is_enough).
        type: str
      manager:
        description: With C(compose) all containers of the service are looked at, besides what else is declared.
        type: str
      project_dir:
        description: The folder of the Compose project, which gives it its name unless O(services[].project) does.
        type: path
      project:
        description: The name of the Compose project.
        type: str
      service:
        description: The name of the service in the Compose files. The default is O(services[].name).
        type: str
      docker_host:
        description: The address of the Docker daemon. The default is that of C(DOCKER_HOST), or of this machine.
        type: str
      besides:
        description: Ids of containers that are not looked at.
        type: list
        elements: str
      restart_wait:
        description: Seconds that this service may take, instead of O(wait), unless that is 0.
        type: float
      files:
        description: Not used here.
        type: list
        elements: str
      env_files:
        description: Not used here.
        type: list
        elements: str
      rolling:
        description: Not used here.
        type: bool
      replicas:
        description: Not used here.
        type: int
      drain:
        description: Not used here.
        type: float
      start:
        description: Not used here.
        type: raw
      stop:
        description: Not used here.
        type: raw
      restart:
        description: Not used here.
        type: raw
      command_timeout:
        description: Not used here.
        type: float
      quiesce:
        description: Not used here.
        type: str
      depends_on:
        description: Not used here.
        type: list
        elements: str
      hosts:
        description: Not used here.
        type: raw
      wave:
        description: Not used here.
        type: int
      reloads:
        description: Not used here.
        type: bool
  wait:
    description:
      - Seconds to wait until all services are healthy. The last look is one at all of them together.
      - It ends early when nothing that is left could become healthy.
    type: float
    default: 0
  interval:
    description: The longest pause between two looks, in seconds. The first ones are shorter.
    type: float
    default: 1
  logs:
    description:
      - Of which services the last lines of the log are given. It is that of a container of Docker Compose, or of the
        unit's journal.
      - Values that this host keeps, those in the container's or unit's environment, and what looks like a secret are
        masked.
    type: str
    choices: [worse, unhealthy, none]
    default: worse
  log_lines:
    description: How many lines.
    type: int
    default: 20
  baseline:
    description: What was seen before, by name. RV(ignore:services) of an earlier call, or just the statuses.
    type: dict
"""

EXAMPLES = r"""
- name: Wait until the services are well
  keyturn.rotation.service_health:
    services:
      - name: api
        health:
          url: https://127.0.0.1:8443/health
          ca_file: /etc/ssl/api-ca.pem
          expect_body: '"status": *"ok"'
      - name: db
        health:
          tcp: 127.0.0.1:5432
      - name: worker
        unit: worker.service
        health:
          running_is_enough: true
    wait: 60
  register: result
  failed_when: result is failed or not result.healthy

- name: Compare with what was seen before
  keyturn.rotation.service_health:
    services: "{{ my_services }}"
    baseline: "{{ before.services }}"
  register: after
  failed_when: after is failed or after.worse | length > 0
"""

RETURN = r"""
services:
  description: What was seen, by name.
  returned: success
  type: dict
  sample: {api: {status: healthy, detail: HTTP 200}}
  contains:
    status:
      description: C(healthy), C(unhealthy), C(starting) or C(unknown).
      returned: always
      type: str
    detail:
      description: Why, in a few words. It holds nothing of an answer.
      returned: always
      type: str
    since:
      description: Since when it runs, in UTC, to about a second.
      returned: for process, systemd and compose
      type: str
    containers:
      description: The containers, each with C(name), C(state) and C(health).
      returned: for compose
      type: list
      elements: dict
    log:
      description: The last lines of its log, masked.
      returned: for compose and units of systemd, as O(logs) says
      type: list
      elements: str
healthy:
  description: Whether all services are healthy. No service at all is not.
  returned: success
  type: bool
worse:
  description: Services that are worse than in O(baseline).
  returned: success
  type: list
  elements: dict
  sample: [{name: api, before: healthy, after: unhealthy, detail: HTTP 503}]
msg:
  description: What is not healthy, for people.
  returned: always
  type: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.health.call import run
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module

HEALTH = {
    "url": {"type": "str"},
    "expect_status": {"type": "list", "elements": "int"},
    "expect_body": {"type": "str"},
    "headers": {"type": "dict"},
    "ca_file": {"type": "path"},
    "tcp": {"type": "str"},
    "process": {"type": "dict", "options": {"pid_file": {"type": "path"}, "command": {"type": "str"}}},
    "systemd": {"type": "str"},
    "command": {"type": "list", "elements": "str"},
    "timeout": {"type": "float", "default": 5},
    "running_is_enough": {"type": "bool", "default": False},
}
SERVICE = {
    "name": {"type": "str", "required": True},
    "health": {"type": "dict", "options": HEALTH},
    "unit": {"type": "str"},
    "manager": {"type": "str"},
    "project_dir": {"type": "path"},
    "project": {"type": "str"},
    "service": {"type": "str"},
    "docker_host": {"type": "str"},
    "besides": {"type": "list", "elements": "str"},
    "restart_wait": {"type": "float"},
    "files": {"type": "list", "elements": "str"},
    "env_files": {"type": "list", "elements": "str"},
    "rolling": {"type": "bool"},
    "replicas": {"type": "int"},
    "drain": {"type": "float"},
    "start": {"type": "raw"},
    "stop": {"type": "raw"},
    "restart": {"type": "raw"},
    "command_timeout": {"type": "float"},
    "quiesce": {"type": "str"},
    "depends_on": {"type": "list", "elements": "str"},
    "hosts": {"type": "raw"},
    "wave": {"type": "int"},
    "reloads": {"type": "bool"},
}
ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "services": {"type": "list", "elements": "dict", "required": True, "options": SERVICE},
    "wait": {"type": "float", "default": 0},
    "interval": {"type": "float", "default": 1},
    "logs": {"type": "str", "choices": ["worse", "unhealthy", "none"], "default": "worse"},
    "log_lines": {"type": "int", "default": 20},
    "baseline": {"type": "dict"},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
