# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""AES-GCM (NIST SP 800-38D) with a tag of 16 bytes, parts in any order."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Callable, cast

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.derivation import Keys
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.parts import slices_of
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import CIPHERS, EnvelopeSpec

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["AesGcm"]

_TAG = 16
_PIECES = ("salt", "nonce", "ciphertext", "tag")


class AesGcm:
    """The cipher of a spec under one key, which is derived anew for each cell where the cells have a salt."""

    def __init__(self, spec: EnvelopeSpec, key: bytes, randbytes: Callable[[int], bytes]) -> None:
        self._at = slices_of(spec.parts)
        self._sizes = {part.name: part.size for part in spec.parts}
        self._minimum = spec.minimum
        self._fixed = spec.associated_data.encode() or None
        self._randbytes = randbytes
        names = [part.name for part in spec.parts]
        self._arrange = itemgetter(*[_PIECES.index(name) for name in names])
        self._mac_key = key if spec.iv == "hmac-sha256" else b""
        size = spec.derive.length if spec.derive is not None else len(key)
        extra = CIPHERS[spec.cipher].derived_start if spec.iv == "derived" else 0
        self._keys = Keys(spec, key, extra, lambda made: (AESGCM(made[:size]), made[size:]))
        self._is_salted = spec.is_salted
        is_plain = names == ["nonce", "ciphertext", "tag"]
        #: For the layout that needs no cutting and pasting.
        self._plain = self._keys.shared[0] if is_plain and self._keys.shared is not None else None

    def prepare(self, raws: Sequence[bytes | None]) -> None:
        """Derive the keys of these."""
        if self._is_salted:
            at, minimum = self._at["salt"], self._minimum
            self._keys.prepare(raw[at] for raw in raws if raw is not None and len(raw) >= minimum)

    def open_many(self, raws: Sequence[bytes | None], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        """The plaintext of each, or None where it is not under this key."""
        if associated is None and self._plain is not None:
            return self._open_plain_order(self._plain, raws)
        self.prepare(raws)
        open_one, fixed = self._open, self._fixed
        if associated is None:
            return [None if raw is None else open_one(raw, fixed) for raw in raws]
        return [None if raw is None else open_one(raw, data) for raw, data in zip(raws, associated)]

    def _open_plain_order(self, aead: AESGCM, raws: Sequence[bytes | None]) -> list[bytes | None]:
        decrypt, associated, minimum, size = aead.decrypt, self._fixed, self._minimum, self._sizes["nonce"]
        whole = cast("Sequence[bytes]", raws)
        with contextlib.suppress(InvalidTag, TypeError):  # mostly all are under one key, and none is None
            if min(map(len, whole), default=0) >= minimum:
                return [decrypt(raw[:size], raw[size:], associated) for raw in whole]
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
        aead, nonce = self._keys.get(raw[at["salt"]] if self._is_salted else b"")
        try:
            return aead.decrypt(nonce or raw[at["nonce"]], raw[at["ciphertext"]] + raw[at["tag"]], associated)
        except InvalidTag:
            return None

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        """The raw envelope of each."""
        nonces = self._new_nonces(plaintexts)
        if associated is None and self._plain is not None:
            encrypt, fixed = self._plain.encrypt, self._fixed
            return [nonce + encrypt(nonce, plain, fixed) for nonce, plain in zip(nonces, plaintexts)]
        arrange, salts, raws = self._arrange, self._new_salts(len(plaintexts)), []
        for index, plain in enumerate(plaintexts):
            aead, derived = self._keys.get(salts[index])
            nonce = derived or nonces[index]
            body = aead.encrypt(nonce, plain, self._fixed if associated is None else associated[index])
            raws.append(b"".join(arrange((salts[index], nonce, body[:-_TAG], body[-_TAG:]))))
        return raws

    def _new_nonces(self, plaintexts: Sequence[bytes]) -> list[bytes]:
        size, count = self._sizes.get("nonce", 0), len(plaintexts)
        if self._mac_key:
            return [hmac.digest(self._mac_key, plain, "sha256")[:size] for plain in plaintexts]
        random = self._randbytes(count * size)
        return [random[start : start + size] for start in range(0, count * size, size)] if size else []

    def _new_salts(self, count: int) -> list[bytes]:
        if not self._is_salted:
            return [b""] * count
        size = self._sizes["salt"]
        salts = [self._randbytes(size) for _number in range(count)]
        self._keys.prepare(salts)
        return salts
