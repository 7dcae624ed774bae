#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at published verification keys, and wait until every endpoint shows the right ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: jwks_info
short_description: Look at published verification keys, and wait until every endpoint shows the right ones
version_added: 0.1.0
description:
  - Fetches the JSON Web Key Set of every endpoint, checks it, and says which keys it holds and for how long caches may
    show it.
  - Kids can be demanded to be there, or to be gone, on every endpoint in the same round. An endpoint that is down,
    answers with an error or serves no key shows nothing, so it fails both demands.
  - A set with a key's private part, with two keys of one kid, or with a key that nobody can verify with is an error.
    A private part is named by its kid and never shown.
  - Certificates are always checked, redirects never leave the host, and proxies of the environment are not used.
author: keyturn.rotation contributors (@keyturn)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  platform:
    description: Target operating systems.
    platforms: posix
    support: full
options:
  endpoints:
    description: Every address at which verifiers fetch the keys, those of caches and gateways too.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: How reports call it. The default is its address without a query.
        type: str
      url:
        description: The address. It must hold no secret, since servers log it.
        type: str
        required: true
      headers:
        description: Headers to send.
        type: dict
      ca_file:
        description: A PEM file with the certificates to trust instead of the system's.
        type: path
      timeout:
        description: Seconds that one question may take.
        type: float
        default: 10
  present:
    description: Kids that every endpoint must show.
    type: list
    elements: str
  absent:
    description: Kids that no endpoint may show.
    type: list
    elements: str
  count:
    description: How many keys every endpoint must show. With V(0) any number is right.
    type: int
    default: 0
  wait:
    description: Seconds to ask again, until all endpoints are right.
    type: float
    default: 0
  interval:
    description: The longest pause between two rounds, in seconds. The first ones are shorter.
    type: float
    default: 5
  confirm:
    description: How many rounds must be right one after the other, where several servers stand behind one address.
    type: int
    default: 1
  fail:
    description: Whether to fail when an endpoint is not right in the end.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Wait until the issuer and both gateways show the next key
  keyturn.rotation.jwks_info:
    endpoints:
      - {name: issuer, url: "https://identity.example.com/.well-known/jwks.json"}
      - {name: edge 1, url: "https://edge1.example.com/.well-known/jwks.json"}
      - {name: edge 2, url: "https://edge2.example.com/.well-known/jwks.json"}
    present: [next-kid]
    wait: 900

- name: Show that a retired key is published nowhere
  keyturn.rotation.jwks_info:
    endpoints:
      - {name: issuer, url: "https://identity.example.com/.well-known/jwks.json"}
    present: [current-kid]
    absent: [retired-kid]
"""

RETURN = r"""
endpoints:
  description: One entry for each endpoint, in the same order.
  returned: when all endpoints were asked
  type: list
  elements: dict
  contains:
    name:
      description: How the endpoint is called.
      returned: always
      type: str
    converged:
      description: Whether it shows what it should.
      returned: always
      type: bool
    kids:
      description: The kids that it shows, in its order.
      returned: always
      type: list
      elements: str
    keys:
      description:
        - The same keys with C(kty), C(alg), C(use), and C(thumbprint) after RFC 7638.
        - The thumbprint is empty for a key type that is not known.
      returned: always
      type: list
      elements: dict
    max_age:
      description: Seconds that a cache may show the answer, as its headers say; null where they do not say.
      returned: always
      type: int
    s_maxage:
      description: The same for shared caches, where the headers tell them apart.
      returned: always
      type: int
    age:
      description: How old the answer was, in seconds. More than 0 means that a cache gave it.
      returned: always
      type: int
    longest:
      description: How long some cache may show the answer, the time for stale answers counted in; null when unsaid.
      returned: always
      type: int
    detail:
      description: What is not as it should be.
      returned: always
      type: str
converged:
  description: Whether every endpoint shows what it should.
  returned: when all endpoints were asked
  type: bool
longest:
  description: The largest C(longest) of all endpoints, in seconds; null when one of them does not say.
  returned: when all endpoints were asked
  type: int
code:
  description:
    - What was wrong, as a stable word.
    - One of C(jwks-not-converged), C(jwks-unreachable), C(jwks-invalid), C(jwks-empty), C(jwks-duplicate),
      C(jwks-private).
  returned: failure
  type: str
"""

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.jwks.convergence import run
from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module

ENDPOINT = {
    "name": {"type": "str"},
    "url": {"type": "str", "required": True},
    "headers": {"type": "dict"},
    "ca_file": {"type": "path"},
    "timeout": {"type": "float", "default": 10},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "endpoints": {"type": "list", "elements": "dict", "required": True, "options": ENDPOINT},
    "present": {"type": "list", "elements": "str"},
    "absent": {"type": "list", "elements": "str"},
    "count": {"type": "int", "default": 0},
    "wait": {"type": "float", "default": 0},
    "interval": {"type": "float", "default": 5},
    "confirm": {"type": "int", "default": 1},
    "fail": {"type": "bool", "default": True},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
