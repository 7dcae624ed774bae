#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a folder of evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
module: evidence_verify
short_description: Check a folder of evidence
version_added: 0.1.0
description:
  - Finds every edit, gap and reordering in the evidence of an inventory, a missing head, and signatures that do not
    hold.
  - Works offline, on the state host or on any copy, and changes nothing.
  - A last record that was removed together with its entries can be seen only by who kept its digest; see O(known).
author: keyturn.rotation contributors (@keyturn)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  platform:
    description: Target operating systems.
    platforms: posix
    support: full
options:
  dir:
    description: The evidence directory.
    type: path
    required: true
  public_key:
    description:
      - Files with Ed25519 public keys (PEM, 32 raw bytes or their base64). Each record must be signed by one of them.
      - Without it, a signature is checked against the key that its own record names, which shows damage and no more.
    type: list
    elements: path
    default: []
  known:
    description: Digests of records that were kept elsewhere. Each must be among the records.
    type: list
    elements: str
    default: []
  fail:
    description: Whether the task fails when there are problems.
    type: bool
    default: true
seealso:
  - module: keyturn.rotation.evidence
"""

EXAMPLES = r"""
- name: Check the evidence
  keyturn.rotation.evidence_verify:
    dir: /var/lib/keyturn/evidence
    public_key: [/etc/keyturn/evidence.pub]
"""

RETURN = r"""
lines:
  description: What was found, for people. One line, and one more for each problem.
  returned: always
  type: list
  elements: str
ok:
  description: Whether nothing is wrong.
  returned: always
  type: bool
records:
  description: How many records there are.
  returned: always
  type: int
signed:
  description: How many of them carry a signature that holds.
  returned: always
  type: int
digest:
  description: SHA-256 of the last record.
  returned: always
  type: str
sequence:
  description: Number of the last record.
  returned: always
  type: int
problems:
  description: What is wrong.
  returned: always
  type: list
  elements: dict
  contains:
    code:
      description: >-
        One of V(edited), V(missing), V(extra), V(gap), V(fork), V(reordered), V(broken), V(unchained), V(head),
        V(signature), V(unsigned), V(unknown-record).
      type: str
    where:
      description: The file or folder, relative to the evidence directory.
      type: str
    message:
      description: What is wrong with it.
      type: str
"""

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import load_public_key
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.verify import Verified, verify
from ansible_collections.keyturn.rotation.plugins.module_utils.module import run_module


def _lines(directory: str, found: Verified) -> list[str]:
    said = f"{directory}: records: {found.records}, with a signature that holds: {found.signed}"
    if found.ok:
        return [f"{said}. Nothing is wrong. The last is number {found.sequence}, {found.digest or 'none'}"]
    problems = [f"{problem.where} {problem.message} ({problem.code})" for problem in found.problems]
    return [f"{said}. {len(problems)} problems", *problems]


def work(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """Verify ``dir``."""
    found = verify(params["dir"], [load_public_key(path) for path in params["public_key"]], params["known"])
    result: dict[str, Any] = {
        "changed": False,
        "ok": found.ok,
        "records": found.records,
        "signed": found.signed,
        "digest": found.digest,
        "sequence": found.sequence,
        "problems": [problem.as_result() for problem in found.problems],
        "lines": _lines(params["dir"], found),
    }
    if params["fail"] and not found.ok:
        first = found.problems[0]
        result.update(
            failed=True,
            code="evidence-broken",
            msg=f"{len(found.problems)} problems in {params['dir']}. The first: {first.where} {first.message}.",
        )
    return result


def main() -> None:
    """Run the module."""
    run_module(
        work,
        {
            "dir": {"type": "path", "required": True},
            "public_key": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "known": {"type": "list", "elements": "str", "default": []},
            "fail": {"type": "bool", "default": True},
        },
    )


if __name__ == "__main__":
    main()
