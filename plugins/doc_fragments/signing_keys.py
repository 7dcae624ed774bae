# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of what reads a table of signing keys."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment ``keyturn.rotation.signing_keys``."""

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
  key:
    description:
      - Where the key comes from that the private parts are encrypted with. Exactly one source.
      - Needed where private parts are made or opened.
    type: dict
    suboptions: *reference
  under:
    description: The name of that key's secret, which O(key.sealed) is bound to; O(name) by default.
    type: str
    default: ''
  key_table:
    description:
      - Which column means what, and which rows are current, usable or disabled.
      - C(shape) names a preset, V(newest) (the newest row signs) or V(flags); what else is given goes before it. All
        fields are C(table), C(columns) (C(kid), C(private), C(public), C(tenant), C(created), C(alg)), C(kid) (V(uuid),
        V(thumbprint) of RFC 7638, V(spki-sha256-16)), C(private) and C(public) (V(jwk), V(pem), V(pem-one-line)),
        C(jwk_with), C(envelope), C(current), C(usable), C(set).
      - See C(docs/signing-keys.md) of the collection.
    type: dict
    required: true
  tenants:
    description: Only these tenants. All of the table where none is named.
    type: list
    elements: str
    default: []
  initial:
    description: Whether a tenant, or a table, without a key gets its first one.
    type: bool
    default: false
  schema:
    description: The schema of what this collection keeps in the database.
    type: str
    default: keyturn
  listed:
    description: How many keys are listed at most.
    type: int
    default: 100
  seal_to:
    description:
      - Hosts that show tokens of the new and the former key somewhere, each with the public key of its session.
      - They get both in C(boxes), which nobody else can open. Only of a table without tenants, and only with O(key).
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The name of the host.
        type: str
        required: true
      public:
        description: Its public key.
        type: str
        required: true
"""
