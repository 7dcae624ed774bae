#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing keys in a PostgreSQL table: made, published, promoted, disabled."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key
short_description: Turn the signing keys in a PostgreSQL table
version_added: 0.1.0
description:
  - Makes the next key of each tenant, publishes it, lets it sign, and disables the former one, each step in
    transactions that check how many rows they change.
  - No transaction leaves a tenant without exactly one current and usable key.
  - A call that was killed is finished by the same call. What a rotation did to each tenant stands in a table of its
    own in the schema O(schema), written in the same transaction; it holds kids and times, never a key.
  - Before anything is written, the present private parts must open under the key that new ones are encrypted with. A
    row that does not, such as one under a cloud KMS, is named.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session, keyturn.rotation.signing_keys]
requirements:
  - psycopg >= 3.1
  - cryptography
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode. Only counts are shown.
    support: full
options:
  state:
    description:
      - V(staged) makes the next keys and publishes them. They do not sign.
      - V(promoted) lets them sign; the former ones are published and accepted still.
      - V(disabled) disables the former ones, and those that rotations before left so.
      - V(rolled_back) lets the former keys sign again. A new key that never signed is removed; one that did stays
        accepted until the next rotation disables it.
      - V(replaced) is for emergencies. It does V(staged), V(promoted) and V(disabled) at once and skips the overlap on
        purpose. It goes forward only. Where another rotation has not ended and O(epoch) is higher than its own, it is
        fenced, and a key that it has published and that does not sign is disabled too.
    type: str
    choices: [staged, promoted, disabled, replaced, rolled_back]
    required: true
  generate:
    description: How keys are made, with C(type) V(rsa) (C(bits), C(alg)), V(ec) (C(curve)) or V(ed25519).
    type: dict
    default: {type: rsa, bits: 2048}
  overlap_s:
    description:
      - For O(state=disabled). How many seconds the new keys must have signed. It is the longest lifetime of a token,
        every cache on the way, and the skew of clocks.
    type: int
  early:
    description: For O(state=disabled). Skip O(overlap_s), as a person said.
    type: bool
    default: false
  disable:
    description:
      - For O(state=disabled) and O(state=replaced). V(previous) disables the keys that rotations took out of use,
        V(all) every key that does not sign.
    type: str
    choices: [previous, all]
    default: previous
  workers:
    description: Processes that make keys. V(0) for one on each processor.
    type: int
    default: 0
  lock_timeout_ms:
    description: How long a lock is waited for. Others may have to wait as long.
    type: int
    default: 100
  max_wait_s:
    description: How long locks are tried for.
    type: int
    default: 60
seealso:
  - module: keyturn.rotation.signing_key_info
"""

EXAMPLES = r"""
- name: Make and publish the next key of each tenant
  keyturn.rotation.signing_key:
    state: staged
    name: JWT_SIGNING
    database: app
    rotation_id: r-20250601
    dsn: {file: /etc/app/dsn}
    key: {env_file: /srv/app/.env, variable: JWK_AES_KEY}
    key_table: {shape: newest}
    generate: {type: rsa, bits: 2048, alg: RS256}

- name: Replace a compromised key at once
  keyturn.rotation.signing_key:
    state: replaced
    name: JWT_SIGNING
    database: app
    rotation_id: emergency-20250601
    dsn: {file: /etc/app/dsn}
    key: {file: /etc/app/kek}
    key_table: {shape: flags}
    generate: {type: ec, curve: P-256}
"""

RETURN = r"""
made:
  description: Keys that this call made and published.
  returned: success
  type: int
promoted:
  description: Tenants whose new key this call let sign.
  returned: success
  type: int
disabled:
  description: Keys that this call disabled.
  returned: success
  type: int
withdrawn:
  description: New keys that this call took out of use again; they are accepted still.
  returned: success
  type: int
removed:
  description: New keys that never signed and that this call removed.
  returned: success
  type: int
gone:
  description: Tenants whose keys somebody removed since they were staged.
  returned: success
  type: int
keys:
  description: The first tenants of this rotation, O(listed) at most, each with its new and its former kid.
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
stages:
  description: How many tenants of this rotation are at which stage.
  returned: success
  type: dict
  sample: {promoted: 1000}
boxes:
  description: By host of O(seal_to) and version (C(new), C(old)), the private part in a box that only this host opens.
  returned: success
  type: dict
counts:
  description: Tenants and keys of the table, and how many keys are current, usable and disabled.
  returned: success
  type: dict
  sample: {tenants: 1, keys: 3, current: 1, usable: 2, disabled: 1}
seconds:
  description: How long it took.
  returned: success
  type: float
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.job import ARGUMENTS, run


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
