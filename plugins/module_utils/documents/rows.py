# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents as they are read: key, signature, document, and what its claims need, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.declared import Documents
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import Reading, Window, tid_text
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import aliased
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Rows, Source, read_key

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["DocumentRows", "DocumentSource"]


class DocumentRows(Rows):
    """Rows with their documents.

    :param one: whose rows they are.
    """

    def __init__(self, window: Window, one: Documents, at: Sequence[int] | None = None) -> None:
        super().__init__(window, one.table.key, at)
        self._one = one

    def _field(self, offset: int) -> list[bytes | None]:
        return self._window.nullable(self._width + offset, self._at)

    @property
    def signatures(self) -> list[bytes | None]:
        """What stands in the column of the signature."""
        return self._field(0)

    @property
    def documents(self) -> list[bytes | None]:
        """The documents' JSON texts."""
        return self._field(1)

    @property
    def tenants(self) -> list[str | None]:
        """Whose documents they are; None where all are turned alike."""
        if self._one.tenant is None:
            return [None] * len(self)
        return [None if raw is None else raw.decode() for raw in self._field(2)]

    @property
    def values(self) -> list[dict[str, str | None]]:
        """What the claims take from each row, by column."""
        names = self._one.form.columns
        first = 2 if self._one.tenant is None else 3
        columns = [self._field(first + number) for number in range(len(names))]
        rows = zip(*columns) if columns else [()] * len(self)
        return [{name: None if raw is None else raw.decode() for name, raw in zip(names, row)} for row in rows]

    @property
    def versions(self) -> tuple[list[bytes], list[bytes]]:
        """``xmin`` and ``ctid`` of each row, as texts."""
        first = 2 + (self._one.tenant is not None) + len(self._one.form.columns)
        xmins = self._window.column(self._width + first, self._at)
        ctids = self._window.column(self._width + first + 1, self._at)
        return [b"%d" % int.from_bytes(xmin, "big") for xmin in xmins], [tid_text(ctid).encode() for ctid in ctids]

    def pick(self, places: Sequence[int]) -> DocumentRows:
        """The rows at these places, in this order."""
        return DocumentRows(self._window, self._one, [self._at[place] for place in places])

    def stripe(self, number: int, count: int) -> DocumentRows:
        """Every so manieth row."""
        return DocumentRows(self._window, self._one, self._at[number::count])


class DocumentSource(Source):
    """The rows that are meant, also those without a signature."""

    def __init__(self, one: Documents) -> None:
        super().__init__(one.column)
        self._one = one
        read = [one.column.name, one.document.name, *([one.tenant.name] if one.tenant else ()), *one.form.columns]
        fields = read_key(one.table)
        fields += [sql.SQL("{}::text").format(aliased("c", name)) for name in read]
        fields.append(sql.SQL("c.xmin"))
        where = sql.SQL("true{}").format(one.column.chosen)
        self._reading = Reading(fields, (len(one.table.key) + 1,), sql.SQL(""), where)

    @property
    def reading(self) -> Reading:
        """What is read of each row."""
        return self._reading

    def _rows(self, window: Window) -> DocumentRows:
        return DocumentRows(window, self._one)
