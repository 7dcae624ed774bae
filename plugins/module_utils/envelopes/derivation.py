# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key derivations: from the stored key to the one that is used."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Generic, TypeVar

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import Derivation, EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.processes import processors

__all__ = ["Keys", "derive", "used_key"]

_CACHED_SALTS = 65_536
_T = TypeVar("_T")


def derive(how: Derivation, key: bytes, salt: bytes, size: int) -> bytes:
    """That many bytes."""
    family, _dash, function = how.function.rpartition("-")
    if family == "pbkdf2-hmac":
        return hashlib.pbkdf2_hmac(function, key, salt, how.rounds, size)
    if family == "hkdf":
        return _hkdf(function, key, salt, how.info, size)
    if family == "evp-bytes-to-key":
        return _evp_bytes_to_key(function, key, salt, size)
    if function == "scrypt":
        memory = 128 * how.block_size * (how.cost + how.parallelization + 2)
        return hashlib.scrypt(
            key,
            salt=salt,
            n=how.cost,
            r=how.block_size,
            p=how.parallelization,
            maxmem=memory + 1_048_576,
            dklen=size,
        )
    return hashlib.sha256(key).digest()[:size]


def _hkdf(function: str, key: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869; no salt is as many zero bytes as the hash has."""
    digest = hmac.digest
    secret = digest(salt or bytes(hashlib.new(function).digest_size), key, function)
    block = material = b""
    while len(material) < size:
        block = digest(secret, block + info + bytes([len(material) // len(secret) + 1]), function)
        material += block
    return material[:size]


def _evp_bytes_to_key(function: str, key: bytes, salt: bytes, size: int) -> bytes:
    """EVP_BytesToKey(3) with one round, as ``openssl enc`` and crypto-js have it."""
    block = material = b""
    while len(material) < size:
        block = hashlib.new(function, block + key + salt, usedforsecurity=False).digest()
        material += block
    return material[:size]


class Keys(Generic[_T]):
    """The keys of cells, each made into what a cipher works with: one for all, or one for each salt, kept by salt.

    :param key: from :func:`used_key`.
    :param extra: bytes that are derived behind the key.
    :param make: what a cipher works with, from the bytes of a key and those behind it.
    """

    def __init__(self, spec: EnvelopeSpec, key: bytes, extra: int, make: Callable[[bytes], _T]) -> None:
        self._key = key
        self._make = make
        self._how = spec.derive if spec.is_salted else None
        self._size = extra + (spec.derive.length if spec.derive is not None else 0)
        self._known: dict[bytes, _T] = {}
        #: That of all cells; None where each has its salt.
        self.shared = None if self._how is not None else make(key)

    def prepare(self, salts: Iterable[bytes]) -> None:
        """Derive for all of these at once; OpenSSL works without the interpreter's lock."""
        if self._how is None:
            return
        missing = [salt for salt in dict.fromkeys(salts) if salt not in self._known]
        for salt in list(self._known)[: max(0, len(self._known) + len(missing) - _CACHED_SALTS)]:
            del self._known[salt]
        made: Iterable[bytes]
        if len(missing) > 1 and self._how.slow:
            with ThreadPoolExecutor(min(len(missing), processors())) as pool:
                made = list(pool.map(self._derive, missing))
        else:
            made = map(self._derive, missing)
        self._known.update(zip(missing, map(self._make, made)))

    def _derive(self, salt: bytes) -> bytes:
        return b"" if self._how is None else derive(self._how, self._key, salt, self._size)

    def get(self, salt: bytes) -> _T:
        """That of one salt."""
        if self.shared is not None:
            return self.shared
        if salt not in self._known:
            self.prepare([salt])
        return self._known[salt]


def used_key(spec: EnvelopeSpec, key: bytes, extra: int = 0) -> bytes:
    """The key that all cells share, and that many bytes behind it; the stored one where each cell has its salt."""
    if spec.derive is None or spec.is_salted:
        return key
    return derive(spec.derive, key, spec.derive.salt or b"", spec.derive.length + extra)
