#!/usr/bin/python
# SPDX-FileCopyrightText: keyturn.rotation contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a new secret and keep it in a private file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generate_secret
short_description: Make a new secret and keep it in a private file
version_added: 0.1.0
description:
  - Makes random strings and bytes, signing keys as JWK or PEM, and HS256 tokens.
  - The value goes to O(dest) with mode C(0600). A file that exists is not replaced unless O(force=true).
  - The result holds what is public only. The value is returned when O(return_content=true).
author: keyturn.rotation contributors (@keyturn)
extends_documentation_fragment: [keyturn.rotation.session]
attributes:
  diff_mode:
    description: Will return details on what has changed when in diff mode. The value is never in it.
    support: full
options:
  type:
    description:
      - What to make.
      - V(string) takes O(length) and O(charset) or O(characters).
      - V(bytes) takes O(length), O(encoding) and O(padding).
      - V(rsa) takes O(bits), O(alg) and O(format), V(ec) takes O(curve) and O(format), V(ed25519) takes O(format).
      - V(jwt) takes O(payload), O(lifetime) and O(key).
    type: str
    choices: [string, bytes, rsa, ec, ed25519, jwt]
    required: true
  length:
    description: The number of characters, or of bytes before they are encoded.
    type: int
  min_length:
    description: The least number of characters that the readers of a string or of bytes take. Fewer are refused.
    type: int
  charset:
    description:
      - The characters of a string, by name.
      - V(ascii_printable_safe) is letters, digits and C(-._~), which need no quoting anywhere.
      - The default is V(alnum).
    type: str
    choices: [alnum, hex, base64, ascii_printable_safe]
  characters:
    description: The characters of a string.
    type: str
  encoding:
    description: How bytes are written. The default is V(base64url).
    type: str
    choices: [base64url, base64, hex, raw]
  padding:
    description: Whether base64 is padded. The default is V(true) for V(base64) and V(false) for V(base64url).
    type: bool
  bits:
    description: The size of an RSA key, V(2048), V(3072) or V(4096). The default is V(3072).
    type: int
    choices: [2048, 3072, 4096]
  alg:
    description: The algorithm that the JWK of an RSA key names. The default is V(RS256).
    type: str
    choices: [RS256, RS384, RS512, PS256, PS384, PS512]
  curve:
    description: The curve of an EC key. The default is V(P-256).
    type: str
    choices: [P-256, P-384, P-521]
  format:
    description: How a signing key is written. The default is V(jwk). V(pem) is PKCS#8 without a password.
    type: str
    choices: [jwk, pem]
  payload:
    description: The claims of a token, in order. C(iat) and C(exp) are added.
    type: dict
  lifetime:
    description: How long a token is valid, for example V(90d), or in years of the calendar V(5y).
    type: str
  key:
    description: Where the value that signs a token comes from. Exactly one of the sources.
    type: dict
    suboptions:
      file:
        description: A file that only its owner can read.
        type: path
      env_file:
        description: A dotenv file.
        type: path
      variable:
        description: The variable in O(key.env_file).
        type: str
      value:
        description: The value itself.
        type: str
  allow_weak:
    description: Accept less than 128 bits of randomness, or a signing key of less than 32 bytes.
    type: bool
    default: false
  dest:
    description: The file. Its folder must exist.
    type: path
  force:
    description: Replace O(dest) when it exists.
    type: bool
    default: false
  return_content:
    description:
      - Whether the value is in the result. Use C(no_log) on the task then.
      - Needed when there is no O(dest).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Make an AES key
  keyturn.rotation.generate_secret:
    type: bytes
    length: 32
    encoding: base64url
    dest: /etc/app/aes.key

- name: Make a signing key
  keyturn.rotation.generate_secret:
    type: ec
    curve: P-256
    format: pem
    dest: /etc/app/signing.pem
  register: signing_key

- name: Show its kid
  ansible.builtin.debug:
    var: signing_key.kid

- name: Make a token that another value signs
  keyturn.rotation.generate_secret:
    type: jwt
    payload: {role: anon, iss: supabase}
    lifetime: 1825d
    key: {env_file: /srv/app/.env, variable: JWT_SECRET}
    dest: /srv/app/anon.jwt
"""

RETURN = r"""
dest:
  description: The file.
  returned: when O(dest) was given
  type: str
type:
  description: What the value is.
  returned: success
  type: str
length:
  description: The length in bytes as stored.
  returned: when there is a value, so not in check mode for a file that is missing
  type: int
kid:
  description: The key identifier, in a new key the RFC 7638 thumbprint.
  returned: as RV(length), for signing keys
  type: str
public:
  description: The public JWK of a signing key, or the claims of a token.
  returned: as RV(length), for signing keys and tokens
  type: dict
content:
  description: The value.
  returned: when O(return_content=true)
  type: str
content_encoding:
  description: V(utf-8), or V(base64) where the value is not text.
  returned: when O(return_content=true)
  type: str
"""

import base64
import os
import secrets
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import generate
from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import read_file, remove_file, write_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS, run_module
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS, resolve


def _create(path: str, value: bytes) -> bool:
    """Write a file that is not there yet; false when another process was first."""
    staged = f"{path}.{secrets.token_hex(8)}"
    write_file(staged, value, 0o600)
    try:
        os.link(staged, path)
    except FileExistsError:
        return False
    finally:
        remove_file(staged)
    return True


def _spec(params: dict[str, Any]) -> dict[str, Any]:
    spec = {field: params[field] for field in generate.SPEC_FIELDS if params[field] is not None}
    if not spec["allow_weak"]:
        del spec["allow_weak"]
    generate.check_spec(spec, "generate_secret")
    if not params["dest"] and not params["return_content"]:
        raise KeyturnError(
            "dest-missing", "nothing would keep the value", where="generate_secret", hint="Give dest, or return_content"
        )
    return spec


def _value(params: dict[str, Any], spec: dict[str, Any], check_mode: bool) -> tuple[bytes | None, bool]:
    """The value that counts now, unless check mode keeps it from being made, and whether this call changes the file."""
    dest, force = params["dest"], params["force"]
    if dest and os.path.lexists(dest) and not force:
        return read_file(dest), False
    if dest and check_mode:
        return None, True
    key = resolve(Session.from_params(params), params["key"], "key") if params["key"] else None
    value = generate.generate(spec, os.urandom, key=key, where="generate_secret")
    if dest and force:
        write_file(dest, value, 0o600)
    elif dest and not _create(dest, value):
        return read_file(dest), False
    return value, bool(dest)


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Make the value where there is none."""
    spec, dest = _spec(params), params["dest"]
    with Session.from_params(params).changing(check_mode):
        existed = bool(dest) and os.path.lexists(dest)
        value, changed = _value(params, spec, check_mode)
    facts = {"type": spec["type"]} if value is None else generate.describe(spec, value, dest or "generate_secret")
    before = {"exists": existed}
    after = {**facts, "exists": True} if changed else before
    result = {**facts, "changed": changed, "diff": {"before": before, "after": after}}
    if dest:
        result["dest"] = dest
    if params["return_content"] and value is not None:
        try:
            result.update(content=value.decode(), content_encoding="utf-8")
        except UnicodeDecodeError:
            result.update(content=base64.b64encode(value).decode(), content_encoding="base64")
    return result


def main() -> None:
    """Run the module."""
    sources = {name: option for name, option in VALUE_OPTIONS.items() if name != "sealed"}
    run_module(
        work,
        {
            **SESSION_ARGUMENTS,
            "type": {
                "type": "str",
                "choices": ["string", "bytes", "rsa", "ec", "ed25519", "jwt"],
                "required": True,
            },
            "length": {"type": "int"},
            "min_length": {"type": "int"},
            "charset": {"type": "str", "choices": list(generate.CHARSETS)},
            "characters": {"type": "str"},
            "encoding": {"type": "str", "choices": ["base64url", "base64", "hex", "raw"]},
            "padding": {"type": "bool"},
            "bits": {"type": "int", "choices": [2048, 3072, 4096]},
            "alg": {"type": "str", "choices": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]},
            "curve": {"type": "str", "choices": ["P-256", "P-384", "P-521"]},
            "format": {"type": "str", "choices": ["jwk", "pem"]},
            "payload": {"type": "dict"},
            "lifetime": {"type": "str"},
            "key": {"type": "dict", "no_log": False, "options": sources},
            "allow_weak": {"type": "bool", "default": False},
            "dest": {"type": "path"},
            "force": {"type": "bool", "default": False},
            "return_content": {"type": "bool", "default": False},
        },
    )


if __name__ == "__main__":
    main()
