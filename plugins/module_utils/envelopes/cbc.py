# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""AES-CBC (NIST SP 800-38A section 6.2), many values in one call, and the padding of their last blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.checks import make_check
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.derivation import Keys
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.parts import slices_of
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import CIPHERS, Check, EnvelopeSpec

try:
    from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CBC
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["BLOCK", "PKCS7", "AesCbc", "decrypt_many", "encrypt_many"]

BLOCK = 16
#: The padding of each length (RFC 5652 section 6.3); none is valid at 0.
PKCS7 = [bytes([fill]) * fill for fill in range(BLOCK + 1)]
_PIECES = ("salt", "iv", "ciphertext")


def decrypt_many(aes: AES, bodies: Sequence[bytes]) -> list[bytes]:
    """The padded plaintext of each ``iv | ciphertext``, both of whole blocks.

    All are one stream: a block is decrypted with the one before it, and before the first block of a value stands its
    initialisation vector. Where one value meets the next, a vector is decrypted for nothing.
    """
    decryptor = BlockCipher(aes, CBC(bytes(BLOCK))).decryptor()
    stream = decryptor.update(b"".join(bodies)) + decryptor.finalize()
    return _cut(stream, [len(body) for body in bodies], BLOCK)


def encrypt_many(aes: AES, padded: Sequence[bytes], random: bytes) -> list[bytes]:
    """The ``iv | ciphertext`` of each.

    All are one stream: the block before each value is a random one, encrypted, and so a random one again; it is the
    initialisation vector. That of the first value is the random block itself.

    :param random: a block for each value.
    """
    first = random[:BLOCK]
    pieces = [b""] * (2 * len(padded))
    pieces[::2] = [random[start : start + BLOCK] for start in range(0, len(padded) * BLOCK, BLOCK)]
    pieces[1::2] = padded
    pieces[:1] = []
    encryptor = BlockCipher(aes, CBC(first or bytes(BLOCK))).encryptor()
    stream = first + encryptor.update(b"".join(pieces)) + encryptor.finalize()
    return _cut(stream, [BLOCK + len(plain) for plain in padded])


def _cut(stream: bytes, sizes: Sequence[int], skipped: int = 0) -> list[bytes]:
    """The stream in pieces of these sizes, each without that many bytes at its beginning."""
    ends = list(accumulate(sizes))
    return [stream[end - size + skipped : end] for size, end in zip(sizes, ends)]


class AesCbc:
    """The cipher of a spec under one key. It proves nothing by itself: padding and plaintext check decide."""

    def __init__(self, spec: EnvelopeSpec, key: bytes, randbytes: Callable[[int], bytes]) -> None:
        self._at = slices_of(spec.parts)
        self._sizes = {part.name: part.size for part in spec.parts}
        self._minimum = spec.minimum
        self._randbytes = randbytes
        self._arrange = [_PIECES.index(part.name) for part in spec.parts]
        self._padding = b"" if spec.block_padding == "pkcs7" else spec.block_padding.encode()
        self._passes = make_check(spec.check or Check())
        size = spec.derive.length if spec.derive is not None else len(key)
        self._fixed_iv = key[:BLOCK] if spec.iv == "key" else b""
        extra = CIPHERS[spec.cipher].derived_start if spec.iv == "derived" else 0
        self._keys = Keys(spec, key, extra, lambda made: (AES(made[:size]), made[size:]))

    def _salt_of(self, raw: bytes) -> bytes:
        return raw[self._at["salt"]] if "salt" in self._at else b""

    def _has_blocks(self, raw: bytes | None) -> bool:
        if raw is None or len(raw) < self._minimum:
            return False
        size = len(raw[self._at["ciphertext"]])
        return size > 0 and size % BLOCK == 0

    def prepare(self, raws: Sequence[bytes | None]) -> None:
        """Derive the keys of these."""
        self._keys.prepare(self._salt_of(raw) for raw in raws if raw is not None and self._has_blocks(raw))

    def open_many(self, raws: Sequence[bytes | None], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        """The plaintext of each, or None where padding or check say that it is not under this key."""
        del associated  # this cipher has none
        plaintexts: list[bytes | None] = [None] * len(raws)
        indexes = [index for index, raw in enumerate(raws) if self._has_blocks(raw)]
        whole = [raw for raw in map(raws.__getitem__, indexes) if raw is not None]
        for index, padded in zip(indexes, self._decrypt(whole)):
            plaintexts[index] = self._unpad(padded)
        return plaintexts

    def _decrypt(self, raws: Sequence[bytes]) -> list[bytes]:
        at, fixed, shared = self._at, self._fixed_iv, self._keys.shared
        if shared is not None:
            aes, iv = shared[0], fixed or shared[1]
            return decrypt_many(aes, [(iv or raw[at["iv"]]) + raw[at["ciphertext"]] for raw in raws])
        self.prepare(raws)
        padded = []
        for raw in raws:
            aes, iv = self._keys.get(self._salt_of(raw))
            padded += decrypt_many(aes, [(iv or raw[at["iv"]]) + raw[at["ciphertext"]]])
        return padded

    def _unpad(self, padded: bytes) -> bytes | None:
        if self._padding:
            plain = padded.rstrip(self._padding)
            return plain if len(plain) < len(padded) and self._passes(plain) else None
        fill = padded[-1]
        if not 1 <= fill <= BLOCK or not padded.endswith(PKCS7[fill]):
            return None
        plain = padded[:-fill]
        return plain if self._passes(plain) else None

    def _pad(self, plain: bytes) -> bytes:
        fill = BLOCK - len(plain) % BLOCK
        return plain + (self._padding * fill if self._padding else PKCS7[fill])

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        """The raw envelope of each."""
        del associated
        count, sizes, arrange = len(plaintexts), self._sizes, self._arrange
        salts = [self._randbytes(sizes.get("salt", 0)) for _number in range(count)]
        random = self._randbytes(BLOCK * count)
        self._keys.prepare(salts)
        raws = []
        for index, plain in enumerate(plaintexts):
            aes, derived = self._keys.get(salts[index])
            iv = self._fixed_iv or derived or random[index * BLOCK : (index + 1) * BLOCK]
            body = encrypt_many(aes, [self._pad(plain)], iv)[0]
            pieces = (salts[index], iv, body[BLOCK:])
            raws.append(b"".join([pieces[place] for place in arrange]))
        return raws
