# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of what reads encrypted columns."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment ``keyturn.rotation.reencryption``."""

    DOCUMENTATION = r"""
options:
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
  columns:
    description: The encrypted columns. All or none are cut over.
    type: list
    elements: dict
    default: []
    suboptions:
      table:
        description: The table, with its schema where it is not on the search path. Odd names go in double quotes.
        type: str
        required: true
      column:
        description: The column, of type text, varchar, bytea, jsonb, json, an array of text, varchar or bytea, or oid
          (large objects).
        type: str
        required: true
      envelope:
        description: The name of a preset, or a declared layout. Only the option C(detect) does without.
        type: raw
      plaintext:
        description: What to do with cells that are not encrypted.
        type: str
        choices: [encrypt, keep, refuse]
        default: refuse
      may_be_empty:
        description: Whether a column without any value is fine.
        type: bool
        default: false
      new_envelope:
        description: The envelope under the new key, where it changes with it.
        type: raw
      paths:
        description:
          - The encrypted members of a JSON value, such as C($.credentials.apiKey) or C($.accounts[*].token). Everything
            else of the value stays as it is.
        type: list
        elements: str
        default: []
      list:
        description: The separator of several encrypted values in one text.
        type: str
      pattern:
        description: A regular expression; its one group is an encrypted value in a larger text.
        type: str
      where:
        description:
          - Which rows are meant, as C({column, is}) or a list of such; all must hold. The others are counted as
            C(skipped) and never touched.
        type: raw
      set:
        description:
          - Columns that change in the same statement as the cell, by name. Either C({new, old}) with the value beside a
            cell under that key, or C({hash, of}) with a hash and V(key).
        type: dict
        default: {}
  keys:
    description: Where the keys come from.
    type: dict
    default: {}
    suboptions:
      old:
        description: The old key; without it the column is encrypted for the first time.
        type: dict
        suboptions: *reference
      new:
        description: The new key.
        type: dict
        suboptions: *reference
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
  schema:
    description: The schema for side tables and the fence. It is made where it is missing.
    type: str
    default: keyturn
  cut_over:
    description:
      - How the rows are swapped. V(rows) keeps them in a side table and exchanges them by one statement, for which
        writers wait. V(columns) keeps them in a second column of the table and exchanges the names, under a lock of
        some milliseconds; what depends on the column is carried over or refused.
      - V(auto) takes V(rows) while writers would wait no longer than O(max_writer_wait_ms), or are stopped; else
        V(columns) where nothing forbids it.
      - A rotation that has begun stays with its way.
    type: str
    choices: [auto, rows, columns]
    default: rows
  max_writer_wait_ms:
    description: How long writers may wait for O(cut_over=auto) to take V(rows).
    type: int
    default: 1000
  quiesce:
    description:
      - What the service does meanwhile. V(stop) says that it is stopped for the swap. V(writes) holds back its writes
        in the database from the swap to the sweep; for O(cut_over=rows) the role has to own the tables then, since
        triggers are added for that time.
    type: str
    choices: [stop, writes, none]
    default: none
"""
