# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter ``keyturn.rotation.redact``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: redact
author: keyturn.rotation contributors (@keyturn)
version_added: 0.1.0
short_description: Mask secrets in a structure before it is shown
description:
  - Returns a copy of the same shape in which secrets are masked.
  - Masked are everything below a key that names a secret (C(password), C(api_key), C(token) and the like), the given
    values wherever they occur (also percent-encoded and in base64), and what looks like private material by itself,
    such as a PEM private key, a private JWK, a signed token or a password in a URL.
  - Truth values and null stay.
options:
  _input:
    description: The structure or text to mask.
    type: raw
    required: true
  values:
    description:
      - Values known to be secret. A value shorter than four characters is masked only where it stands alone.
    type: list
    elements: raw
    default: []
  keep:
    description: Keys that look like the name of a secret and are none.
    type: list
    elements: str
    default: []
  mask:
    description: What stands in the place of a secret.
    type: str
    default: '********'
"""

EXAMPLES = r"""
- name: Show an answer without its tokens
  ansible.builtin.debug:
    msg: "{{ answer.json | keyturn.rotation.redact([vault_api_key]) }}"

- name: Show the catalog, whose top key only looks like a secret
  ansible.builtin.debug:
    msg: "{{ {'keyturn_secrets': keyturn_secrets} | keyturn.rotation.redact(keep=['keyturn_secrets']) }}"
"""

RETURN = r"""
_value:
  description: The same structure with secrets masked.
  type: raw
"""

from collections.abc import Iterable
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.keyturn.rotation.plugins.module_utils.material import MASK
from ansible_collections.keyturn.rotation.plugins.module_utils.material import redact as mask_secrets


def redact(data: Any, values: Iterable[Any] = (), keep: Iterable[str] = (), mask: str = MASK) -> Any:
    """Mask secrets in ``data``; see :func:`material.redact`."""
    for name, option in (("values", values), ("keep", keep)):
        if isinstance(option, (str, bytes)) or not isinstance(option, Iterable):
            raise AnsibleFilterError(f"redact: {name} has to be a list")
    return mask_secrets(data, values, keep, mask)


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"redact": redact}
