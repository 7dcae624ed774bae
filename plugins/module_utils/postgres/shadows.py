# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A shadow: what is kept of a column under the other key, in a side table or in a second column.

Its name is the fact of a cut-over: :data:`NEXT` while the column itself is under the old key, :data:`PREV` when it is
under the new one. No progress file is kept.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, OLD
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["NEXT", "NONE", "PREV", "Shadow"]

NONE, NEXT, PREV = "none", "next", "prev"


@dataclass(frozen=True)
class Shadow(ABC):
    """What the database says about a column's shadow. In SQL the table is ``c``.

    :param schema: the schema of our own objects.
    :param fact: :data:`NONE`, :data:`NEXT` or :data:`PREV`.
    :param rotation: whose it is.
    :param swapped: whether the rows were swapped once.
    """

    schema: str
    column: Column
    fact: str = NONE
    rotation: str = ""
    swapped: bool = False

    way: ClassVar[str]

    @property
    def truth(self) -> str:
        """The key that the table's own rows are under."""
        return NEW if self.fact == PREV else OLD

    @property
    def tag(self) -> str:
        """A part of the names of what we make for this column."""
        table = self.column.table
        return hashlib.sha256(f"{table.schema}.{table.name}.{self.column.name}".encode()).hexdigest()[:16]

    @property
    @abstractmethod
    def lock(self) -> int:
        """The number of the advisory lock that writers share while :attr:`is_guarded`."""

    @property
    @abstractmethod
    def is_guarded(self) -> bool:
        """Whether there is a trigger that makes writers share it."""

    @property
    def note(self) -> dict[str, Any]:
        """What the comment on it says."""
        return {"column": self.column.name, "rotation_id": self.rotation, "swapped": self.swapped}

    @property
    def beside(self) -> sql.Composable | None:
        """The table to join as ``s``, where the shadow is not in ``c`` itself."""
        return None

    @property
    @abstractmethod
    def kept(self) -> tuple[sql.Composable, sql.Composable]:
        """The cell as the shadow knows it (NULL or another one where it is behind), and the one under the other key."""

    @abstractmethod
    def is_behind(self, cells: CellType) -> sql.Composable:
        """The condition that the shadow of a row is not up to date."""

    @abstractmethod
    def create(self, link: Link, rotation: str) -> Shadow:
        """Make it, empty, in the caller's transaction."""

    @abstractmethod
    def turn(self, link: Link) -> Shadow:
        """Note that the rows are swapped, in the transaction that swaps them."""

    @abstractmethod
    def drop(self, link: Link) -> None:
        """Remove it."""
