# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the two ways to cut over have in common: ``rows`` (a side table) and ``columns`` (a second column)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.hold import Hold
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Key, Rows
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Work

__all__ = ["Pairs", "ShadowWriter", "Way"]


@dataclass
class Pairs:
    """Rows with their cell under the old key and under the new one."""

    rows: Rows
    under_old: Sequence[bytes]
    under_new: Sequence[bytes]

    def only(self, keys: frozenset[Key] | None) -> Pairs:
        """Those of the rows with these keys; None for all."""
        if keys is None:
            return self
        at = self.rows.places(keys)
        return Pairs(
            self.rows.pick(at), [self.under_old[place] for place in at], [self.under_new[place] for place in at]
        )


class ShadowWriter(ABC):
    """Writes rows and their shadows, inside the caller's transaction; each tells how many somebody had changed.

    :param keeps: whether a cell that is the same under both keys is still to be kept.
    """

    keeps = True

    @abstractmethod
    def begin(self, link: Link) -> None:
        """Say who writes, in the present transaction."""

    @abstractmethod
    def write_ciphered(self, link: Link, pairs: Pairs) -> int:
        """Rows whose cell is encrypted under both keys."""

    @abstractmethod
    def write_plain(self, link: Link, rows: Rows, under_new: Sequence[bytes]) -> int:
        """Rows in clear, to be encrypted under the new key. The server copies what is in clear."""

    @abstractmethod
    def write_sent(self, link: Link, pairs: Pairs) -> int:
        """Rows of which a value may hold text in clear: one that was so before the first encryption, or text around."""

    @abstractmethod
    def write_kept(self, link: Link, rows: Rows) -> None:
        """Rows that are the same under both keys."""


class Way(ABC):
    """One way to cut over.

    :param proves_fill: whether what is kept is decrypted and compared once more before the swap.
    """

    name: ClassVar[str]
    proves_fill: ClassVar[bool] = False

    @abstractmethod
    def none(self, schema: str, column: Column) -> Shadow:
        """No shadow, of this way."""

    @abstractmethod
    def writer(self, target: Target, shadow: Shadow) -> ShadowWriter:
        """Writes to one column and its shadow."""

    @abstractmethod
    def check(self, link: Link, targets: Sequence[Target], covered: Sequence[Covered]) -> None:
        """Refuse tables that this way does not suit.

        :param covered: the coverage, where it was just counted.
        """

    @abstractmethod
    def close(self, work: Work, targets: Sequence[Target], shadows: Sequence[Shadow]) -> list[Shadow]:
        """Fill the shadows of rows that have none yet, and do what is due once that is done."""

    @abstractmethod
    def swap(
        self, work: Work, targets: Sequence[Target], shadows: Sequence[Shadow], back: bool, hold: Hold
    ) -> list[Shadow]:
        """Exchange all rows of all columns, all or none.

        :param hold: holds back the service's writes from the same moment on, where that is wanted.
        :raises KeyturnError: ``lock-unavailable``, ``fenced``, ``writes-not-held``.
        """
