#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the signing keys behind an admin HTTP API stand."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key_api_info
short_description: Look at the signing keys behind an admin HTTP API
version_added: 0.1.0
description:
  - Lists the kids with their states, counts them, and says which kid a freshly issued token has. No key is changed, and
    neither a key nor a token is in the result.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session, keyturn.rotation.signing_key_api]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  signs:
    description: The kid that must sign; otherwise the call fails.
    type: str
  count:
    description: How many keys must be accepted; otherwise the call fails. With V(0) any number is right.
    type: int
    default: 0
  expect:
    description:
      - V(sound) fails where no key signs, unless O(initial).
      - V(new) fails where the key that O(rotation_id) made does not sign, or where the former one is not listed any
        more although nobody has asked to disable it.
      - V(old) fails where the key that signed before O(rotation_id) does not sign.
    type: str
    choices: [sound, new, old]
seealso:
  - module: keyturn.rotation.signing_key_api
"""

EXAMPLES = r"""
- name: See that fresh tokens have the new kid and that both keys are published
  keyturn.rotation.signing_key_api_info:
    name: JWT_SIGNING
    api:
      shape: by_path
      base: https://identity.example.com
      token: {path: /oauth2/token, client: probe, scope: api}
    client_secret: {file: /etc/identity/probe}
    signs: h4j0n8KJOE4b7lvn
    count: 2
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
  description: The kid of the key that O(rotation_id) made; empty where it made none.
  returned: success
  type: str
former_kid:
  description: The kid that signed before O(rotation_id); empty where nothing said so.
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
  description: The kids that were listed when O(rotation_id) began.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.job import INFO_ARGUMENTS, run_info


def main() -> None:
    """Run the module."""
    run_module(run_info, INFO_ARGUMENTS)


if __name__ == "__main__":
    main()
