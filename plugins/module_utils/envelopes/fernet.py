# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fernet (github.com/fernet/spec): AES-128-CBC under the last 16 key bytes, HMAC-SHA256 under the first 16."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.cbc import (
    BLOCK,
    PKCS7,
    decrypt_many,
    encrypt_many,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec

try:
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Fernet"]

_HEAD = 9
_MAC = 32
_VERSION = 0x80
_HASH_BLOCK = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class Fernet:
    """The cipher under one key. The two halves of HMAC (RFC 2104) begin from hashes that are made once."""

    def __init__(
        self, spec: EnvelopeSpec, key: bytes, randbytes: Callable[[int], bytes], clock: Callable[[], float]
    ) -> None:
        self._minimum = spec.minimum
        padded = key[:16].ljust(_HASH_BLOCK, b"\0")
        self._inner = hashlib.sha256(padded.translate(_INNER))
        self._outer = hashlib.sha256(padded.translate(_OUTER))
        self._aes = AES(key[16:])
        self._randbytes = randbytes
        self._clock = clock

    def prepare(self, raws: Sequence[bytes | None]) -> None:
        """Nothing is slow here."""

    def open_many(self, raws: Sequence[bytes | None], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        """The plaintext of each, or None where it is not under this key."""
        del associated  # this format has none
        inner_copy, outer_copy, same, minimum = self._inner.copy, self._outer.copy, hmac.compare_digest, self._minimum
        indexes, bodies = [], []
        for index, raw in enumerate(raws):
            if raw is None or len(raw) < minimum or (len(raw) - _HEAD) % BLOCK or raw[0] != _VERSION:
                continue
            signed = raw[:-_MAC]
            inner, outer = inner_copy(), outer_copy()
            inner.update(signed)
            outer.update(inner.digest())
            if same(outer.digest(), raw[-_MAC:]):
                indexes.append(index)
                bodies.append(signed[_HEAD:])
        plaintexts: list[bytes | None] = [None] * len(raws)
        for index, padded in zip(indexes, decrypt_many(self._aes, bodies)):
            fill = padded[-1]
            if 1 <= fill <= BLOCK and padded.endswith(PKCS7[fill]):
                plaintexts[index] = padded[:-fill]
        return plaintexts

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        """The raw envelope of each."""
        del associated
        inner_copy, outer_copy = self._inner.copy, self._outer.copy
        head = bytes([_VERSION]) + int(self._clock()).to_bytes(8, "big")
        padded = [plain + PKCS7[BLOCK - len(plain) % BLOCK] for plain in plaintexts]
        raws = []
        for body in encrypt_many(self._aes, padded, self._randbytes(BLOCK * len(padded))):
            signed = head + body
            inner, outer = inner_copy(), outer_copy()
            inner.update(signed)
            outer.update(inner.digest())
            raws.append(signed + outer.digest())
        return raws
