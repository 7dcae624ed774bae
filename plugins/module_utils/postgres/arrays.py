# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many cells in one parameter, and rows for COPY: PostgreSQL's binary forms, packed in one go.

Array: ``array_send`` in ``src/backend/utils/adt/arrayfuncs.c``. COPY: chapter "COPY", section "Binary Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link

try:
    from psycopg.adapt import Dumper
    from psycopg.pq import Format
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["ByteaArray", "IntegerArray", "TextArray", "copy_rows", "register"]

_HEAD = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_FIELDS = struct.Struct("!h")
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"


class TextArray:
    """Texts (as UTF-8 bytes) for one ``text[]`` parameter."""

    element_oid = 25

    def __init__(self, values: Sequence[bytes]) -> None:
        self.packed = _pack(values, self.element_oid)


class ByteaArray(TextArray):
    """Bytes for one ``bytea[]`` parameter."""

    element_oid = 17


#: Integer types by their names in SQL: OID, and the letter of the struct module.
_INTEGERS = {"smallint": (21, "h"), "integer": (23, "i"), "bigint": (20, "q")}


class IntegerArray(TextArray):
    """Integers, in binary form, for one parameter of an array type that :attr:`TYPES` names."""

    TYPES = frozenset(_INTEGERS)

    def __init__(self, values: Sequence[bytes], type_sql: str) -> None:
        self.packed = _pack(values, _INTEGERS[type_sql][0])

    @staticmethod
    def texts(values: Sequence[bytes], type_sql: str) -> list[bytes]:
        """Integers in binary form as the server writes them."""
        letter = _INTEGERS[type_sql][1]
        return [b"%d" % number for number in struct.unpack(f"!{len(values)}{letter}", b"".join(values))]

    @staticmethod
    def binary(texts: Sequence[bytes], type_sql: str) -> list[bytes]:
        """The other way round."""
        pack = struct.Struct("!" + _INTEGERS[type_sql][1]).pack
        return [pack(int(text)) for text in texts]


def _pack(values: Sequence[bytes], element_oid: int) -> bytes:
    if not values:
        return struct.pack("!iiI", 0, 0, element_oid)
    lengths = list(map(len, values))
    packed = {length: _LENGTH.pack(length) for length in set(lengths)}
    parts = [b""] * (2 * len(values))
    parts[::2] = [packed[length] for length in lengths]
    parts[1::2] = values
    return _HEAD.pack(1, 0, element_oid, len(values), 1) + b"".join(parts)


def register(link: Link) -> None:
    """Teach a connection to take both kinds of array."""

    class TextArrayDumper(Dumper):
        format = Format.BINARY
        oid = 1009

        def dump(self, obj: TextArray) -> bytes:
            return obj.packed

    class ByteaArrayDumper(TextArrayDumper):
        oid = 1001

    class IntegerArrayDumper(TextArrayDumper):
        oid = 0  # the statement says which one by a cast

    link.adapters.register_dumper(IntegerArray, IntegerArrayDumper)
    link.adapters.register_dumper(TextArray, TextArrayDumper)
    link.adapters.register_dumper(ByteaArray, ByteaArrayDumper)


def copy_rows(rows: Iterable[Sequence[bytes]]) -> bytes:
    """Rows of text or bytea fields for ``COPY ... FROM STDIN (FORMAT binary)``: data that no statement log keeps."""
    parts = [_COPY_HEAD]
    for row in rows:
        parts.append(_FIELDS.pack(len(row)))
        for value in row:
            parts.append(_LENGTH.pack(len(value)))
            parts.append(value)
    parts.append(_COPY_END)
    return b"".join(parts)
