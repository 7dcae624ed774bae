# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base64url without padding (RFC 4648 section 5, RFC 7515 section 2)."""

from __future__ import annotations

import binascii

__all__ = ["decode", "encode"]

#: From one alphabet of base64 to the other; what belongs to the wrong one is no letter of either.
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/", b"+/!!")


def encode(raw: bytes) -> bytes:
    """Base64url without padding."""
    return binascii.b2a_base64(raw, newline=False).rstrip(b"=").translate(_TO_URL)


def decode(text: bytes) -> bytes:
    """The same back; only the one way of writing it is read.

    :raises ValueError: for anything else.
    """
    raw = binascii.a2b_base64(text.translate(_FROM_URL) + b"=" * (-len(text) % 4))
    if encode(raw) != text:  # it skips what is no letter
        raise binascii.Error("not canonical")
    return raw
