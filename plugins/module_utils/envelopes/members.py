# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts that are members of a JSON object, as ActiveRecord::Encryption of Rails writes them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.ciphers import Cipher
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.labels import Labelled, labels_of
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.parts import slices_of
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec, Members
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.text import TextCodec

__all__ = ["MembersLayout"]

_Path = tuple[str, ...]


def _leaves(value: Mapping[str, Any], above: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    for name, member in value.items():
        if isinstance(member, dict) and member:
            yield from _leaves(member, (*above, name))
        else:
            yield (*above, name), member


@dataclass(frozen=True)
class _Read:
    """One cell."""

    raw: bytes
    labels: Mapping[_Path, Any]
    is_compressed: bool


class MembersLayout:
    """Compact JSON is written; any JSON of these members, and of no others, is read."""

    def __init__(self, spec: EnvelopeSpec, members: Members, key_id: str) -> None:
        self._members = members
        self._codec = TextCodec(spec.text)
        self._compress = spec.compress
        self._flag = spec.compress.flag if spec.compress is not None else ()
        self._slices = slices_of(spec.parts)
        self._sizes = [(part.name, part.size) for part in spec.parts]
        self._paths = dict(members.parts)
        self._optional = {path for path in (*members.carried, members.key_id, self._flag) if path}
        self._key_id = self._codec.encode_many([key_id.encode()])[0].decode()

    def _read(self, cell: bytes) -> _Read | None:
        try:
            whole = json.loads(cell.decode())
            found = dict(_leaves(whole)) if isinstance(whole, dict) else {}
        except (ValueError, RecursionError):
            return None
        needed = set(self._paths.values())
        is_compressed = found.get(self._flag, False)
        if not needed <= set(found) <= needed | self._optional or not isinstance(is_compressed, bool):
            return None
        texts = [found[self._paths[name]] for name, size in self._sizes]
        if not all(isinstance(text, str) and text.isascii() for text in texts):
            return None
        parts = self._codec.decode_many([text.encode() for text in texts])
        fitting = [
            part for part, (name, size) in zip(parts, self._sizes) if part is not None and size in (0, len(part))
        ]
        if len(fitting) != len(parts):
            return None
        labels = {path: found[path] for path in self._members.carried if path in found}
        if self._members.key_id in found:
            labels[self._members.key_id] = True
        return _Read(b"".join(fitting), labels, is_compressed)

    def prepare(self, cipher: Cipher, cells: Sequence[bytes]) -> None:
        """See :class:`Layout`."""
        read = map(self._read, cells)
        cipher.prepare([None if one is None else one.raw for one in read])

    def open_many(
        self, cipher: Cipher, cells: Sequence[bytes], associated: Sequence[bytes] | None = None
    ) -> list[bytes | None]:
        """See :class:`Layout`."""
        read = [self._read(cell) for cell in cells]
        payloads = cipher.open_many([None if one is None else one.raw for one in read], associated)
        return [
            None if one is None or payload is None else self._finish(one, payload)
            for one, payload in zip(read, payloads)
        ]

    @staticmethod
    def _finish(one: _Read, payload: bytes) -> bytes | None:
        if one.is_compressed:
            try:
                payload = zlib.decompress(payload)
            except zlib.error:
                return None
        return Labelled(payload, one.labels) if one.labels else payload

    def seal_many(
        self, cipher: Cipher, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None
    ) -> list[bytes]:
        """See :class:`Layout`."""
        rule = self._compress
        packed = [rule is not None and len(plain) > rule.over for plain in plaintexts]
        payloads = [zlib.compress(plain) if pack else plain for plain, pack in zip(plaintexts, packed)]
        raws = cipher.seal_many(payloads, associated)
        return [self._write(raw, plain, pack) for raw, plain, pack in zip(raws, plaintexts, packed)]

    def _write(self, raw: bytes, plain: bytes, is_compressed: bool) -> bytes:
        texts = self._codec.encode_many([raw[self._slices[name]] for name in self._paths])
        leaves: dict[_Path, Any] = dict(zip(self._paths.values(), (text.decode() for text in texts)))
        labels = labels_of(plain)
        leaves.update({path: labels[path] for path in self._members.carried if path in labels})
        if self._members.key_id in labels:
            leaves[self._members.key_id] = self._key_id
        if is_compressed:
            leaves[self._flag] = True
        whole: dict[str, Any] = {}
        for path, leaf in leaves.items():
            inside = whole
            for name in path[:-1]:
                inside = inside.setdefault(name, {})
            inside[path[-1]] = leaf
        return json.dumps(whole, separators=(",", ":")).encode()
