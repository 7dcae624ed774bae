# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ciphers: raw envelopes in, plaintexts out, many at a time, under one key."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING, Callable, Protocol

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import Derivation, EnvelopeSpec, Part
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CBC
except ImportError:
    if TYPE_CHECKING:
        raise
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

__all__ = ["HAS_CRYPTOGRAPHY", "Cipher", "make_cipher"]

_CACHED_SALTS = 65_536
_BLOCK = 16
_MAC = 32


class Cipher(Protocol):
    """What an envelope needs from a cipher."""

    def prepare(self, raws: Sequence[bytes | None]) -> None:
        """Do the slow part (key derivation) for these ahead of time."""

    def open_many(self, raws: Sequence[bytes | None], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        """The plaintext of each, or None where it is not under this key."""

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        """The raw envelope of each."""


def _slices(parts: Sequence[Part]) -> dict[str, slice]:
    """Where each part lies; what follows the ciphertext is counted from the end."""
    at = {}
    here = 0
    for index, part in enumerate(parts):
        if part.name == "ciphertext":
            behind = sum(later.size for later in parts[index + 1 :])
            at[part.name] = slice(here, -behind or None)
            here = -behind
        else:
            at[part.name] = slice(here, (here + part.size) or None)
            here += part.size
    return at


def _processors() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


class _Deriver:
    """AES-GCM under keys derived with PBKDF2-HMAC-SHA256 (RFC 8018), kept by salt."""

    def __init__(self, key: bytes, derivation: Derivation) -> None:
        self._key = key
        self._derivation = derivation
        self._known: dict[bytes, AESGCM] = {}

    def _derive(self, salt: bytes) -> AESGCM:
        derivation = self._derivation
        return AESGCM(hashlib.pbkdf2_hmac("sha256", self._key, salt, derivation.rounds, derivation.length))

    def prepare(self, salts: Iterable[bytes]) -> None:
        """Derive for all of these at once; OpenSSL works without the interpreter's lock."""
        missing = [salt for salt in dict.fromkeys(salts) if salt not in self._known]
        if not missing:
            return
        for salt in list(self._known)[: max(0, len(self._known) + len(missing) - _CACHED_SALTS)]:
            del self._known[salt]
        if len(missing) == 1:
            self._known[missing[0]] = self._derive(missing[0])
            return
        with ThreadPoolExecutor(min(len(missing), _processors())) as pool:
            self._known.update(zip(missing, pool.map(self._derive, missing)))

    def get(self, salt: bytes) -> AESGCM:
        """The cipher for one salt."""
        found = self._known.get(salt)
        if found is None:
            self.prepare([salt])
            found = self._known[salt]
        return found


class _AesGcm:
    """AES-GCM (NIST SP 800-38D) with a tag of 16 bytes, parts in any order."""

    def __init__(self, spec: EnvelopeSpec, key: bytes, randbytes: Callable[[int], bytes]) -> None:
        self._aead = None if spec.derive else AESGCM(key)
        self._deriver = _Deriver(key, spec.derive) if spec.derive else None
        self._minimum = spec.minimum
        self._associated = spec.associated_data or None
        self._randbytes = randbytes
        self._order = [part.name for part in spec.parts]
        self._sizes = {part.name: part.size for part in spec.parts}
        self._at = _slices(spec.parts)
        self._is_plain_order = self._order == ["nonce", "ciphertext", "tag"]

    def prepare(self, raws: Sequence[bytes | None]) -> None:
        if self._deriver is not None:
            at, minimum = self._at["salt"], self._minimum
            self._deriver.prepare(raw[at] for raw in raws if raw is not None and len(raw) >= minimum)

    def open_many(self, raws: Sequence[bytes | None], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        if associated is None and self._aead is not None and self._is_plain_order:
            return self._open_plain_order(self._aead, raws)
        self.prepare(raws)
        open_one, fixed = self._open, self._associated
        if associated is None:
            return [None if raw is None else open_one(raw, fixed) for raw in raws]
        return [None if raw is None else open_one(raw, data) for raw, data in zip(raws, associated)]

    def _open_plain_order(self, aead: AESGCM, raws: Sequence[bytes | None]) -> list[bytes | None]:
        decrypt, associated, minimum, size = aead.decrypt, self._associated, self._minimum, self._sizes["nonce"]
        plaintexts: list[bytes | None] = []
        append = plaintexts.append
        for raw in raws:
            if raw is None or len(raw) < minimum:
                append(None)
                continue
            try:
                append(decrypt(raw[:size], raw[size:], associated))
            except InvalidTag:
                append(None)
        return plaintexts

    def _open(self, raw: bytes, associated: bytes | None) -> bytes | None:
        if len(raw) < self._minimum:
            return None
        at = self._at
        aead = self._aead or self._derived(raw[at["salt"]])
        try:
            return aead.decrypt(raw[at["nonce"]], raw[at["ciphertext"]] + raw[at["tag"]], associated)
        except InvalidTag:
            return None

    def _derived(self, salt: bytes) -> AESGCM:
        if self._deriver is None:
            raise ValueError("a salt needs a derivation")
        return self._deriver.get(salt)

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        count, size, fixed = len(plaintexts), self._sizes["nonce"], self._associated
        random = self._randbytes(count * size)
        nonces = [random[start : start + size] for start in range(0, count * size, size)]
        if associated is None and self._aead is not None and self._is_plain_order:
            encrypt = self._aead.encrypt
            return [nonce + encrypt(nonce, plain, fixed) for nonce, plain in zip(nonces, plaintexts)]
        salts = self._new_salts(count)
        raws = []
        for salt, nonce, plain, data in zip(salts, nonces, plaintexts, associated or repeat(fixed)):
            body = (self._aead or self._derived(salt)).encrypt(nonce, plain, data)
            pieces = {"salt": salt, "nonce": nonce, "ciphertext": body[:-16], "tag": body[-16:]}
            raws.append(b"".join([pieces[name] for name in self._order]))
        return raws

    def _new_salts(self, count: int) -> list[bytes]:
        if self._deriver is None:
            return [b""] * count
        size = self._sizes["salt"]
        salts = [self._randbytes(size) for _number in range(count)]
        self._deriver.prepare(salts)
        return salts


class _Fernet:
    """Fernet (github.com/fernet/spec): AES-128-CBC under the last 16 key bytes, HMAC-SHA256 under the first 16."""

    def __init__(
        self, spec: EnvelopeSpec, key: bytes, randbytes: Callable[[int], bytes], clock: Callable[[], float]
    ) -> None:
        self._minimum = spec.minimum
        self._sign = key[:16]
        self._aes = AES(key[16:])
        self._randbytes = randbytes
        self._clock = clock

    def prepare(self, raws: Sequence[bytes | None]) -> None:
        """Nothing is slow here."""

    def open_many(self, raws: Sequence[bytes | None], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        del associated
        open_one = self._open
        return [None if raw is None else open_one(raw) for raw in raws]

    def _open(self, raw: bytes) -> bytes | None:
        if len(raw) < self._minimum or (len(raw) - 25 - _MAC) % _BLOCK or raw[0] != 0x80:
            return None
        if not hmac.compare_digest(hmac.digest(self._sign, raw[:-_MAC], "sha256"), raw[-_MAC:]):
            return None
        decryptor = BlockCipher(self._aes, CBC(raw[9:25])).decryptor()
        padded = decryptor.update(raw[25:-_MAC]) + decryptor.finalize()
        fill = padded[-1]  # PKCS #7 (RFC 5652 section 6.3)
        if not 1 <= fill <= _BLOCK or padded[-fill:] != bytes([fill]) * fill:
            return None
        return padded[:-fill]

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        del associated
        head = b"\x80" + int(self._clock()).to_bytes(8, "big")
        random = self._randbytes(_BLOCK * len(plaintexts))
        raws = []
        for number, plain in enumerate(plaintexts):
            iv = random[number * _BLOCK : (number + 1) * _BLOCK]
            fill = _BLOCK - len(plain) % _BLOCK
            encryptor = BlockCipher(self._aes, CBC(iv)).encryptor()
            signed = head + iv + encryptor.update(plain + bytes([fill]) * fill) + encryptor.finalize()
            raws.append(signed + hmac.digest(self._sign, signed, "sha256"))
        return raws


def make_cipher(
    spec: EnvelopeSpec, key: bytes, randbytes: Callable[[int], bytes], clock: Callable[[], float]
) -> Cipher:
    """The cipher of a spec under one raw key.

    :param randbytes: gives that many random bytes.
    :param clock: seconds since 1970, for ciphers that write the time.
    :raises KeyturnError: ``library-missing`` without the Python library ``cryptography``.
    """
    if not HAS_CRYPTOGRAPHY:
        raise KeyturnError(
            "library-missing",
            "the Python library cryptography is not installed on this host",
            where=f"envelope {spec.name}",
            hint="Install python3-cryptography",
        )
    if spec.cipher == "fernet":
        return _Fernet(spec, key, randbytes, clock)
    return _AesGcm(spec, key, randbytes)
