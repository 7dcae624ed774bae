#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing keys behind an admin HTTP API: made, published, promoted, disabled."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key_api
short_description: Turn the signing keys behind an admin HTTP API
version_added: 0.1.0
description:
  - Asks an issuer for its next key, lets it sign, and disables the former one. Each step looks first, changes one
    thing, and looks until the list, and the kid of a fresh token where C(api.token) is declared, show it.
  - An answer that is lost says nothing. The list decides what was done, so no second key is made.
  - Kids and times of the rotation are kept in O(state_dir). Nothing else of an answer is kept or shown.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session, keyturn.rotation.signing_key_api]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode. Only kids and states are shown.
    support: full
options:
  rotation_id:
    description:
      - The rotation this call belongs to. The same call with the same identifier changes nothing the second time.
    type: str
    required: true
  state:
    description:
      - V(staged) makes the next key and waits until it is listed. It does not sign.
      - V(promoted) lets it sign. The former one must stay listed.
      - V(disabled) disables the former one, with C(api.disable).
      - V(replaced) is for emergencies. It does V(staged), V(promoted) and V(disabled) at once and skips the overlap on
        purpose. It goes forward only, and needs C(api.disable).
      - V(rolled_back) lets the former key sign again. The new one stays listed.
    type: str
    choices: [staged, promoted, disabled, replaced, rolled_back]
    required: true
  restart:
    description:
      - A command that restarts an issuer which holds its keys in memory. It runs at most once, without a shell, and
        only where what was asked for is not seen at once.
    type: list
    elements: str
    default: []
  restart_timeout:
    description: Seconds that O(restart) may take.
    type: float
    default: 120
  wait:
    description: Seconds to look until what was asked for is seen.
    type: float
    default: 30
  defer:
    description:
      - Do not wait, and do not fail, where what was asked for is not seen at once. Then RV(seen=false), somebody
        restarts the issuer, and the same call without this option waits until it is seen.
    type: bool
    default: false
  overlap_s:
    description:
      - For O(state=disabled). How many seconds the new key must have signed. It is the longest lifetime of a token,
        every cache on the way, and the skew of clocks.
    type: int
  early:
    description: For O(state=disabled). Skip O(overlap_s), as a person said.
    type: bool
    default: false
  disable:
    description:
      - For O(state=replaced). V(previous) disables the key that signed and those that rotations before left to be
        accepted, V(all) every key but the new one.
    type: str
    choices: [previous, all]
    default: previous
seealso:
  - module: keyturn.rotation.signing_key_api_info
  - module: keyturn.rotation.jwks_info
  - module: keyturn.rotation.signing_key
"""

EXAMPLES = r"""
- name: Make and publish the next key
  keyturn.rotation.signing_key_api:
    state: staged
    name: JWT_SIGNING
    rotation_id: r-20250601
    api: {shape: by_path, base: "https://identity.example.com"}
    bearer: {env_file: /etc/identity/admin.env, variable: ADMIN_TOKEN}

- name: Let it sign, with a client certificate, and see that fresh tokens name it
  keyturn.rotation.signing_key_api:
    state: promoted
    name: JWT_SIGNING
    rotation_id: r-20250601
    api:
      shape: by_query
      base: https://identity.example.com
      token: {path: /oauth2/token, client: probe, scope: api}
    bearer: {env_file: /etc/identity/admin.env, variable: ADMIN_TOKEN}
    client_secret: {file: /etc/identity/probe}
    headers:
      - {name: X-Request-Id, text: "{uuid}"}
    client_cert: /etc/identity/admin.pem
    restart: [systemctl, restart, identity.service]
"""

RETURN = r"""
keys:
  description: The keys that are listed. A state is V(current), V(usable) or V(disabled).
  returned: success
  type: list
  elements: dict
  sample: [{kid: h4j0n8KJOE4b7lvn, state: current}, {kid: G0tg-IlFm-rMs5PE, state: usable}]
count:
  description: How many of them are accepted.
  returned: success
  type: int
current_kid:
  description: The kid that signs; empty where nothing says so.
  returned: success
  type: str
issued_kid:
  description: The kid of a token that was issued now; empty without C(api.token).
  returned: success
  type: str
new_kid:
  description: The kid of the key that this rotation made.
  returned: success
  type: str
former_kid:
  description: The kid that signed before; empty where nothing said so.
  returned: success
  type: str
probes:
  description: What those said who were shown tokens, as M(keyturn.rotation.secret_probe) says it.
  returned: success
  type: list
  elements: dict
passed:
  description: Whether all of them accepted what they were shown.
  returned: success
  type: bool
before_kids:
  description: The kids that were listed when this rotation began.
  returned: success
  type: list
  elements: str
seen:
  description: Whether the list and the token show what was asked for. Only with O(defer) it may be V(false).
  returned: success
  type: bool
restarted:
  description: Whether this call ran O(restart).
  returned: success
  type: bool
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.job import ARGUMENTS, run


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
