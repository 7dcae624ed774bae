# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting over by rows: each row is kept under both keys beside the table; one UPDATE exchanges them all.

Content decides what is up to date (no trigger, no mark): a row is settled when its cell equals the one that the side
table keeps as the present truth. Settling is filling, carrying over and sweeping, in both directions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import (
    EITHER,
    NEW,
    OLD,
    PLAINTEXT,
    UNKNOWN,
    Content,
    Judged,
    Target,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    is_retryable,
    transaction,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import unreadable
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Key, Row, Source
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.sides import Side
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Outcome, Work
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import Writer

try:
    import psycopg
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["settle", "settle_all", "swap"]

_CARRY_SECONDS = 0.1  # what may be encrypted while writers are held back
_CARRY_ROWS = 60
_FEW = 3


@dataclass
class _Pairs:
    """Rows with their cell under the old key and under the new one."""

    rows: list[Row] = field(default_factory=list)
    under_old: list[bytes] = field(default_factory=list)
    under_new: list[bytes] = field(default_factory=list)

    def add(self, rows: Sequence[Row], under_old: Sequence[bytes], under_new: Sequence[bytes]) -> None:
        self.rows += rows
        self.under_old += under_old
        self.under_new += under_new

    def only(self, keys: frozenset[Key]) -> _Pairs:
        at = [index for index, row in enumerate(self.rows) if row.key in keys]
        return _Pairs(
            [self.rows[index] for index in at],
            [self.under_old[index] for index in at],
            [self.under_new[index] for index in at],
        )


class _Batch:
    """One batch, judged and encrypted, ready to be written.

    :param back: whether the rotation goes back: nothing may stop it then, so a row that cannot be read stays as it is.
    """

    def __init__(self, target: Target, side: Side, rows: Sequence[Row], back: bool) -> None:
        self._side = side
        self._writer = Writer(target.column, side.truth)
        self._truth_is_new = side.truth == NEW
        self._ciphered = _Pairs()  # both cells encrypted
        self._plain = _Pairs()  # was plaintext: the server copies it, under_old is not used
        self._sent = _Pairs()  # to become plaintext, or with other text around: sent by COPY
        self._kept: list[Row] = []  # the same under both keys
        by_class: dict[str, tuple[list[Row], list[Content]]] = {}
        keys = [row.key for row in rows] if target.needs_context else ()
        judged = target.judge_values([row.raw for row in rows], keys, side.truth)
        for row, (kind, plaintext) in zip(rows, judged):
            group = by_class.setdefault(self._group(target, back, row, (kind, plaintext)), ([], []))
            group[0].append(row)
            group[1].append(b"" if plaintext is None else plaintext)
        for kind, (group_rows, plaintexts) in by_class.items():
            self._prepare(target, kind, group_rows, plaintexts)

    def _group(self, target: Target, back: bool, row: Row, judged: Judged) -> str:
        kind = judged[0]
        if kind in (UNKNOWN, EITHER) or (kind == PLAINTEXT and target.plaintext == "refuse"):
            if not back:
                raise unreadable(target, kind, row.key)
            return "keep"
        if kind == PLAINTEXT:
            return PLAINTEXT if target.plaintext == "encrypt" else "keep"
        if kind == NEW and target.is_adoption:
            if back:
                return "bare"
            return "skip" if self._truth_is_new else "keep"
        return kind if kind in (NEW, OLD) else "keep"

    def _prepare(self, target: Target, group: str, rows: list[Row], plaintexts: list[Content]) -> None:
        raws = [row.raw for row in rows]
        keys = [row.key for row in rows] if target.needs_context else ()
        if group == "keep":
            self._kept = rows
        elif group == "bare":
            self._sent.add(rows, target.bare_values(plaintexts), raws)
        elif group == "skip":
            return
        elif target.shape is not None:
            under_old = target.seal_values(OLD, plaintexts, keys)
            self._sent.add(rows, under_old, target.seal_values(NEW, plaintexts, keys))
        elif group == OLD:
            self._ciphered.add(rows, raws, target.seal_values(NEW, plaintexts, keys))
        elif group == NEW:
            self._ciphered.add(rows, target.seal_values(OLD, plaintexts, keys), raws)
        elif group == PLAINTEXT:
            self._plain.add(rows, raws, target.seal_values(NEW, plaintexts, keys))

    @property
    def rows(self) -> list[Row]:
        """The rows to write."""
        return [*self._ciphered.rows, *self._plain.rows, *self._sent.rows, *self._kept]

    def write(self, link: Link, keys: frozenset[Key]) -> int:
        """Write the rows with these keys; how many of the table's own somebody else had changed."""
        raced = self._write_ciphered(link, self._ciphered.only(keys))
        plain = self._plain.only(keys)
        if plain.rows:
            self._writer.copy_pairs(link, self._side, plain.rows, plain.under_new)
            if self._truth_is_new:
                raced += len(plain.rows) - self._writer.replace_versions(link, plain.rows, plain.under_new)
        sent = self._sent.only(keys)
        if sent.rows:
            truths = sent.under_new if self._truth_is_new else sent.under_old
            self._writer.stage(link, sent.rows, k0=sent.under_old, k1=sent.under_new)
            self._writer.put_staged(link, self._side)
            wrong = sum(1 for row, truth in zip(sent.rows, truths) if row.raw != truth)
            raced += wrong - self._writer.replace_staged(link, "k1" if self._truth_is_new else "k0") if wrong else 0
        kept = [row for row in self._kept if row.key in keys]
        if kept:
            self._writer.copy_pairs(link, self._side, kept, None)
        return raced

    def _write_ciphered(self, link: Link, pairs: _Pairs) -> int:
        if not pairs.rows:
            return 0
        truths = pairs.under_new if self._truth_is_new else pairs.under_old
        wrong = [index for index, row in enumerate(pairs.rows) if row.raw != truths[index]]
        raced = 0
        if wrong:
            rows = [pairs.rows[index] for index in wrong]
            raced = len(wrong) - self._writer.replace_cells(link, rows, [truths[index] for index in wrong])
        keys = [row.key for row in pairs.rows]
        self._writer.put_pairs(link, self._side, keys, pairs.under_old, pairs.under_new)
        return raced


def settle(work: Work, target: Target, side: Side, back: bool) -> Outcome:
    """One pass: every row that differs from its side table is put right in both."""

    def one(link: Link, rows: list[Row]) -> Outcome:
        batch = _Batch(target, side, rows, back)
        outcome = work.write(link, target, batch.rows, batch.write) if batch.rows else Outcome()
        outcome.seen = len(rows)
        return outcome

    return work.run(target, Source(target.column, side), one)


def settle_all(work: Work, targets: Sequence[Target], sides: Sequence[Side], back: bool) -> None:
    """Passes over all columns until hardly anything is left to do, or writers add as much as a pass takes away."""
    before = None
    while True:
        left = 0
        for target, side in zip(targets, sides):
            outcome = settle(work, target, side, back)
            left += outcome.written + len(outcome.again)
        if left <= _FEW or (before is not None and left >= before):
            return
        before = left


class _TooManyError(Exception):
    """More rows to carry over than may be done while writers are held back."""


def swap(work: Work, targets: Sequence[Target], sides: Sequence[Side], back: bool) -> list[Side]:
    """Exchange all rows of all columns in one transaction, all or none; readers go on, writers wait.

    :raises KeyturnError: ``lock-unavailable``, ``swap-count-wrong``, ``fenced``.
    """
    cap = _carry_cap(targets)
    patience = work.pace.patience(", ".join(str(side.column.table) for side in sides))
    while True:
        settle_all(work, targets, sides, back)
        started = time.perf_counter()
        try:
            with transaction(work.link):
                work.fence.hold(work.link, strong=True)
                work.lock_tables([side.column.table for side in sides])
                locked = time.perf_counter()
                turned = []
                for target, side in zip(targets, sides):
                    _carry(work, target, side, back, cap)
                for target, side in zip(targets, sides):
                    _exchange(work.link, target, side)
                    turned.append(side.turn(work.link))
        except psycopg.Error as error:
            if not is_retryable(error):
                raise
        except _TooManyError:
            pass
        else:
            work.waited_ms += (locked - started) * 1000
            work.held_ms += (time.perf_counter() - locked) * 1000
            return turned
        work.waited_ms += (time.perf_counter() - started) * 1000
        patience.pause()


def _carry_cap(targets: Sequence[Target]) -> int:
    """How many rows may be encrypted while writers wait: fewer where the key of each is derived anew.

    A row is tried under both keys before it is sealed, so it takes about three times as long as sealing does.
    """
    slowest = max((target.seconds_to_seal() for target in targets), default=0.0)
    return max(1, min(_CARRY_ROWS, int(_CARRY_SECONDS / max(3 * slowest, 1e-6))))


def _carry(work: Work, target: Target, side: Side, back: bool, cap: int) -> None:
    rows = Source(target.column, side).after(work.link, None, cap + 1)
    if len(rows) > cap:
        raise _TooManyError
    batch = _Batch(target, side, rows, back)
    batch.write(work.link, frozenset(row.key for row in rows))
    work.written += len(batch.rows)


def _exchange(link: Link, target: Target, side: Side) -> None:
    writer = Writer(target.column, OLD if side.truth == NEW else NEW)
    exchanged, filled = writer.swap(link, side), writer.count(link)
    if exchanged != filled:
        raise KeyturnError(
            "swap-count-wrong",
            f"{exchanged} of {filled} rows would have been exchanged, so none was",
            where=target.place,
            hint="Look for a trigger or rule on the table that suppresses updates",
        )
