# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening and sealing cells under one key."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.ciphers import Cipher, make_cipher
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.derivation import used_key
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.keys import StoredKey, decode_keys
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.labels import keeps_labels
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.layouts import Layout, make_layout
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import CIPHERS, KEY_ID, EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Envelope"]


@dataclass(frozen=True)
class _Opener:
    """What one key of an envelope needs."""

    layout: Layout
    cipher: Cipher
    prefix: bytes


def _opener(
    spec: EnvelopeSpec, key: StoredKey, randbytes: Callable[[int], bytes], clock: Callable[[], float]
) -> _Opener:
    extra = CIPHERS[spec.cipher].derived_start if spec.iv == "derived" else 0
    used = used_key(spec, key.raw, extra)
    length = spec.derive.length if spec.derive is not None else len(used)
    key_id = key.id_for(spec.key, used[:length])
    prefix = spec.prefix.replace(KEY_ID, key_id).encode("ascii")
    return _Opener(make_layout(spec, prefix, key_id, length), make_cipher(spec, used, randbytes, clock), prefix)


class Envelope:
    """A spec together with a key.

    :param key: the value as it stands in its store (text), or None for no key: nothing opens then, and sealing gives
        the plaintext itself (before the first encryption, and when going back to that).
    :param clock: seconds since 1970, for formats that write the time.
    :param randbytes: gives that many random bytes.
    :raises KeyturnError: ``key-invalid``; ``envelope-invalid`` for a spec that still lacks a field;
        ``library-missing`` without ``cryptography``.
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
        spec.require_complete()
        keys = [] if key is None else decode_keys(spec, key)
        self._needs_context = spec.needs_context
        self._has_labels = spec.text.members is not None or spec.text.jose
        self._openers = [_opener(spec, one, randbytes, clock) for one in keys]

    @property
    def primary(self) -> Envelope:
        """The same with only the key that encrypts: says whether a cell is under *that* one, where a list has more."""
        if len(self._openers) < 2:
            return self
        alone = Envelope(self.spec, None)
        alone._openers = self._openers[:1]
        return alone

    @property
    def key_prefix(self) -> bytes | None:
        """What the cells under the key that encrypts begin with, and no others; None where cells do not name their key.

        ``_`` and ``%`` in it mean themselves.
        """
        return next(iter(self.key_prefixes), None)

    @property
    def key_prefixes(self) -> list[bytes]:
        """The same of each of its keys, the one that encrypts first."""
        return [opener.prefix for opener in self._openers] if KEY_ID in self.spec.prefix else []

    def prepare(self, cells: Sequence[bytes]) -> None:
        """Derive the keys of these cells ahead, so that opening them later (in a transaction) is quick."""
        for opener in self._openers if self.spec.is_salted else ():
            opener.layout.prepare(opener.cipher, cells)

    def open(self, cell: bytes, associated: bytes | None = None) -> bytes | None:
        """The plaintext, or None when the cell is not of this layout or not under this key. Raises for no cell."""
        return self.open_many([cell], None if associated is None else [associated])[0]

    def seal(self, plaintext: bytes, associated: bytes | None = None) -> bytes:
        """The cell; see :meth:`seal_many`."""
        return self.seal_many([plaintext], None if associated is None else [associated])[0]

    def open_many(self, cells: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        """:meth:`open` for many; slow derivations run in threads.

        Some layouts say more of a plaintext than its bytes (its text encoding); such a plaintext is an object that
        carries it, and :meth:`seal_many` writes it again when it gets that same object.

        :param associated: of each cell, from ``spec.associated_for``; exactly where ``spec.needs_context``.
        """
        self._check_context(len(cells), associated)
        if not self._openers:
            return [None] * len(cells)
        first = self._openers[0]
        plaintexts = first.layout.open_many(first.cipher, cells, associated)
        for opener in self._openers[1:]:
            closed = [index for index, plaintext in enumerate(plaintexts) if plaintext is None]
            data = None if associated is None else [associated[index] for index in closed]
            found = opener.layout.open_many(opener.cipher, [cells[index] for index in closed], data)
            for index, plaintext in zip(closed, found):
                plaintexts[index] = plaintext
        return plaintexts

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        """The cells, each opened again and compared before any is returned.

        :param associated: as in :meth:`open_many`.
        :raises KeyturnError: ``seal-unproven`` when one does not open to what was sealed.
        """
        self._check_context(len(plaintexts), associated)
        if not self._openers:
            return list(plaintexts)
        layout, cipher = self._openers[0].layout, self._openers[0].cipher
        cells = layout.seal_many(cipher, plaintexts, associated)
        opened = layout.open_many(cipher, cells, associated)
        is_whole = opened == list(plaintexts)
        if not is_whole or (self._has_labels and not all(map(keeps_labels, opened, plaintexts))):
            raise KeyturnError(
                "seal-unproven",
                "a value that was just sealed does not open to what went in",
                where=f"envelope {self.spec.name}",
                hint=_HINTS[self.spec.authenticated],
            )
        return cells

    def _check_context(self, count: int, associated: Sequence[bytes] | None) -> None:
        """Only who calls can get this wrong."""
        if (associated is not None) != self._needs_context:
            raise ValueError("associated data is given exactly where the envelope needs it")
        if associated is not None and len(associated) != count:
            raise ValueError("one associated data for each cell")


_HINTS = {
    True: "Nothing was written. Check the memory and the cryptography library of this host",
    False: "Nothing was written. This format cannot hold every value: see its check and its padding",
}
