#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed documents in PostgreSQL tables, signed again under another key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: jws_resign
short_description: Sign documents in PostgreSQL tables again under another key
version_added: 0.1.0
description:
  - Each row is classed by its signature, a compact JWS, as V(new), V(old), V(other), V(unsigned), V(broken) or
    V(refused). All tables are read once before anything is written; a row of the last two classes, or one that is
    signed under a kid nobody named, stops the run.
  - A row is written only while it is the very version that was read, so no edit of the service is lost. Each signature
    is checked with the key that verifiers have before it is written.
  - What a row had before is kept until O(state=cleaned). A call that was killed is finished by the same call.
  - Works on the host that can reach the database directly; a connection pooler in between is refused.
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
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
      - V(resigned) signs every document that is meant and is under an old kid, and proves that none is left.
      - V(proved) counts, and fails where a document that is meant is under the wrong kid. It writes nothing.
      - V(rolled_back) brings back signature, kid, version and stamps as they were. A row that was changed since is
        signed under the old key instead, for which that key is needed.
      - V(cleaned) proves the coverage once more and drops what was kept. It is the end of the rotation, in either
        direction.
      - V(replaced) is for a compromised key. It signs as V(resigned) does, and keeps nothing of what rows had before,
        nor of what other rotations have kept. It goes forward only. Where another rotation has not ended and O(epoch)
        is higher than its own, it is fenced.
    type: str
    choices: [resigned, proved, rolled_back, cleaned, replaced]
    required: true
  name:
    description: The name of the secret.
    type: str
    required: true
  database:
    description: The name of the database in the catalog.
    type: str
    required: true
  dsn:
    description: Where the connection string comes from. Exactly one source.
    type: dict
    required: true
    suboptions: &reference
      file:
        description: A file of mode C(0600) that holds the value.
        type: path
      env_file:
        description: A dotenv file.
        type: path
      variable:
        description: The variable in the dotenv file.
        type: str
      sealed:
        description: The value, sealed to this host.
        type: str
      value:
        description: The value itself.
        type: str
  documents:
    description: The tables of signed documents.
    type: list
    elements: dict
    required: true
    suboptions:
      table:
        description: The table, with its schema where it is not on the search path. Odd names go in double quotes.
        type: str
        required: true
      document:
        description: The column with the JSON object that is signed (jsonb, json or text).
        type: str
        required: true
      signature:
        description: The column with the compact JWS (text or varchar).
        type: str
        required: true
      tenant:
        description: The column that says whose a document is, where each tenant has keys of its own.
        type: str
      kid:
        description: The column that says under which kid the document is signed. What counts is the signature itself.
        type: str
      version:
        description: The column with the number of the version; it grows by one.
        type: str
      version_per:
        description:
          - Columns of which rows of the same document have the same values. The next version is then one more than the
            highest of those rows, drafts and others included. An index on these columns makes that quick.
        type: list
        elements: str
        default: []
      stamps:
        description: Columns that say when, in which rotation and how often a document was signed again.
        type: dict
        suboptions:
          rotation_id:
            description: The column of the rotation.
            type: str
          at:
            description: The column of the time.
            type: str
          count:
            description: The column of how many times.
            type: str
      where:
        description:
          - Which rows are meant, as C({column, is}) or a list of such; all must hold. The others (drafts, revoked and
            inactive ones) are counted as C(skipped) and never touched.
        type: raw
      unsigned:
        description: What to do with rows that are meant and have no signature.
        type: str
        choices: [keep, sign]
        default: keep
      claims:
        description:
          - Claims that come after C(iat) and C(exp) and before the document's own members, in this order. C({column})
            in a text stands for the value of that column in the row.
        type: dict
        default: {}
      lifetime:
        description: How long a signature is valid, such as V(90d), or V(1y) by the calendar; without it there is no
          C(exp).
        type: str
      header:
        description:
          - Members of the header beside C(alg) and C(kid); by default C(typ) with V(JWT). C({rotation_id}) and C({now})
            in a text are filled in.
        type: dict
      allow_claims:
        description:
          - Registered or declared claims that a document may bring itself. A document that brings others is refused and
            named.
        type: list
        elements: str
        default: []
      may_be_empty:
        description: Whether a table without any row that is meant is fine.
        type: bool
        default: false
  turns:
    description: Which kid comes in the place of which. Exactly one of this and O(turns_of).
    type: list
    elements: dict
    suboptions:
      tenant:
        description: Whose documents; needed in all entries or in none. Documents of tenants that are not named are
          C(skipped).
        type: str
      new:
        description: The kid to sign under.
        type: str
        required: true
      old:
        description: The kids to leave. The way back leads to the first.
        type: list
        elements: str
        required: true
  turns_of:
    description:
      - The name of a secret. The kids are those that M(keyturn.rotation.signing_key) has turned in this database under
        that name in O(rotation_id), for each tenant its own. Where it has turned none, nothing is done.
    type: str
  keys:
    description: The private keys, as PEM without passphrase or as JWK, where all documents have the same. Else
      O(key_table).
    type: dict
    default: {}
    suboptions:
      old:
        description: The key of the first old kid. Only needed to go back where documents were changed since.
        type: dict
        suboptions: *reference
      new:
        description: The key of the new kid.
        type: dict
        suboptions: *reference
  key_table:
    description: The table of signing keys, in the same database. Keys are read by their kid and decrypted on this host.
    type: dict
    suboptions:
      table:
        description: The table.
        type: str
        required: true
      kid:
        description: The column of the kid.
        type: str
        required: true
      private:
        description: The column of the private key, a PEM or JWK, encrypted or in clear.
        type: str
        required: true
      tenant:
        description: The column that says whose a key is; a key of another tenant is not taken then.
        type: str
      envelope:
        description: The preset or declared layout of the encrypted keys; without it they lie in clear.
        type: raw
      key:
        description: The value that encrypts them.
        type: dict
        suboptions: *reference
      under:
        description: Where C(key) is a box, the secret as whose previous value it was sealed.
        type: str
        default: ""
  jwks:
    description:
      - Where the published keys are. The new kid must be among them, with the public half of the key that signs;
        signatures are checked with what is published. Exactly one of C(url) and C(file).
    type: dict
    suboptions:
      url:
        description: An address that answers with a JWK set.
        type: str
      file:
        description: A file with a JWK set.
        type: path
      headers:
        description: Headers of the request.
        type: dict
        default: {}
      ca_file:
        description: Certificates to trust instead of the system's.
        type: path
      timeout:
        description: Seconds.
        type: int
        default: 5
  workers:
    description: Processes that work side by side, each with a connection; 0 for as many as suit the processors.
    type: int
    default: 0
  batch_rows:
    description: Rows of one transaction at most.
    type: int
    default: 500
  batch_bytes:
    description: Bytes of one transaction, about.
    type: int
    default: 2097152
  rate:
    description: Rows per second at most; 0 for no limit.
    type: int
    default: 0
  max_lag:
    description: Bytes of WAL that a standby may be behind; 0 for no limit. The role has to see the standbys.
    type: int
    default: 0
  progress_path:
    description: A file that says how far the work is, written about once a second.
    type: path
  schema:
    description: The schema for what is kept and for the fence. It is made where it is missing.
    type: str
    default: keyturn
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
- name: Sign all active policies under the new key
  keyturn.rotation.jws_resign:
    state: resigned
    name: POLICY_SIGNING
    database: app
    rotation_id: r-20250601
    dsn: {file: /etc/app/dsn}
    documents:
      - table: policies
        document: bundle
        signature: jws
        kid: signed_with_kid
        version: version
        version_per: [account_id, app_name]
        stamps: {rotation_id: rotation_id, at: resigned_at, count: resigned_count}
        where:
          - {column: active, is: true}
          - {column: is_draft, is: false}
          - {column: revocation_time, is: null}
        claims: {iss: policy-service, aud: "policy:{account_id}:{app_name}"}
        lifetime: 1y
    turns:
      - {new: 4f1c, old: [9a2e]}
    keys:
      new: {file: /root/new.pem}
    jwks: {url: "http://127.0.0.1:8080/.well-known/jwks.json"}
"""

RETURN = r"""
coverage:
  description: How many rows of each table are in which class, counted in one snapshot.
  returned: success
  type: list
  elements: dict
  sample: [{table: public.policies, column: jws, total: 5, new: 2, old: 0, other: 0, unsigned: 0, broken: 0, refused: 0,
    skipped: 3}]
rows_written:
  description: Rows that were signed.
  returned: success
  type: int
rows_restored:
  description: Rows that have again what they had.
  returned: success
  type: int
rows_raced:
  description: Rows that somebody else changed or held in the same moment, and that were read again.
  returned: success
  type: int
seconds:
  description: How long it took.
  returned: success
  type: float
"""

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.job import run
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.options import ARGUMENTS, ONE_OF
from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module


def main() -> None:
    """Run the module."""
    run_module(run, ARGUMENTS, mutually_exclusive=[ONE_OF], required_one_of=[ONE_OF])


if __name__ == "__main__":
    main()
