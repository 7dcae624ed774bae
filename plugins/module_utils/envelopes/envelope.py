# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening and sealing cells under one key."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.ciphers import make_cipher
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.presets import PRESETS
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.text import TextCodec, decode_keys
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Envelope", "detect"]


class Envelope:
    """A spec together with a key.

    :param key: the value as it stands in its store (text), or None for no key: nothing opens then, and sealing gives
        the plaintext itself (before the first encryption, and when going back to that).
    :param clock: seconds since 1970, for formats that write the time.
    :param randbytes: gives that many random bytes.
    :raises KeyturnError: ``key-invalid``; ``library-missing`` without ``cryptography``.
    """

    def __init__(
        self,
        spec: EnvelopeSpec,
        key: bytes | None,
        *,
        clock: Callable[[], float] = time.time,
        randbytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.spec = spec
        self._codec = TextCodec(spec.text, spec.prefix)
        keys = [] if key is None else decode_keys(spec, key)
        self._ciphers = [make_cipher(spec, raw, randbytes, clock) for raw in keys]

    @property
    def primary(self) -> Envelope:
        """The same with only the key that encrypts: says whether a cell is under *that* one, where a list has more."""
        if len(self._ciphers) < 2:
            return self
        alone = Envelope(self.spec, None)
        alone._ciphers = self._ciphers[:1]
        return alone

    def prepare(self, cells: Sequence[bytes]) -> None:
        """Derive the keys of these cells ahead, so that opening them later (in a transaction) is quick."""
        raws = self._codec.decode_many(cells)
        for cipher in self._ciphers:
            cipher.prepare(raws)

    def open(self, cell: bytes) -> bytes | None:
        """The plaintext, or None when the cell is not of this layout or not under this key. Raises for no cell."""
        return self.open_many([cell])[0]

    def seal(self, plaintext: bytes) -> bytes:
        """The cell; see :meth:`seal_many`."""
        return self.seal_many([plaintext])[0]

    def open_many(self, cells: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        """:meth:`open` for many; derivations run in threads.

        :param associated: what is authenticated with each, where the spec needs its context.
        """
        if not self._ciphers:
            return [None] * len(cells)
        raws = self._codec.decode_many(cells)
        plaintexts = self._ciphers[0].open_many(raws, associated)
        for cipher in self._ciphers[1:]:
            closed = [index for index, plaintext in enumerate(plaintexts) if plaintext is None]
            theirs = associated and [associated[index] for index in closed]
            for index, plaintext in zip(closed, cipher.open_many([raws[index] for index in closed], theirs)):
                plaintexts[index] = plaintext
        return plaintexts

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        """The cells, each opened again and compared before any is returned.

        :raises KeyturnError: ``seal-unproven`` when one does not open to what was sealed.
        """
        if not self._ciphers:
            return list(plaintexts)
        cells = self._codec.encode_many(self._ciphers[0].seal_many(plaintexts, associated))
        if self._ciphers[0].open_many(self._codec.decode_many(cells), associated) != list(plaintexts):
            raise KeyturnError(
                "seal-unproven",
                "a value that was just sealed does not open to what went in",
                where=f"envelope {self.spec.name}",
                hint="Nothing was written. Check the memory and the cryptography library of this host",
            )
        return cells


def detect(cells: Sequence[bytes], key: bytes) -> list[str]:
    """The names of the presets that open every one of these samples under this key; none for no samples."""
    found = []
    for name, spec in PRESETS.items():
        try:
            envelope = Envelope(spec, key)
        except KeyturnError as error:
            if error.code != "key-invalid":
                raise
            continue
        if cells and all(envelope.open(cell) is not None for cell in cells):
            found.append(name)
    return found
