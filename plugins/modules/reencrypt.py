#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Re-encryption of PostgreSQL columns under another key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reencrypt
short_description: Put encrypted PostgreSQL columns under another key
version_added: 0.1.0
description:
  - Every row is classed by decryption as V(new), V(old), V(plaintext), V(null) or V(unknown). All columns are read
    once before anything is written; a row that opens under neither key stops the run.
  - A cell is replaced only where the whole old cell still stands, so no write of the service is lost.
  - Where a rotation stands is read from the database each time. A call that was killed is finished by the same call.
  - Works on the host that can reach the database directly; a connection pooler in between is refused.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session, keyturn.rotation.reencryption]
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
      - V(in_place) re-encrypts rows where they are, for readers that hold several keys.
      - V(prepared) keeps every row under the new key too, in a side table or a second column, while the service runs.
      - V(cut_over) exchanges all rows of all columns in one transaction. Readers go on, writers wait.
      - V(swept) puts right what was still written under the former key, waits for the last such writer, proves the
        coverage, empties O(clear) and makes O(indexes).
      - V(rolled_back) exchanges the rows back, with what was written since carried over; rows that were
        re-encrypted in place go back in place.
      - V(cleaned) proves the coverage once more and drops what was kept.
    type: str
    choices: [in_place, prepared, cut_over, swept, rolled_back, cleaned]
    required: true
  step:
    description:
      - For O(state=rolled_back). V(swap) exchanges the rows only, so that the old key can be put back and the service
        restarted before O(state=swept) and O(state=cleaned).
      - V(all) does all three.
    type: str
    choices: [swap, all]
    default: swap
  overlap:
    description:
      - For O(state=rolled_back). Whether services may have both keys, so that they may write rows under the new one
        before any row is re-encrypted, and until all of them have the old one again.
      - Such rows are brought back, by O(state=swept) too.
    type: bool
    default: false
  turned:
    description:
      - Whether it is known from elsewhere that this rotation has put the rows of all columns under the new key. It
        matters where the database knows nothing of the rotation, since it was restored from a copy of before, or
        O(schema) was dropped.
      - V(swept) and V(cleaned) then refuse rows that are not under the new key, and do without what was kept of rows
        under it, where somebody has dropped that. V(rolled_back) brings back rows of a first encryption too.
    type: bool
    default: false
  clear:
    description: Columns computed from the key. They are emptied once by O(state=swept); the service fills them again.
    type: list
    elements: dict
    default: []
    suboptions:
      table:
        description: The table.
        type: str
        required: true
      column:
        description: The column.
        type: str
        required: true
  indexes:
    description: Indexes to make by O(state=swept) where they are missing.
    type: list
    elements: dict
    default: []
    suboptions:
      table:
        description: The table.
        type: str
        required: true
      column:
        description: The column.
        type: str
        required: true
      name:
        description: The index's name.
        type: str
        required: true
  rate:
    description: Rows per second at most; 0 for no limit.
    type: int
    default: 0
  max_lag:
    description:
      - Bytes of WAL that a standby may be behind; 0 for no limit. The work waits while one is further behind.
      - The role has to see the standbys; grant it C(pg_monitor).
    type: int
    default: 0
  sanitize:
    description:
      - For O(state=cleaned) of a rotation that goes forward. The tables are made anew (C(VACUUM FULL)), so that their
        files hold no value under the old key. Nobody can use a table meanwhile.
      - What lies in WAL, its archive, standbys, base backups and dumps is not reached.
    type: bool
    default: false
  progress_path:
    description: A file that says how far the work is, written about once a second.
    type: path
  share:
    description:
      - For O(state=in_place) and O(state=prepared) by several hosts at once, each with a call of its own at the same
        time. Parts of the table are dealt out in the database; those of a process or host that died are done by others.
    type: dict
    suboptions:
      lead:
        description:
          - Whether this host leads. It alone counts, makes and proves, and comes to its end whether others help or not.
          - The others write only what it deals out, until its call is over.
        type: bool
        required: true
      host:
        description: What the result calls this host.
        type: str
        required: true
      hosts:
        description: How many hosts there are. O(rate) is divided by it.
        type: int
        required: true
  lock_timeout_ms:
    description: How long a lock is waited for. Others may have to wait as long.
    type: int
    default: 100
  max_wait_s:
    description: How long locks are tried for.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Keep every row under the new key beside the old one
  keyturn.rotation.reencrypt:
    state: prepared
    name: JWK_AES_KEY
    database: app
    rotation_id: r-20250601
    dsn: {file: /etc/app/dsn}
    columns:
      - {table: jwks_keys, column: private_jwk, envelope: aes256gcm-b64, plaintext: encrypt}
    keys:
      old: {env_file: /srv/app/.env, variable: JWK_AES_KEY}
      new: {file: /root/new.key}
"""

RETURN = r"""
coverage:
  description: How many rows of each column are in which class, counted in one snapshot. Empty for O(state=cut_over).
  returned: success
  type: list
  elements: dict
  sample: [{table: public.keys, column: jwk, total: 3, new: 3, old: 0, plaintext: 0, 'null': 0, unknown: 0, skipped: 0}]
facts:
  description: What is kept of each column; V(next) before the exchange, V(prev) after it, and which way it is done.
  returned: success
  type: list
  elements: dict
  sample: [{table: public.jwks_keys, column: private_jwk, fact: prev, cut_over: rows, rotation_id: r1, swapped: true}]
choice:
  description: How the rows are swapped, why, and what forbids V(columns) where that was looked at.
  returned: when O(state=prepared)
  type: dict
  sample: {cut_over: rows, why: 'writers wait about 12 ms, 1.0 s are permitted', refusals: []}
cleared:
  description: How many rows were emptied, and how many hold a value again.
  returned: success
  type: list
  elements: dict
  sample: [{table: public.api_tokens, column: token_lookup, rows: 12, filled: 0}]
indexes:
  description: The indexes and whether they were made now.
  returned: success
  type: list
  elements: dict
  sample: [{name: api_tokens_token_lookup_idx, table: public.api_tokens, created: true}]
in_place:
  description: Whether rows were brought back where they are; V(swept) puts right what was written meanwhile.
  returned: when O(state=rolled_back) had something to bring back
  type: bool
shared:
  description: How many parts each host has done, and how many rows it has written, with O(share).
  returned: success
  type: list
  elements: dict
  sample: [{host: db1, parts: 12, rows_written: 95000}]
sanitized:
  description: The tables that were made anew, with the bytes of their files before and after.
  returned: success
  type: list
  elements: dict
  sample: [{table: public.jwks_keys, bytes_before: 1064960, bytes_after: 532480, seconds: 0.4}]
held_ms:
  description: How long writers were held back by the exchange.
  returned: success
  type: float
waited_ms:
  description: How long locks for the exchange were waited for.
  returned: success
  type: float
rows_written:
  description: Rows that were changed, or kept anew in a side table.
  returned: success
  type: int
rows_raced:
  description: Rows that somebody else changed in the same moment, and that were read again.
  returned: success
  type: int
seconds:
  description: How long it took.
  returned: success
  type: float
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.job import run
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import ARGUMENTS


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS)


if __name__ == "__main__":
    main()
