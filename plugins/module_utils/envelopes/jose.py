# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""JWE compact serialisation (RFC 7516 section 7.1), direct encryption with AES-GCM (RFC 7518 sections 4.5 and 5.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.ciphers import Cipher
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.labels import Labelled, labels_of
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.text import TextCodec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["JoseLayout"]

_Path = tuple[str, ...]
_KID = ("kid",)
_NONCE, _TAG = 12, 16
#: Members that change what the rest means.
_NOT_READ = {"zip", "crit"}


class JoseLayout:
    """The header is the associated data, as it stands. Its members are written again, with the id of the new key."""

    def __init__(self, spec: EnvelopeSpec, key_id: str, key_size: int) -> None:
        self._name = spec.name
        self._codec = TextCodec(spec.text)
        self._key_id = key_id
        self._own = {"alg": "dir", "enc": f"A{8 * key_size}GCM"}

    def _labels(self, header: bytes) -> Mapping[_Path, Any] | None:
        """What a header says besides the algorithm; None for one that is not ours."""
        raw = self._codec.decode_many([header])[0]
        try:
            members = json.loads(raw.decode()) if raw is not None else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(members, dict) or {name: members.get(name) for name in self._own} != self._own:
            return None
        if _NOT_READ & set(members):
            return None
        return {(name,): name == "kid" or value for name, value in members.items() if name not in self._own}

    def _read(self, cells: Sequence[bytes]) -> tuple[list[bytes | None], list[bytes], list[Mapping[_Path, Any]]]:
        """Raw envelopes, headers and labels."""
        known: dict[bytes, Mapping[_Path, Any] | None] = {}
        raws: list[bytes | None] = []
        headers, labels = [], []
        for cell in cells:
            header, *rest = cell.split(b".")
            if header not in known:
                known[header] = self._labels(header)
            found = known[header]
            headers.append(header)
            labels.append(found or {})
            raws.append(None if found is None or len(rest) != 4 or rest[0] else self._joined(rest[1:]))
        return raws, headers, labels

    def _joined(self, texts: Sequence[bytes]) -> bytes | None:
        nonce, body, tag = self._codec.decode_many(texts)
        if nonce is None or body is None or tag is None or (len(nonce), len(tag)) != (_NONCE, _TAG):
            return None
        return nonce + body + tag

    def prepare(self, cipher: Cipher, cells: Sequence[bytes]) -> None:
        """See :class:`Layout`."""
        cipher.prepare(self._read(cells)[0])

    def open_many(
        self, cipher: Cipher, cells: Sequence[bytes], associated: Sequence[bytes] | None = None
    ) -> list[bytes | None]:
        """See :class:`Layout`."""
        del associated  # that is the header here
        raws, headers, labels = self._read(cells)
        plaintexts = cipher.open_many(raws, headers)
        return [
            Labelled(plain, said) if plain is not None and said else plain for plain, said in zip(plaintexts, labels)
        ]

    def seal_many(
        self, cipher: Cipher, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None
    ) -> list[bytes]:
        """See :class:`Layout`.

        :raises KeyturnError: ``key-id-missing`` when the old cell names its key and the new key has no name.
        """
        del associated
        headers = self._codec.encode_many([self._header(plain) for plain in plaintexts])
        raws = cipher.seal_many(plaintexts, headers)
        pieces = [raw[at] for raw in raws for at in (slice(_NONCE), slice(_NONCE, -_TAG), slice(-_TAG, None))]
        texts = self._codec.encode_many(pieces)
        return [b".".join((header, b"", *texts[3 * number : 3 * number + 3])) for number, header in enumerate(headers)]

    def _header(self, plain: bytes) -> bytes:
        labels = labels_of(plain)
        if _KID in labels and not self._key_id:
            raise KeyturnError(
                "key-id-missing",
                "the cells name their key, and the new key has no name",
                where=f"key for envelope {self._name}",
                hint="Give the key as a JWK with a kid",
            )
        kid = {"kid": self._key_id} if self._key_id else {}
        others = {path[0]: label for path, label in labels.items() if len(path) == 1 and path != _KID}
        return json.dumps({**self._own, **kid, **others}, separators=(",", ":")).encode()
