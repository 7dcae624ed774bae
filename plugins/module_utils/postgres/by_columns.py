# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting over by columns: a second column, filled online and kept true by a trigger; both change their names.

Tables are locked against all for that moment, of the same length whatever their size. Rows that are behind go over as
they are, under the former key, and are swept.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import TextArray
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.carried import (
    Carried,
    default_of,
    read_carried,
    read_versions,
    read_views,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.columns import (
    ShadowColumn,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    is_retryable,
    transaction,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.dependants import find_refusals, refuse
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.guard import be_the_writer
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.hold import Hold
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Patience, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Rows, join_on_key
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadow import settle, settle_all
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.snapshots import wait_for_snapshots
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.ways import Pairs, ShadowWriter, Way
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Work
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import VERSION, Writer
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.written import asking, written

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["ByColumns"]


class _ColumnWriter(Writer, ShadowWriter):
    """Writes both columns of a row in one statement."""

    def __init__(self, target: Target, shadow: ShadowColumn) -> None:
        super().__init__(target.column)
        self._shadow = identifier(shadow.name)
        self._truth_is_new = shadow.truth == NEW
        self.keeps = not shadow.is_closed

    def begin(self, link: Link) -> None:
        """The guard lets the rotator's own values pass."""
        be_the_writer(link)

    def _assign(
        self,
        values: Sequence[tuple[sql.Composable, sql.Composable]],
        source: sql.Composable,
        guard: sql.Composable,
        meant: sql.Composable | None,
    ) -> sql.Composed:
        """The statement; ``meant`` is what the first column is to hold after it, where we know."""
        update = sql.SQL("UPDATE {} c SET {} FROM {} WHERE {}").format(
            self._table.identifier,
            sql.SQL(", ").join([sql.SQL("{} = {}").format(column, value) for column, value in values]),
            source,
            guard,
        )
        return asking(self._column, update, sql.SQL("true") if meant is None else self._is(meant))

    def _guarded(self, alias: str, guard: sql.Composable) -> sql.Composable:
        return sql.SQL("{} AND {}").format(join_on_key(self._table, alias, is_text=True), guard)

    def _version_guard(self) -> sql.Composable:
        return self._guarded("u", sql.SQL(VERSION))

    def write_ciphered(self, link: Link, pairs: Pairs) -> int:
        """The first column only where it is under the wrong key; a big value that stays is not copied."""
        truths, others = pairs.under_old, pairs.under_new
        if self._truth_is_new:
            truths, others = others, truths
        raced = 0
        for is_wrong in (False, True):
            at = [place for place, raw in enumerate(pairs.rows.raws) if (raw != truths[place]) is is_wrong]
            if at:
                raced += len(at) - self._write_pairs(link, pairs, truths if is_wrong else None, others, at)
        return raced

    def _write_pairs(
        self, link: Link, pairs: Pairs, truths: Sequence[bytes] | None, others: Sequence[bytes], at: Sequence[int]
    ) -> int:
        kind = self._cells.array_sql
        names = [("o", kind), ("s", kind)]
        values = [(self._shadow, self._cells.value(aliased("u", "s")))]
        rows = pairs.rows.pick(at)
        arrays: list[TextArray] = rows.key_arrays
        arrays.append(self._cells.array(rows.raws))
        arrays.append(self._cells.array([others[place] for place in at]))
        if truths is not None:
            names.append(("t", kind))
            values.append((self._column.identifier, self._cells.value(aliased("u", "t"))))
            arrays.append(self._cells.array([truths[place] for place in at]))
        meant = self._cells.value(aliased("u", "o" if truths is None else "t"))
        query = self._assign(values, self._list(names), self._guarded("u", self._same_cell("u")), meant)
        return written(self._column, link.execute(query, arrays))

    def write_plain(self, link: Link, rows: Rows, under_new: Sequence[bytes]) -> int:
        """Guarded by the version of the row; what is in clear is copied by the server."""
        text = sql.SQL("text[]")
        new = self._cells.value(aliased("u", "n"))
        values = [(self._shadow, new)]
        if self._truth_is_new:
            values = [(self._column.identifier, new), (self._shadow, self._cell)]
        listed = self._list([("x", text), ("v", text), ("n", self._cells.array_sql)])
        query = self._assign(values, listed, self._version_guard(), new if self._truth_is_new else None)
        ran = link.execute(query, [*self._versions(rows), self._cells.array(under_new)])
        return len(rows) - written(self._column, ran)

    def write_sent(self, link: Link, pairs: Pairs) -> int:
        """Cells that were in clear before the first encryption; sent by COPY. Values of several are refused."""
        rows = pairs.rows
        self.stage(link, rows, n=pairs.under_old)
        plain = self._cells.value(aliased("n", "n"))
        values = [(self._shadow, plain)]
        if not self._truth_is_new:
            values = [(self._column.identifier, plain), (self._shadow, self._cell)]
        staged = sql.SQL("pg_temp.keyturn_plain n")
        meant = self._cells.value(aliased("n", "o")) if self._truth_is_new else plain
        query = self._assign(values, staged, self._guarded("n", self._same_cell("n")), meant)
        return len(rows) - written(self._column, link.execute(query, NO_PARAMETERS))

    def write_kept(self, link: Link, rows: Rows) -> None:
        """Such as empty cells: copied by the server where nothing is there yet."""
        text = sql.SQL("text[]")
        is_empty = sql.SQL("{} AND c.{} IS NULL").format(self._version_guard(), self._shadow)
        query = self._assign([(self._shadow, self._cell)], self._list([("x", text), ("v", text)]), is_empty, None)
        link.execute(query, self._versions(rows))


class ByColumns(Way):
    """The way ``columns``. Everybody waits for the swap, some milliseconds at any size."""

    name: ClassVar[str] = "columns"
    proves_fill: ClassVar[bool] = True  # the swap itself compares nothing

    def none(self, schema: str, column: Column) -> ShadowColumn:
        """No second column."""
        return ShadowColumn(schema, column)

    def writer(self, target: Target, shadow: Shadow) -> _ColumnWriter:
        """Writes to both columns."""
        return _ColumnWriter(target, _second(shadow))

    def check(self, link: Link, targets: Sequence[Target], covered: Sequence[Covered]) -> None:
        """Everything that depends on the column is carried over, or refused by name.

        :raises KeyturnError: ``columns-refused``.
        """
        counted = {one.target.place: one for one in covered}
        found = [(target.place, find_refusals(link, target, counted.get(target.place))) for target in targets]
        error = refuse(found)
        if error is not None:
            raise error

    def close(self, work: Work, targets: Sequence[Target], shadows: Sequence[Shadow]) -> list[Shadow]:
        """Then the database itself checks that no row is without, and forbids it from then on."""
        closed = [self.restored(work, target, shadow, back=False) for target, shadow in zip(targets, shadows)]
        settle_all(work, self, targets, closed, back=False)
        return [self._close(work, target, shadow) for target, shadow in zip(targets, closed)]

    def _close(self, work: Work, target: Target, shadow: ShadowColumn) -> ShadowColumn:
        """Without a long lock: the check is added unproven, proven while traffic goes on, and then relied on."""
        if shadow.is_closed:
            return shadow
        link, table = work.link, shadow.column.table.identifier
        query = "SELECT attnotnull FROM pg_attribute WHERE attrelid = %s::bigint::oid AND attname = %s"
        row = link.execute(query, (shadow.column.table.oid, shadow.column.name)).fetchone()
        must_not_be_null = bool(row and row[0])
        names = {
            "table": table,
            "check": identifier(shadow.check_name),
            "shadow": identifier(shadow.name),
            "column": shadow.column.identifier,
        }
        condition = "{shadow} IS NOT NULL" if must_not_be_null else "({column} IS NULL) = ({shadow} IS NULL)"
        add = "ALTER TABLE {table} ADD CONSTRAINT {check} CHECK (" + condition + ") NOT VALID"
        steps = [
            ["ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}", add],
            ["ALTER TABLE {table} VALIDATE CONSTRAINT {check}"],
        ]
        if must_not_be_null:
            forbid = "ALTER TABLE {table} ALTER {shadow} SET NOT NULL"
            steps.append([forbid, "ALTER TABLE {table} DROP CONSTRAINT {check}"])
        patience: Patience | None = None
        while True:
            try:
                for step in steps:
                    _alter(work, shadow, [sql.SQL(statement).format(**names) for statement in step])
                break
            except psycopg.errors.CheckViolation:  # a row that somebody held during all passes
                patience = patience or work.pace.patience(target.place)
                patience.pause()
                settle_all(work, self, [target], [shadow], back=False)
        analyze = sql.SQL("ANALYZE {} ({})").format(table, names["shadow"])
        retrying(work.pace, f"statistics of {target.place}", lambda: link.execute(analyze, NO_PARAMETERS))
        return replace(shadow, is_closed=True)

    def completed(self, work: Work, target: Target, shadow: Shadow, back: bool) -> Shadow:
        """For a sweep: as :meth:`restored` where the trigger is away now. What it missed before, the count tells."""
        return shadow if _second(shadow).guard.seal(work.link) else self.restored(work, target, shadow, back)

    def restored(self, work: Work, target: Target, shadow: Shadow, back: bool) -> ShadowColumn:
        """Where the trigger was away for a while: make it again, and every shadow too."""
        link, shadow = work.link, _second(shadow)
        if shadow.guard.seal(link) == shadow.seal:
            return shadow

        def attach() -> str:
            with transaction(link):
                work.fence.hold(link, strong=True)
                work.stop_vacuum([shadow.column.table])
                shadow.guard.write_function(link, shadow.name, default_of(link, shadow.column))
                shadow.guard.attach(link)
                return shadow.guard.seal(link)

        seal = retrying(work.pace, f"trigger of {target.place}", attach)
        again = settle(work, self, target, shadow, back, everything=True).again
        patience = work.pace.patience(target.place)
        while again:
            patience.pause()
            again = settle(work, self, target, shadow, back, everything=True).again
        restored = replace(shadow, seal=seal)

        def note() -> None:
            with transaction(link):
                work.fence.hold(link, strong=True)
                restored.write_note(link)

        retrying(work.pace, f"comment on {target.place}", note)
        return restored

    def swap(
        self, work: Work, targets: Sequence[Target], shadows: Sequence[Shadow], back: bool, hold: Hold
    ) -> list[Shadow]:
        """All columns in one transaction.

        :raises KeyturnError: ``lock-unavailable``, ``snapshots-old``, ``columns-refused``, ``fenced``,
            ``writes-not-held``.
        """
        if not back:
            self.check(work.link, targets, [])
        tables = [shadow.column.table for shadow in shadows]
        seconds = [_second(shadow) for shadow in shadows]
        patience: Patience | None = None
        while True:
            seconds = [self.restored(work, target, second, back) for target, second in zip(targets, seconds)]
            settle_all(work, self, targets, seconds, back)
            if not back:
                seconds = [self._close(work, target, second) for target, second in zip(targets, seconds)]
                if not all(second.swapped for second in seconds):
                    # who has one from before the fill would read nothing at all after the renaming
                    wait_for_snapshots(work, "the fill")
            patience = patience or work.pace.patience(", ".join(sorted({str(table) for table in tables})))
            hold.start()
            started = time.perf_counter()
            try:
                with transaction(work.link):
                    work.fence.hold(work.link, strong=True)
                    bound = _Bound.read(work.link, seconds)
                    work.lock_tables(tables, "ACCESS EXCLUSIVE")
                    locked = time.perf_counter()
                    is_true = all(second.guard.seal(work.link) == second.seal for second in seconds)
                    turned = _exchange(work.link, seconds, bound.fresh(work.link, seconds)) if is_true else []
                    if is_true:
                        hold.take()
            except psycopg.Error as error:
                if not is_retryable(error):
                    raise
            else:
                if is_true:
                    hold.keep()
                    work.waited_ms += (locked - started) * 1000
                    work.held_ms += (time.perf_counter() - locked) * 1000
                    return list(turned)
            hold.give_back()
            work.waited_ms += (time.perf_counter() - started) * 1000
            patience.pause()


def _second(shadow: Shadow) -> ShadowColumn:
    if not isinstance(shadow, ShadowColumn):
        raise TypeError(f"{shadow.column} has no second column")
    return shadow


def _alter(work: Work, shadow: ShadowColumn, statements: Sequence[sql.Composed]) -> None:
    def attempt() -> None:
        with transaction(work.link):
            work.fence.hold(work.link, strong=True)
            work.stop_vacuum([shadow.column.table])
            whole_tables(work.link)
            for statement in statements:
                work.link.execute(statement, NO_PARAMETERS)

    retrying(work.pace, "second column", attempt)


@dataclass(frozen=True)
class _Bound:
    """What is bound to the names of columns: views, and what is said about each column.

    :param versions: changes with them, and costs less to read.
    """

    versions: list[str]
    views: list[sql.Composed]
    said: list[list[Carried]]

    @classmethod
    def read(cls, link: Link, shadows: Sequence[ShadowColumn]) -> _Bound:
        columns = [shadow.column for shadow in shadows]
        versions = read_versions(link, columns)
        return cls(versions, read_views(link, columns), [read_carried(link, column) for column in columns])

    def fresh(self, link: Link, shadows: Sequence[ShadowColumn]) -> _Bound:
        """The same, read again only where it has changed."""
        current = read_versions(link, [shadow.column for shadow in shadows])
        return self if current == self.versions else _Bound.read(link, shadows)


def _exchange(link: Link, shadows: Sequence[ShadowColumn], bound: _Bound) -> list[ShadowColumn]:
    """All that is bound to the names goes with them, in one message to the server: everybody waits meanwhile."""
    turned = []
    with link.pipeline() if psycopg.Pipeline.is_supported() else contextlib.nullcontext():
        for shadow, carried in zip(shadows, bound.said):
            one = shadow.turn(link)
            one.guard.write_function(link, one.name, carried[0].default if carried else None)
            for relation in carried:
                relation.give(link, one.column.name, one.name)
            one.write_note(link)
            turned.append(one)
        for view in bound.views:
            link.execute(view, NO_PARAMETERS)
    return turned
