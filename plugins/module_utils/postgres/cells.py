# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a column holds to the bytes of a cell and back, by column type.

``raw`` is what the database gives and takes; a *cell* is what an envelope opens. They differ for JSON columns: an
encrypted value is a JSON string there, and a plaintext one an object. The raw value of an array is its text form, that
of a large object its content. A side table keeps raw values of objects, and otherwise values as the column has them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import ByteaArray, TextArray
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.layers import plain_json, read_json
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["CellType"]

#: Stands for the content of a large object that does not exist. No cipher gives it: it is of no block's length.
_MISSING = b"\xff\0keyturn: no such object\xff"

_CASTS = {"_text": "text[]", "_varchar": "varchar[]", "_bytea": "bytea[]"}


class CellType:
    """How the cells of one column are read, compared and written."""

    def __init__(self, column: Column) -> None:
        self._where = str(column)
        self._is_json = column.type_name in ("json", "jsonb")
        self._is_binary_json = column.type_name == "jsonb"
        self._is_object = column.is_large_object
        self._is_bytes = column.type_name == "bytea" or self._is_object
        self.kept_sql = "bytea" if self._is_object else column.type_sql
        self._cast = sql.SQL(_CASTS.get(column.type_name, column.type_name))
        self._needs_cast = self._is_json or column.type_name in _CASTS

    def read(self, expression: sql.Composable) -> sql.Composable:
        """The column as raw bytes."""
        return self._content(expression) if self._is_object else self.read_kept(expression)

    @staticmethod
    def _content(expression: sql.Composable) -> sql.Composable:
        return sql.SQL(
            "CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = {oid}) "
            "THEN pg_catalog.lo_get({oid}) WHEN {oid} IS NOT NULL THEN {missing} END"
        ).format(oid=expression, missing=sql.Literal(_MISSING))

    def read_kept(self, expression: sql.Composable) -> sql.Composable:
        """What a shadow keeps of the column, as raw bytes."""
        return expression if self._is_bytes else sql.SQL("{}::text").format(expression)

    def compare(self, expression: sql.Composable) -> sql.Composable:
        """The column in a form whose equality is that of its bytes, whatever the collation."""
        return self._content(expression) if self._is_object else self.compare_kept(expression)

    def compare_kept(self, expression: sql.Composable) -> sql.Composable:
        """The same of what a shadow keeps of the column."""
        return expression if self._is_bytes else sql.SQL('{}::text COLLATE "C"').format(expression)

    def value(self, parameter: sql.Composable) -> sql.Composable:
        """A raw parameter as a value of the column; one that is too long for it is an error, never cut."""
        return sql.SQL("{}::{}").format(parameter, self._cast) if self._needs_cast else parameter

    @property
    def array_sql(self) -> sql.Composable:
        """The type of an array of raw values."""
        return sql.SQL("bytea[]" if self._is_bytes else "text[]")

    @property
    def staging_sql(self) -> sql.Composable:
        """The type of one raw value in a staging table."""
        return sql.SQL("bytea" if self._is_bytes else "text")

    def array(self, values: Sequence[bytes]) -> TextArray:
        """Raw values for one parameter."""
        return ByteaArray(values) if self._is_bytes else TextArray(values)

    @property
    def lies_apart(self) -> bool:
        """Whether the cells lie outside of the table."""
        return self._is_object

    def told(self, keys: list[tuple[bytes, ...]], raws: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        """The keys of rows as a message is to tell them."""
        if not self._is_object or _MISSING not in raws:
            return keys
        return [(*key[:-1], key[-1] + b" names no object") if raw == _MISSING else key for key, raw in zip(keys, raws)]

    def decode(self, raws: Sequence[bytes]) -> list[bytes]:
        """The cells; JSON ``null`` is an empty cell."""
        return [read_json(raw) for raw in raws] if self._is_json else list(raws)

    def encode(self, cells: Sequence[bytes]) -> list[bytes]:
        """Raw values of encrypted cells."""
        return [json.dumps(cell.decode()).encode() for cell in cells] if self._is_json else list(cells)

    def encode_plain(self, plaintexts: Sequence[bytes]) -> list[bytes]:
        """Raw values of cells that are not encrypted.

        :raises KeyturnError: ``cell-unsupported`` for one that this column cannot hold.
        """
        return list(plaintexts) if self._is_bytes else [self._encode_plain(plaintext) for plaintext in plaintexts]

    def _encode_plain(self, plaintext: bytes) -> bytes:
        try:
            text = plain_json(plaintext, self._is_binary_json) if self._is_json else plaintext.decode()
        except ValueError:
            text = "\0"
        if "\0" in text:
            hint = "It stays encrypted only in a bytea column, or under a key"
            raise KeyturnError("cell-unsupported", "a plaintext is no text", where=self._where, hint=hint)
        return text.encode()
