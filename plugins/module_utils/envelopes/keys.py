# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys as they stand in their stores: encodings, lists, and how cells call them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec, KeyForm
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.text import (
    decode_base64,
    decode_hex_of_one_case,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["StoredKey", "check_key", "decode_keys"]

_NAME = re.compile(rb"[A-Za-z0-9._-]+")
_TEXT_ENCODINGS = {"utf8", "latin1", "raw"}


@dataclass(frozen=True)
class StoredKey:
    """A key out of its store.

    :param raw: the bytes that its text means.
    :param name: the id that stands beside it there; empty for none.
    """

    raw: bytes
    text: bytes
    name: str = ""

    def id_for(self, form: KeyForm, used: bytes) -> str:
        """How cells call this key; empty when the format has no ids.

        :param used: the key after derivation.
        """
        rule = form.key_id
        if rule is None or rule.source in ("jwk", "stored"):
            return self.name
        hashed = used if rule.source == "derived" else self.text
        return hashlib.new(rule.function, hashed, usedforsecurity=False).hexdigest()[: rule.digits]


def _decode_key(value: bytes, encoding: str, padding: str) -> bytes | None:
    if encoding == "raw":
        return value
    if encoding in ("utf8", "latin1"):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return None
        # As Node has it: the low byte of each UTF-16 unit.
        return value if encoding == "utf8" else text.encode("utf-16-le")[::2]
    if encoding == "hex":
        return decode_hex_of_one_case(value)
    if encoding == "jwk":
        return decode_base64(_jwk_member(value, "k").encode(), "base64url", "optional", canonical=False)
    return decode_base64(value, encoding, padding, canonical=False)


def _jwk_member(value: bytes, member: str) -> str:
    """A text member of a symmetric key in JSON (RFC 7518 section 6.4); empty where there is none."""
    try:
        key = json.loads(value.decode())
    except (ValueError, RecursionError):
        return ""
    found = key.get(member) if isinstance(key, dict) and key.get("kty") == "oct" else None
    return found if isinstance(found, str) and found.isascii() else ""


def _one_key(form: KeyForm, value: bytes, where: str) -> StoredKey:
    name = ""
    if form.key_id is not None and form.key_id.source == "stored":
        head, colon, value = value.partition(b":")
        if not colon or not _NAME.fullmatch(head):
            hint = "Write id:key; an id has letters, digits, '.', '_' and '-'"
            raise KeyturnError("key-invalid", "the key has no id before it", where=where, hint=hint)
        name = head.decode()
    lengths = []
    for encoding in form.encodings:
        raw = _decode_key(value, encoding, form.padding)
        if raw is None or (encoding == "jwk" and not raw):
            continue
        if raw and (not form.lengths or len(raw) in form.lengths):
            return StoredKey(raw, value, _jwk_member(value, "kid") if encoding == "jwk" else name)
        lengths.append(len(raw))
    wanted = " or ".join(str(length) for length in form.lengths) or "1 or more"
    if lengths:
        problem, hint = f"the key is {lengths[0]} bytes long", f"It must be {wanted} bytes"
    else:
        problem = f"the key is not {' or '.join(form.encodings)} text"
        hint = f"It must be {wanted} bytes in that encoding, without blanks around it"
    raise KeyturnError("key-invalid", problem, where=where, hint=hint)


def decode_keys(spec: EnvelopeSpec, value: bytes) -> list[StoredKey]:
    """The raw keys in the value as it stands in its store; the one that encrypts comes first.

    One line break at the end of a base64 or hex text is not part of it (key files end so).

    :raises KeyturnError: ``key-invalid``, without the value.
    """
    where = f"key for envelope {spec.name}"
    if not value:
        raise KeyturnError("key-invalid", "the key is empty", where=where, hint="Check the store it comes from")
    form = spec.key
    if not set(form.encodings) & _TEXT_ENCODINGS:
        value = value[:-1] if value.endswith(b"\n") else value
        value = value[:-1] if value.endswith(b"\r") else value
    if not form.several:
        return [_one_key(form, value, where)]
    texts = value.split(b",")
    keys = [_one_key(form, text, f"{where}, {number} of {len(texts)}") for number, text in enumerate(texts, 1)]
    return keys[::-1] if form.several == "last" else keys


def check_key(spec: EnvelopeSpec, value: bytes) -> None:
    """Refuse a key that this envelope cannot use.

    :raises KeyturnError: ``key-invalid``: what is wrong with it (length in bytes, alphabet), never the value.
    """
    decode_keys(spec, value)
