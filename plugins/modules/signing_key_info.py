#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the signing keys in a PostgreSQL table stand."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key_info
short_description: Look at the signing keys in a PostgreSQL table
version_added: 0.1.0
description:
  - Counts keys by state, names tenants without exactly one current and usable key, and tries whether the private parts
    open. Nothing is written, and no key is in the result.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session, keyturn.rotation.signing_keys]
requirements:
  - psycopg >= 3.1
  - cryptography
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  expect:
    description:
      - What must be so; otherwise the call fails and says what is not.
      - V(sound) wants exactly one current and usable key for each tenant, and private parts that open.
      - V(new) wants besides that the keys of O(rotation_id) sign. V(old) only wants that none of them does.
    type: str
    choices: [nothing, sound, new, old]
    default: nothing
seealso:
  - module: keyturn.rotation.signing_key
"""

EXAMPLES = r"""
- name: See whether every tenant has a key that signs
  keyturn.rotation.signing_key_info:
    name: JWT_SIGNING
    database: app
    dsn: {file: /etc/app/dsn}
    key: {env_file: /srv/app/.env, variable: JWK_AES_KEY}
    key_table: {shape: newest}
    expect: sound
"""

RETURN = r"""
counts:
  description: Tenants and keys of the table, and how many keys are current, usable and disabled.
  returned: success
  type: dict
  sample: {tenants: 1, keys: 3, current: 1, usable: 2, disabled: 1}
stages:
  description: How many tenants of O(rotation_id) are at which stage.
  returned: success
  type: dict
  sample: {staged: 1}
turns:
  description: The first tenants of O(rotation_id), O(listed) at most, each with its new and its former kid.
  returned: success
  type: list
  elements: dict
  contains:
    tenant:
      description: The tenant, empty for a table without tenants.
      type: str
    new_kid:
      description: The kid of its new key.
      type: str
    old_kid:
      description: The kid of the key before; null for a first key.
      type: str
    stage:
      description: How far the tenant is; V(staged), V(promoted), V(disabled), V(withdrawn) or V(gone).
      type: str
    new_sha256:
      description: SHA-256 of the SubjectPublicKeyInfo of the new key; null where the public half is not there.
      type: str
    old_sha256:
      description: The same of the key before.
      type: str
boxes:
  description: By host of O(seal_to) and version (C(new), C(old)), the private part in a box that only this host opens.
  returned: success
  type: dict
unsound:
  description: How many tenants have not exactly one current and usable key.
  returned: success
  type: int
tenants_unsound:
  description: The first of them.
  returned: success
  type: list
  elements: dict
  sample: [{tenant: '', problem: no key is current}]
opened:
  description: Usable rows whose private part opens. Without O(key) none is tried.
  returned: success
  type: int
plaintext:
  description: Usable rows whose private part is not encrypted.
  returned: success
  type: int
without_private:
  description: Usable rows without a private part.
  returned: success
  type: int
closed:
  description: Usable rows whose private part does not open.
  returned: success
  type: int
kids_closed:
  description: The first of their kids.
  returned: success
  type: list
  elements: str
clouds:
  description: The cloud services that they look like they come from.
  returned: success
  type: list
  elements: str
keys:
  description: The first keys, O(listed) at most. A state is V(current), V(usable) or V(disabled).
  returned: success
  type: list
  elements: dict
  sample: [{tenant: '', kid: h4j0n8KJOE4b7lvn, state: current, created: '2025-06-01 12:00:00'}]
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.job import INFO_ARGUMENTS, run_info


def main() -> None:
    """Run the module."""
    run_module(run_info, INFO_ARGUMENTS)


if __name__ == "__main__":
    main()
