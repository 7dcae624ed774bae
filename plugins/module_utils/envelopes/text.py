# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes in text: base64 in two alphabets and hex, read strictly; and keys as they stand in their stores.

A cell is accepted only when writing the decoded bytes again gives the same text, so alphabet, padding and unused bits
(RFC 4648 section 3.5) are checked at once.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec, KeyForm, TextForm
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["TextCodec", "check_key", "decode_keys"]

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_TO_URL = bytes.maketrans(b"+/", b"-_")
_HEX = re.compile(rb"(?:[0-9a-f]{2})*|(?:[0-9A-F]{2})*")
_LINE_BREAKS = b"\r\n"


def _decode_base64(text: bytes, alphabet: str, padding: str, canonical: bool) -> bytes | None:
    if alphabet == "base64url":
        if b"+" in text or b"/" in text:
            return None
        text = text.translate(_TO_STANDARD)
    if text.endswith(b"="):
        if padding == "forbidden":
            return None
    elif padding != "required":
        text += b"=" * (-len(text) % 4)
    try:
        raw = binascii.a2b_base64(text)
    except binascii.Error:
        return None
    again = binascii.b2a_base64(raw, newline=False)
    if again == text:
        return raw
    if canonical or len(again) != len(text):
        return None
    # Only the unused bits of the last character may differ: readers ignore them, so such keys are in use.
    return raw if again.rstrip(b"=")[:-1] == text.rstrip(b"=")[:-1] else None


def _decode_hex(text: bytes) -> bytes | None:
    return binascii.unhexlify(text) if _HEX.fullmatch(text) else None


class TextCodec:
    """Raw bytes to cells and back, for one text form and prefix; many at a time."""

    def __init__(self, form: TextForm, prefix: str) -> None:
        self._form = form
        self._prefix = prefix.encode("ascii")

    def decode_many(self, cells: Sequence[bytes]) -> list[bytes | None]:
        """The raw bytes of each cell, or None for one that is not of this form."""
        if self._form.encoding != "base64" or self._form.padding == "forbidden" or self._prefix:
            decode = self._decode
            return [decode(cell) for cell in cells]
        a2b, b2a, refused, decode = binascii.a2b_base64, binascii.b2a_base64, binascii.Error, self._decode
        raws: list[bytes | None] = []
        append = raws.append
        for cell in cells:
            try:
                raw = a2b(cell)
            except refused:
                append(decode(cell))
                continue
            append(raw if b2a(raw, newline=False) == cell else decode(cell))
        return raws

    def _decode(self, cell: bytes) -> bytes | None:
        if self._prefix:
            if not cell.startswith(self._prefix):
                return None
            cell = cell[len(self._prefix) :]
        form = self._form
        if form.encoding == "raw":
            return cell
        if form.line_breaks:
            cell = cell.translate(None, _LINE_BREAKS)
        if form.encoding == "hex":
            return _decode_hex(cell)
        for alphabet in form.reads:
            raw = _decode_base64(cell, alphabet, form.padding, canonical=True)
            if raw is not None:
                return raw
        return None

    def encode_many(self, raws: Sequence[bytes]) -> list[bytes]:
        """The cell of each."""
        form, prefix, b2a = self._form, self._prefix, binascii.b2a_base64
        if form.encoding == "raw":
            return [prefix + raw for raw in raws]
        if form.encoding == "hex":
            return [prefix + binascii.hexlify(raw) for raw in raws]
        cells = [b2a(raw, newline=False) for raw in raws]
        if form.encoding == "base64url":
            cells = [cell.translate(_TO_URL) for cell in cells]
        if form.padding == "forbidden" or (form.padding == "optional" and form.encoding == "base64url"):
            cells = [cell.rstrip(b"=") for cell in cells]
        return [prefix + cell for cell in cells] if prefix else cells


def _decode_key(value: bytes, encoding: str, padding: str) -> bytes | None:
    if encoding == "raw":
        return value
    if encoding == "utf8":
        try:
            value.decode()
        except UnicodeDecodeError:
            return None
        return value
    if encoding == "hex":
        return _decode_hex(value)
    return _decode_base64(value, encoding, padding, canonical=False)


def _one_key(form: KeyForm, value: bytes, where: str) -> bytes:
    lengths = []
    for encoding in form.encodings:
        raw = _decode_key(value, encoding, form.padding)
        if raw is None:
            continue
        if raw and (not form.lengths or len(raw) in form.lengths):
            return raw
        lengths.append(len(raw))
    wanted = " or ".join(str(length) for length in form.lengths) or "1 or more"
    if lengths:
        problem, hint = f"the key is {lengths[0]} bytes long", f"It must be {wanted} bytes"
    else:
        problem = f"the key is not {' or '.join(form.encodings)} text"
        hint = f"It must be {wanted} bytes in that encoding, without blanks around it"
    raise KeyturnError("key-invalid", problem, where=where, hint=hint)


def decode_keys(spec: EnvelopeSpec, value: bytes) -> list[bytes]:
    """The raw keys in the value as it stands in its store; the one that encrypts comes first.

    One line break at the end of a base64 or hex text is not part of it (key files end so).

    :raises KeyturnError: ``key-invalid``, without the value.
    """
    where = f"key for envelope {spec.name}"
    if not value:
        raise KeyturnError("key-invalid", "the key is empty", where=where, hint="Check the store it comes from")
    form = spec.key
    if not set(form.encodings) & {"utf8", "raw"}:
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
