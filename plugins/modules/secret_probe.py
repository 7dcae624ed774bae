#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a version of a secret is accepted, or refused."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_probe
short_description: Test that a version of a secret is accepted, or refused
version_added: 0.1.0
description:
  - Asks each probe with the version it names and says whether that version is accepted or refused.
  - A refusal counts only if the same probe with the new version is accepted right after it. An endpoint that is down,
    or refuses everybody, proves nothing.
  - A value goes into headers and bodies, or on a command's standard input. It is never in an address, in arguments of
    a command, in the environment, or in the result. No part of an answer is in the result.
  - Certificates are always checked, no redirect is followed, and proxies of the environment are not used.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  check_mode:
    support: full
    details: It asks in check mode as well. Nothing is ever changed.
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  probes:
    description: The probes, as in the catalog.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: How reports call it.
        type: str
      type:
        description:
          - How it asks. With V(container_env) it looks into the environment of the containers of a Docker Compose
            service, none of which may have the old version any more, as it is or inside a URL.
          - With V(active_kid) it reads the kid in the answer, of a token or of the JSON member C(active_kid) or C(kid).
          - With V(token) it makes a token that is valid for a short time, signed by the version, and shows it as
            V(http) shows a value; C({value}) is the token then. See O(probes[].token).
          - With V(log) it looks into what was logged. See O(probes[].pattern).
        type: str
        choices: [http, command, container_env, active_kid, log, token]
        required: true
      secret:
        description: Whose value it uses. It need not be said when O(values) holds one secret only.
        type: str
      version:
        description: The version it presents. V(none) uses no value.
        type: str
        choices: [new, old, none]
        default: none
      refused:
        description: Whether the old version is expected to be refused.
        type: bool
        default: false
      expect:
        description:
          - The HTTP statuses or exit codes that are expected.
          - The default is 200 and 0; for a probe with O(probes[].refused) it is 401 and 403, and any exit code but 0.
        type: list
        elements: int
      accept:
        description:
          - For a probe with O(probes[].refused), the codes by which the new version is accepted.
          - The default is what the same probe with the new version expects, if it is in the list, or else 200 and 0.
        type: list
        elements: int
      expect_body:
        description: A regular expression that must be found in the answer. For V(http) only.
        type: str
      url:
        description: The address. It must hold no secret, since servers log it.
        type: str
      method:
        description: The HTTP method. The default is C(GET), or C(POST) with a body.
        type: str
      headers:
        description:
          - Headers to send. C({value}) stands for the value.
          - C({value:json}) is a JSON string with its quotes, C({value:url}) percent-encoded, C({value:base64}) base64,
            and C({value:basic:USER}) what follows C(Basic) in the header C(Authorization).
        type: dict
      body:
        description: The body, with the same words as in O(probes[].headers).
        type: str
      token:
        description:
          - For V(token), what stands in the token. C(iat) and C(exp) come from the clock.
          - The value is a private JWK, a PEM, a key of a keyset with its kid, or for C(HS256) and its like the secret
            itself. Without O(probes[].headers) and O(probes[].body) the token goes into the header C(Authorization).
        type: dict
        suboptions:
          claims:
            description: Its claims.
            type: dict
          lifetime:
            description: How long it is valid. The default is V(60s).
            type: str
          algorithm:
            description: How it is signed. The default is what fits the key.
            type: str
            choices: [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA]
          typ:
            description: The C(typ) in its header. The default is V(JWT).
            type: str
      ca_file:
        description: A PEM file with the certificates to trust instead of the system's.
        type: path
      command:
        description: A command that reads the value from its standard input. What it prints is not read.
        type: list
        elements: str
      service:
        description: For V(container_env) and V(log), the service in the Compose files.
        type: str
      variables:
        description: For V(container_env), variables that are told where they are empty.
        type: list
        elements: str
      project:
        description: For V(container_env) and V(log), the Compose project.
        type: str
      project_dir:
        description: For V(container_env) and V(log), the folder of the Compose project, which gives it its name.
        type: path
      docker_host:
        description: For V(container_env) and V(log), the Docker daemon's address. The default is C(DOCKER_HOST).
        type: str
      path:
        description:
          - For V(log), a log file, or several. Their rotated files are read too.
          - A log has one of O(probes[].path), O(probes[].unit) and O(probes[].service).
        type: list
        elements: path
      unit:
        description: For V(log), a unit in the journal of systemd.
        type: str
      directory:
        description: For V(log) with O(probes[].unit), a folder of journal files instead of the host's own.
        type: path
      pattern:
        description:
          - For V(log), a regular expression that is looked for in each line. C({kid}) stands for the kid of the
            version. What a group C(who) takes in is named in the result.
          - With O(probes[].refused) it is how a line looks that tells of the use of a version. The old one must not be
            used, and the new one must be, or else the log proves nothing.
          - Without a pattern the value of the version itself is looked for. It must not be in the log.
        type: str
      since:
        description: For V(log), a time span before now, such as V(15m). The default is the time in O(since).
        type: str
      at_least:
        description: For V(log), how many lines must match. The default is 1.
        type: int
      at_most:
        description: For V(log), how many lines may match. With V(0) none may.
        type: int
      timeout:
        description: Seconds that one question may take.
        type: float
        default: 10
  values:
    description:
      - Where the values are, by secret. Each has C(new) and C(old), and each of these is a mapping with one of C(file)
        (a file of mode C(0600) on the host), C(env_file) with C(variable), or C(sealed) (a box for this host).
      - Only what a probe uses is read.
    type: dict
  kids:
    description:
      - The kids of versions, by secret, as C(new) and C(old). They stand for C({kid}) in a pattern, and in the header
        of a token.
      - The default is what a private JWK, or a key of a keyset, says.
    type: dict
  since:
    description: A time in UTC such as V(2026-11-21T10:00:00Z), from which on logs count.
    type: str
  wait:
    description: Seconds to ask again, for the probes that do not pass.
    type: float
    default: 0
  interval:
    description: The longest pause between two rounds, in seconds. The first ones are shorter.
    type: float
    default: 1
  fail:
    description: Whether to fail when a probe does not pass.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Show that the new token is accepted and the old one is refused
  keyturn.rotation.secret_probe:
    probes:
      - name: metrics
        type: http
        url: http://127.0.0.1:8080/metrics
        headers: {Authorization: "Bearer {value}"}
        version: new
      - name: metrics, old token
        type: http
        url: http://127.0.0.1:8080/metrics
        headers: {Authorization: "Bearer {value}"}
        version: old
        refused: true
    values:
      METRICS_TOKEN:
        new: {env_file: /srv/app/.env, variable: METRICS_TOKEN}
        old: {file: /root/metrics-token.old}
    wait: 30

- name: Show that the gateway takes tokens of both keys
  keyturn.rotation.secret_probe:
    probes:
      - {type: token, url: "https://edge.example.com/api/ping", version: new, token: {claims: {iss: identity}}}
      - {type: token, url: "https://edge.example.com/api/ping", version: old, token: {claims: {iss: identity}}}
    values:
      SIGNING_KEY:
        new: {file: /root/next.jwk}
        old: {file: /root/current.jwk}
"""

RETURN = r"""
probes:
  description: One entry for each probe, in the same order.
  returned: when all probes were asked
  type: list
  elements: dict
  contains:
    name:
      description: How the probe is called.
      returned: always
      type: str
    type:
      description: How it asked.
      returned: always
      type: str
    secret:
      description: Whose value it used.
      returned: always
      type: str
    version:
      description: C(new), C(old) or C(none).
      returned: always
      type: str
    refused:
      description: Whether a refusal was expected.
      returned: always
      type: bool
    expected:
      description: C(accepted) or C(refused).
      returned: always
      type: str
    result:
      description: C(accepted), C(refused), C(unproven) or C(failed).
      returned: always
      type: str
    passed:
      description: Whether that was expected.
      returned: always
      type: bool
    detail:
      description: Why, in a few words.
      returned: always
      type: str
passed:
  description: Whether every probe passed.
  returned: when all probes were asked
  type: bool
code:
  description: What was wrong, as a stable word. C(probe-failed) when probes did not pass.
  returned: failure
  type: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.probes import misplaced_values, run

ALGORITHMS = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"]
TOKEN = {
    "claims": {"type": "dict"},
    "lifetime": {"type": "str"},
    "algorithm": {"type": "str", "choices": [*ALGORITHMS, "ES512", "EdDSA"]},
    "typ": {"type": "str"},
}
PROBE = {
    "name": {"type": "str"},
    "type": {
        "type": "str",
        "choices": ["http", "command", "container_env", "active_kid", "log", "token"],
        "required": True,
    },
    "secret": {"type": "str", "no_log": False},
    "version": {"type": "str", "choices": ["new", "old", "none"], "default": "none"},
    "refused": {"type": "bool", "default": False},
    "expect": {"type": "list", "elements": "int"},
    "accept": {"type": "list", "elements": "int"},
    "expect_body": {"type": "str"},
    "url": {"type": "str"},
    "method": {"type": "str"},
    "headers": {"type": "dict"},
    "body": {"type": "str"},
    "token": {"type": "dict", "options": TOKEN, "no_log": False},
    "ca_file": {"type": "path"},
    "command": {"type": "list", "elements": "str"},
    "service": {"type": "str"},
    "project": {"type": "str"},
    "project_dir": {"type": "path"},
    "variables": {"type": "list", "elements": "str"},
    "docker_host": {"type": "str"},
    "path": {"type": "list", "elements": "path"},
    "unit": {"type": "str"},
    "directory": {"type": "path"},
    "pattern": {"type": "str"},
    "since": {"type": "str"},
    "at_least": {"type": "int"},
    "at_most": {"type": "int"},
    "timeout": {"type": "float", "default": 10},
}
ARGUMENTS = {
    **SESSION_ARGUMENTS,
    "probes": {"type": "list", "elements": "dict", "required": True, "options": PROBE},
    "values": {"type": "dict"},
    "kids": {"type": "dict"},
    "since": {"type": "str"},
    "wait": {"type": "float", "default": 0},
    "interval": {"type": "float", "default": 1},
    "fail": {"type": "bool", "default": True},
}


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS, hidden=misplaced_values)


if __name__ == "__main__":
    main()
