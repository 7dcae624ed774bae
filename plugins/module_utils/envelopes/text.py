# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes in text: base64 in two alphabets and hex, read strictly.

A cell is accepted only when writing the decoded bytes again gives the same text, so alphabet, padding and unused bits
(RFC 4648 section 3.5) are checked at once.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Sequence
from typing import cast

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import TextForm

__all__ = ["TextCodec", "decode_base64", "decode_hex_of_one_case"]

_TO_URL = bytes.maketrans(b"+/", b"-_")
#: Also turns the characters of the other alphabet into ones of neither.
_TO_STANDARD_ONLY = bytes.maketrans(b"-_+/", b"+/!!")
_LOWER, _UPPER = b"0123456789abcdef", b"0123456789ABCDEF"
_LINE_BREAKS = b"\r\n"
#: Base64 characters without unused bits, before one and before two characters of padding.
_LAST_OF_THREE = b"AEIMQUYcgkosw048"
_LAST_OF_TWO = b"AQgw"


def decode_base64(text: bytes, alphabet: str, padding: str, canonical: bool) -> bytes | None:
    """The bytes, or None.

    :param canonical: unused bits must be zero. Readers ignore them, so keys with others are in use.
    """
    if alphabet == "base64url":
        text = text.translate(_TO_STANDARD_ONLY)
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
    return raw if again.rstrip(b"=")[:-1] == text.rstrip(b"=")[:-1] else None


def decode_hex(text: bytes, digits: bytes = _LOWER) -> bytes | None:
    """The bytes, or None."""
    return None if len(text) % 2 or text.translate(None, digits) else binascii.unhexlify(text)


def decode_hex_of_one_case(text: bytes) -> bytes | None:
    """The bytes, or None."""
    raw = decode_hex(text)
    return decode_hex(text, _UPPER) if raw is None else raw


def _a2b_many(texts: Sequence[bytes | None], is_url: bool) -> list[bytes | None]:
    """What the decoder makes of each text, None where it refuses; usually in one go."""
    decode, refused = binascii.a2b_base64, binascii.Error
    standard = [text and text.translate(_TO_STANDARD_ONLY) for text in texts] if is_url else texts
    with contextlib.suppress(refused, TypeError):  # nothing is to be decoded for None
        return list(map(decode, cast("Sequence[bytes]", standard)))
    raws: list[bytes | None] = []
    for text in standard:
        try:
            raws.append(None if text is None else decode(text))
        except refused:
            raws.append(None)
    return raws


class TextCodec:
    """Raw bytes to cells and back, for one text form; many at a time.

    :param prefix: before the encoded bytes, in the cell.
    :param magic: before the raw bytes, encoded with them.
    """

    def __init__(self, form: TextForm, prefix: bytes = b"", magic: bytes = b"") -> None:
        self._form = form
        self._prefix = prefix
        self._magic = magic

    def decode_many(self, cells: Sequence[bytes]) -> list[bytes | None]:
        """The raw bytes of each cell, or None for one that is not of this form."""
        form, prefix, magic = self._form, self._prefix, self._magic
        if prefix:
            start = len(prefix)
            texts: Sequence[bytes | None] = [cell[start:] if cell.startswith(prefix) else None for cell in cells]
        else:
            texts = cells
        if form.encoding in ("base64", "base64url") and form.padding != "forbidden":
            raws = self._decode_base64_many(texts)
        else:
            decode = self._decode
            raws = [None if text is None else decode(text) for text in texts]
        if magic:
            start = len(magic)
            raws = [raw[start:] if raw is not None and raw.startswith(magic) else None for raw in raws]
        return raws

    def _decode_base64_many(self, texts: Sequence[bytes | None]) -> list[bytes | None]:
        """The usual case without writing each text again.

        Four characters are three bytes, so a text of which anything was skipped gives too few bytes; what remains to
        be seen is that the padding is at the end and that no unused bit before it is set. The rest, and what is not of
        the usual form, goes to the slow way. Where all texts together give all their bytes, none has padding.
        """
        slow, raws = self._decode, _a2b_many(texts, self._form.encoding == "base64url")
        with contextlib.suppress(TypeError):  # there is a None
            if 3 * sum(map(len, cast("Sequence[bytes]", texts))) == 4 * sum(map(len, cast("list[bytes]", raws))):
                return raws
        for index, text in enumerate(texts):
            if text is None:
                continue
            raw = raws[index]
            lacking = 1 if raw is None else 3 * len(text) - 4 * len(raw)
            if lacking and not (
                (lacking == 4 and text[-1] == 61 and text[-2] in _LAST_OF_THREE)
                or (lacking == 8 and text.endswith(b"==") and text[-3] in _LAST_OF_TWO)
            ):
                raws[index] = slow(text)
        return raws

    def _decode(self, cell: bytes) -> bytes | None:
        form = self._form
        if form.encoding == "raw":
            return cell
        if form.line_breaks:
            cell = cell.translate(None, _LINE_BREAKS)
        if form.encoding == "hex":
            return decode_hex(cell)
        for alphabet in form.reads:
            raw = decode_base64(cell, alphabet, form.padding, canonical=True)
            if raw is not None:
                return raw
        return None

    def encode_many(self, raws: Sequence[bytes]) -> list[bytes]:
        """The cell of each."""
        form, prefix, magic, b2a = self._form, self._prefix, self._magic, binascii.b2a_base64
        if magic:
            raws = [magic + raw for raw in raws]
        if form.encoding == "raw":
            cells = list(raws)
        elif form.encoding == "hex":
            cells = [binascii.hexlify(raw) for raw in raws]
        elif form.encoding == "base64url":
            cells = [b2a(raw, newline=False).translate(_TO_URL) for raw in raws]
        else:
            cells = [b2a(raw, newline=False) for raw in raws]
        if form.padding == "forbidden" or (form.padding == "optional" and form.encoding == "base64url"):
            cells = [cell.rstrip(b"=") for cell in cells]
        return [prefix + cell for cell in cells] if prefix else cells
