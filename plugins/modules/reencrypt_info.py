#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many rows of encrypted PostgreSQL columns are under which key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reencrypt_info
short_description: Count the rows of encrypted PostgreSQL columns by key
version_added: 0.1.0
description:
  - Reads every row of the columns in one snapshot and says how many open under the new key, under the old key, are
    plaintext, are null, or open under neither. Nothing is written.
  - Says what a rotation would cost, what stands in its way, and which columns nobody named.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session, keyturn.rotation.reencryption]
requirements:
  - psycopg >= 3.1
  - cryptography
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
options:
  sanitize:
    description: Whether the tables are to be made anew at the end. A role that may not is refused now.
    type: bool
    default: false
  search:
    description:
      - Look for other columns of the database that hold values under one of the keys. Samples of each are tried, and of
        the strings inside of JSON and the elements of arrays.
      - Tried are the envelopes of O(columns), and all presets that are authenticated and quick to open. With no
        O(columns) these presets alone.
    type: bool
    default: false
  detect:
    description:
      - Say which envelopes open samples of O(columns), under each of O(keys), and nothing else; nothing is counted.
      - Tried are all presets, and the envelopes that O(columns) name, if they do. Left out are those that lack a field
        (C(rails-json) without its salt) and those bound to the row.
    type: bool
    default: false
  schemas:
    description: Look only in these schemas.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Count the rows by key
  keyturn.rotation.reencrypt_info:
    name: JWK_AES_KEY
    database: app
    dsn: {file: /etc/app/dsn}
    columns:
      - {table: jwks_keys, column: private_jwk, envelope: aes256gcm-b64}
    keys:
      old: {env_file: /srv/app/.env, variable: JWK_AES_KEY}
    search: true

- name: Say which preset a column has
  keyturn.rotation.reencrypt_info:
    name: JWK_AES_KEY
    database: app
    dsn: {file: /etc/app/dsn}
    columns:
      - {table: jwks_keys, column: private_jwk}
    keys:
      old: {env_file: /srv/app/.env, variable: JWK_AES_KEY}
    detect: true

- name: Look for columns under the key without naming any
  keyturn.rotation.reencrypt_info:
    name: JWK_AES_KEY
    database: app
    dsn: {file: /etc/app/dsn}
    keys:
      old: {env_file: /srv/app/.env, variable: JWK_AES_KEY}
    search: true
"""

RETURN = r"""
coverage:
  description: How many rows of each column are in which class.
  returned: success, without O(detect)
  type: list
  elements: dict
  sample: [{table: public.keys, column: jwk, total: 3, new: 0, old: 3, plaintext: 0, 'null': 0, unknown: 0, skipped: 0}]
unknown:
  description: Primary keys of rows that open under neither key, at most ten for each column.
  returned: success, without O(detect)
  type: list
  elements: dict
columns:
  description:
    - Each column's type, primary key, rows, bytes, owner, triggers, policies, and side table.
    - C(left_by_prefix) is how many cells begin with the id of the old key, where cells name it and an index can tell.
      No cell is opened for it, so it is a hint, and RV(coverage) the proof.
  returned: success, without O(detect)
  type: list
  elements: dict
estimates:
  description: How long a rotation would take and writers would wait, and how that was computed.
  returned: success, without O(detect)
  type: dict
choice:
  description: How the rows are swapped, why, and what forbids V(columns) where that was looked at.
  returned: success, without O(detect)
  type: dict
  sample: {cut_over: rows, why: 'writers wait about 12 ms, 1.0 s are permitted', refusals: []}
server:
  description: Version, role and its privileges, default isolation level.
  returned: success, without O(detect)
  type: dict
found:
  description:
    - Columns that hold values under one of the keys and that were not named, with the envelope that opens them. An
      envelope that is no preset is called by its name and the column that declares it.
  returned: success
  type: list
  elements: dict
  sample: [{table: public.notes, column: body, path: $.token, envelope: fernet, key: old, opened: 50, sampled: 50}]
detected:
  description:
    - For each column the envelopes that open samples, those that prove it first, with the key and how many of the
      samples open. Never a value.
    - Where strings inside of JSON open, an entry for each path. A column that nothing opens has an empty list.
  returned: success, with O(detect)
  type: list
  elements: dict
  sample:
    - table: public.jwks_keys
      column: private_jwk
      path: ''
      sampled: 50
      envelopes: [{envelope: aes256gcm-b64, authenticated: true, key: old, opened: 50, sampled: 50}]
unreadable:
  description: Tables that O(search) could not look at, or not wholly, and why.
  returned: success
  type: list
  elements: dict
  sample: [{table: audit.events, reason: this role may not read it}]
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.info import run
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import INFO_ARGUMENTS


def main() -> None:
    """Run the module."""
    run_module(run, INFO_ARGUMENTS)


if __name__ == "__main__":
    main()
