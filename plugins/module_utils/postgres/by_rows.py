# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting over by rows: each row is kept under both keys in a side table; one UPDATE exchanges them all.

There is no mark: a row is settled when its cell equals the one that the side table has as the truth. Nor is there a
trigger, unless writes are to be held back (see ``gate``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, OLD, Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explain,
    is_retryable,
    transaction,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.guard import be_the_writer
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.hold import Hold
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import lock_mode, writer_for
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Patience
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Rows, Source
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadow import Batch, settle_all
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.sides import Side
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.ways import Pairs, ShadowWriter, Way
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Work
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import Writer
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.written import find_undoing, undone

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["ByRows"]

_CARRY_SECONDS = 0.1  # what may be encrypted while writers are held back
_CARRY_ROWS = 1000
_FEW = 60  # rows of any width that fit into memory


class _SideWriter(ShadowWriter):
    """Writes to a column and its side table."""

    def __init__(self, target: Target, side: Side) -> None:
        self._side = side
        self._writer = writer_for(target.column, side.schema, side.truth)
        self._truth_is_new = side.truth == NEW

    def begin(self, link: Link) -> None:
        """The gate lets the rotator pass."""
        if self._side.has_gate:
            be_the_writer(link)

    def write_ciphered(self, link: Link, pairs: Pairs) -> int:
        """The table's own rows only where they are under the wrong key."""
        truths = pairs.under_new if self._truth_is_new else pairs.under_old
        wrong = [place for place, raw in enumerate(pairs.rows.raws) if raw != truths[place]]
        raced = 0
        if wrong:
            rows = pairs.rows.pick(wrong)
            raced = len(wrong) - self._writer.replace_cells(link, rows, [truths[place] for place in wrong])
        self._writer.put_pairs(link, self._side, pairs.rows, pairs.under_old, pairs.under_new)
        return raced

    def write_plain(self, link: Link, rows: Rows, under_new: Sequence[bytes]) -> int:
        """Guarded by the version of the row."""
        self._writer.copy_pairs(link, self._side, rows, under_new)
        return len(rows) - self._writer.replace_versions(link, rows, under_new) if self._truth_is_new else 0

    def write_sent(self, link: Link, pairs: Pairs) -> int:
        """Sent by COPY."""
        truths, name = (pairs.under_new, "k1") if self._truth_is_new else (pairs.under_old, "k0")
        self._writer.stage(link, pairs.rows, k0=pairs.under_old, k1=pairs.under_new)
        self._writer.put_staged(link, self._side)
        wrong = sum(1 for raw, truth in zip(pairs.rows.raws, truths) if raw != truth)
        return wrong - self._writer.replace_staged(link, name) if wrong else 0

    def write_kept(self, link: Link, rows: Rows) -> None:
        """Copied by the server."""
        self._writer.copy_pairs(link, self._side, rows, None)


class _TooManyError(Exception):
    """More rows to carry over than may be done while writers are held back."""


class ByRows(Way):
    """The way ``rows``. Readers go on during the swap, writers wait."""

    name: ClassVar[str] = "rows"

    def none(self, schema: str, column: Column) -> Side:
        """No side table."""
        return Side(schema, column)

    def writer(self, target: Target, shadow: Shadow) -> _SideWriter:
        """Writes to the side table."""
        return _SideWriter(target, _side(shadow))

    def check(self, link: Link, targets: Sequence[Target], covered: Sequence[Covered]) -> None:
        """Any table will do."""

    def close(self, work: Work, targets: Sequence[Target], shadows: Sequence[Shadow]) -> list[Shadow]:
        """Statistics of the keys make the swap's join a good one."""
        settle_all(work, self, targets, shadows, back=False)
        for shadow in shadows:
            work.link.execute(sql.SQL("ANALYZE {}").format(_side(shadow).identifier), NO_PARAMETERS)
        return list(shadows)

    def swap(
        self, work: Work, targets: Sequence[Target], shadows: Sequence[Shadow], back: bool, hold: Hold
    ) -> list[Shadow]:
        """One UPDATE for each column, in one transaction.

        :raises KeyturnError: ``lock-unavailable``, ``swap-count-wrong``, ``trigger-rewrites``, ``fenced``,
            ``writes-not-held``, and what the database says, with the tables.
        """
        sides = [_side(shadow) for shadow in shadows]
        tables = ", ".join(sorted({str(side.column.table) for side in sides}))
        cap = _carry_cap(targets)
        patience: Patience | None = None
        while True:
            settle_all(work, self, targets, sides, back)
            patience = patience or work.pace.patience(tables)
            hold.start()
            started = time.perf_counter()
            try:
                with transaction(work.link):
                    work.fence.hold(work.link, strong=True)
                    work.lock_tables([side.column.table for side in sides], lock_mode(side.column for side in sides))
                    locked = time.perf_counter()
                    be_the_writer(work.link)
                    for target, side in zip(targets, sides):
                        self._carry(work, target, side, back, cap)
                    _exchange_all(work.link, targets, sides)
                    turned = [side.turn(work.link) for side in sides]
                    if hold.is_wanted:  # now that the rows are swapped: a trigger would fire for each of them
                        turned = [side.with_gate(work.link) for side in turned]
                        hold.take()
            except psycopg.Error as error:
                if not is_retryable(error):
                    raise explain(error, tables) from None
            except _TooManyError:
                pass
            else:
                hold.keep()
                work.waited_ms += (locked - started) * 1000
                work.held_ms += (time.perf_counter() - locked) * 1000
                return list(turned)
            hold.give_back()
            work.waited_ms += (time.perf_counter() - started) * 1000
            patience.pause()

    def _carry(self, work: Work, target: Target, side: Side, back: bool, cap: int) -> None:
        source, most = Source(target.column, side), min(cap, _FEW)
        rows = source.some(work.link, most + 1)
        if len(rows) > most < cap:
            fitting = work.batch_bytes * len(rows) // max(1, sum(map(len, rows.raws)))
            most = min(cap, max(most, fitting))
            rows = source.some(work.link, most + 1)
        if len(rows) > most:
            raise _TooManyError
        batch = Batch(self, target, side, rows, back)
        batch.write(work.link, None)
        work.written += len(batch.rows)


def _side(shadow: Shadow) -> Side:
    if not isinstance(shadow, Side):
        raise TypeError(f"{shadow.column} has no side table")
    return shadow


def _carry_cap(targets: Sequence[Target]) -> int:
    """How many rows may be encrypted while writers wait: fewer where the key of each is derived anew.

    A row is tried under both keys before it is sealed, so it takes about three times as long as sealing does.
    """
    slowest = max((target.seconds_to_seal() for target in targets), default=0.0)
    return max(1, min(_CARRY_ROWS, int(_CARRY_SECONDS / max(3 * slowest, 1e-6))))


def _exchange_all(link: Link, targets: Sequence[Target], sides: Sequence[Side]) -> None:
    """Every cell of every column, and then, where something may have undone it, a look at what the tables hold."""
    exchanged = [_exchange(link, target, side) for target, side in zip(targets, sides)]
    undoing = {table.oid: find_undoing(link, table) for table in {target.column.table for target in targets}}
    if any(undoing.values()):
        link.execute("SET CONSTRAINTS ALL IMMEDIATE", NO_PARAMETERS)  # what is deferred would come after the look
    for target, side, count in zip(targets, sides, exchanged):
        names = undoing[target.column.table.oid]
        kept = _swapping(target, side).count_swapped(link, side) if names else count
        if kept != count:
            raise undone(target.column, count - kept, count, names)


def _swapping(target: Target, side: Side) -> Writer:
    return writer_for(target.column, side.schema, OLD if side.truth == NEW else NEW)


def _exchange(link: Link, target: Target, side: Side) -> int:
    """One column; how many rows that is."""
    writer = _swapping(target, side)
    try:
        exchanged, filled = writer.swap(link, side), writer.count(link)
    except psycopg.Error as error:
        if is_retryable(error):
            raise
        raise explain(error, target.place) from None
    if exchanged != filled:
        raise KeyturnError(
            "swap-count-wrong",
            f"{exchanged} of {filled} rows would have been exchanged, so none was",
            where=target.place,
            hint="Look for a trigger or rule on the table that suppresses updates",
        )
    return exchanged
