# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How parts become a cell: one text, texts with a separator, members of a JSON object, JWE compact serialisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.ciphers import Cipher
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.jose import JoseLayout
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.members import MembersLayout
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.parts import slices_of
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.text import TextCodec

__all__ = ["Layout", "make_layout"]


class Layout(Protocol):
    """Cells on one side, a cipher on the other."""

    def prepare(self, cipher: Cipher, cells: Sequence[bytes]) -> None:
        """Derive the keys of these cells."""

    def open_many(
        self, cipher: Cipher, cells: Sequence[bytes], associated: Sequence[bytes] | None = None
    ) -> list[bytes | None]:
        """The plaintext of each, or None."""

    def seal_many(
        self, cipher: Cipher, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None
    ) -> list[bytes]:
        """The cell of each."""


class _Codec(Protocol):
    def decode_many(self, cells: Sequence[bytes]) -> list[bytes | None]: ...

    def encode_many(self, raws: Sequence[bytes]) -> list[bytes]: ...


class _TextLayout:
    """Nothing in the cell but the raw envelope."""

    def __init__(self, codec: _Codec) -> None:
        self._codec = codec

    def prepare(self, cipher: Cipher, cells: Sequence[bytes]) -> None:
        cipher.prepare(self._codec.decode_many(cells))

    def open_many(
        self, cipher: Cipher, cells: Sequence[bytes], associated: Sequence[bytes] | None = None
    ) -> list[bytes | None]:
        return cipher.open_many(self._codec.decode_many(cells), associated)

    def seal_many(
        self, cipher: Cipher, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None
    ) -> list[bytes]:
        return self._codec.encode_many(cipher.seal_many(plaintexts, associated))


class _JoinedCodec:
    """A text for each part, in the order of the parts, with a separator between them."""

    def __init__(self, spec: EnvelopeSpec, prefix: bytes) -> None:
        self._texts = TextCodec(spec.text)
        self._prefix = prefix
        self._separator = spec.text.separator.encode("ascii")
        self._slices = list(slices_of(spec.parts).values())
        self._sizes = [part.size for part in spec.parts]

    def decode_many(self, cells: Sequence[bytes]) -> list[bytes | None]:
        prefix, separator, sizes, count = self._prefix, self._separator, self._sizes, len(self._sizes)
        indexes: list[int] = []
        texts: list[bytes] = []
        for index, cell in enumerate(cells):
            pieces = cell[len(prefix) :].split(separator) if cell.startswith(prefix) else ()
            if len(pieces) == count:
                indexes.append(index)
                texts += pieces
        parts = self._texts.decode_many(texts)
        raws: list[bytes | None] = [None] * len(cells)
        for number, index in enumerate(indexes):
            found = parts[number * count : (number + 1) * count]
            fitting = [part for part, size in zip(found, sizes) if part is not None and size in (0, len(part))]
            if len(fitting) == count:
                raws[index] = b"".join(fitting)
        return raws

    def encode_many(self, raws: Sequence[bytes]) -> list[bytes]:
        texts = self._texts.encode_many([raw[at] for raw in raws for at in self._slices])
        prefix, separator, count = self._prefix, self._separator, len(self._slices)
        return [prefix + separator.join(texts[at : at + count]) for at in range(0, len(texts), count)]


def make_layout(spec: EnvelopeSpec, prefix: bytes, key_id: str, key_size: int) -> Layout:
    """The layout of a spec's cells under one key.

    :param prefix: of the cells, with the key's id in it.
    :param key_size: of the key that encrypts, in bytes.
    """
    if spec.text.members is not None:
        return MembersLayout(spec, spec.text.members, key_id)
    if spec.text.jose:
        return JoseLayout(spec, key_id, key_size)
    if spec.text.separator:
        return _TextLayout(_JoinedCodec(spec, prefix))
    return _TextLayout(TextCodec(spec.text, prefix, spec.magic))
