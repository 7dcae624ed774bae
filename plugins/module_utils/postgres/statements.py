# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements that are run for every batch: put together once, and prepared on the server.

Putting one together takes as long as encrypting a hundred cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, Rows

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Statement"]


class Statement:
    """One of them."""

    def __init__(self, query: sql.Composed) -> None:
        self._query = query
        self._text = b""

    def run(self, link: Link, parameters: Sequence[object]) -> Rows:
        """Run it; connections of one database may take turns."""
        if not self._text:
            self._text = self._query.as_bytes(link)
        return link.execute(self._text, parameters, prepare=True)
