# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Coverage: how many rows of each column are under which key, counted by the database and proven by decryption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import (
    NEW,
    NULL,
    OLD,
    PLAINTEXT,
    UNKNOWN,
    Counts,
    Judged,
    Target,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
    joined,
    may_be_idle,
    snapshot,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import (
    BatchSize,
    Pages,
    Reading,
    Window,
    finer_at_the_end,
    page_ranges,
    windows,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.parts import Parts
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, aliased
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Key, Rows, join_shadow, read_key
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import NONE, Shadow

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Covered", "check_first", "cover", "unreadable"]


@dataclass
class Covered:
    """The coverage of one column.

    :param explained_new: rows under the new key that were so before the first encryption.
    :param wrong_pairs: rows whose cell under the other key does not hold the same plaintext.
    """

    target: Target
    counts: Counts
    explained_new: int = 0
    wrong_pairs: int = 0

    def plain(self) -> tuple[Any, ...]:
        """Built of plain types, for another process."""
        counts = self.counts
        return (
            counts.total,
            counts.either,
            list(counts.paths),
            counts.rows,
            counts.unknown_keys,
            counts.plaintext_keys,
            self.explained_new,
            self.wrong_pairs,
        )

    def add(self, plain: tuple[Any, ...]) -> int:
        """Add what :meth:`plain` gave; how many rows that is."""
        total, either, paths, rows, unknown, plaintext, explained_new, wrong_pairs = plain
        self.counts.add(Counts(total, 0, either, set(paths), rows, unknown, plaintext))
        self.explained_new += explained_new
        self.wrong_pairs += wrong_pairs
        return int(total)

    @property
    def behind_new(self) -> int:
        """Rows that should be under the new key and are not."""
        rows = self.counts.rows
        return rows[OLD] + (rows[PLAINTEXT] if self.target.plaintext != "keep" else 0)

    @property
    def behind_old(self) -> int:
        """Rows that are under the new key and should not be, when going back."""
        return self.counts.rows[NEW] - self.explained_new


def _reading(target: Target, side: Shadow) -> Reading:
    """The key, the cell, and what the shadow keeps of it (as it knows the cell, and under the other key)."""
    table, read = target.column.table, target.cell_type.read
    cell = aliased("c", target.column.name)
    fields = [*read_key(table), read(cell)]
    join: sql.Composable = sql.SQL("")
    if side.fact != NONE:
        fields += [target.cell_type.read_kept(expression) for expression in side.kept]
        join = join_shadow(table, side)
    where = sql.SQL("{} IS NOT NULL{}").format(cell, target.column.chosen)
    return Reading(fields, range(len(table.key), len(fields)), join, where, target.cell_type.lies_apart)


def _totals(link: Link, target: Target) -> tuple[int, int, int]:
    """Rows of the table, those of them that are meant, and those of these that hold something."""
    column = target.column
    meant = sql.SQL("FILTER (WHERE true{})").format(column.chosen) if column.conditions else sql.SQL("")
    query = sql.SQL("SELECT count(*), count(*) {meant}, count({cell}) {meant} FROM {table} c").format(
        meant=meant, cell=aliased("c", column.name), table=column.table.identifier
    )
    row = link.execute(query, NO_PARAMETERS).fetchone() or (0, 0, 0)
    return int(row[0]), int(row[1]), int(row[2])


def _check_pairs(covered: Covered, side: Shadow, rows: Rows, window: Window, judged: Judged) -> None:
    """Compare what the shadow keeps of each row that it is up to date with."""
    target = covered.target
    at = len(target.column.table.key) + 1
    raws, known, kept = rows.raws, window.nullable(at), window.column(at + 1)
    settled = [place for place, raw in enumerate(raws) if known[place] == raw]
    others = [place for place in settled if kept[place] != raws[place]]
    was_before = target.is_adoption and target.shape is not None and side.truth == OLD
    explained_new = set(settled) if was_before else set(settled) - set(others)
    covered.explained_new += sum(1 for place in explained_new if judged.kinds[place] == NEW)
    prefer = OLD if side.truth == NEW else NEW
    fitting = (prefer, PLAINTEXT, NEW) if target.is_adoption and target.shape else (prefer, PLAINTEXT)
    keys = rows.pick(others).keys if target.needs_context else ()
    kinds, contents = target.judge_values([kept[place] for place in others], keys, prefer)
    for place, kind, content in zip(others, kinds, contents):
        if content != judged.contents[place] or kind not in fitting:
            covered.wrong_pairs += 1


def _cover_pages(link: Link, pages: Pages, target: Target, side: Shadow, size: BatchSize) -> Covered:
    """The rows of some pages."""
    covered = Covered(target, Counts())
    counts, has_side = covered.counts, side.fact != NONE
    for window in windows(link, pages, _reading(target, side), size):
        rows = Rows(window, target.column.table.key)
        may_be_idle(link, target.seconds_to_open(len(rows)))
        keys = rows.keys if target.needs_context else ()
        judged = target.judge_values(rows.raws, keys, side.truth if has_side else "")
        counts.add_many(judged.kinds, partial(_told, target, rows))
        if has_side:
            _check_pairs(covered, side, rows, window, judged)
        if target.shape is not None:
            counts.paths.update(*(value.frame.paths for value in judged.contents if isinstance(value, Parts)))
        counts.total += len(rows)
    return covered


def _told(target: Target, rows: Rows) -> list[Key]:
    """The keys as a message tells them."""
    return target.cell_type.told(rows.keys, rows.raws)


def _cover_one(crew: Crew, moment: str, target: Target, side: Shadow, pace: Pace, size: BatchSize) -> Covered:
    covered = Covered(target, Counts())
    counts, in_table, total, filled = covered.counts, 0, 0, 0
    pace.begin(str(target.column.table), target.column.name, 0)
    size = size.limited(target.rows_a_second())
    target.ask_again()

    def count(link: Link, pages: Pages | None) -> tuple[bool, tuple[Any, ...]]:
        with explained(target.place):
            if pages is None:
                return True, _totals(link, target)
            return False, _cover_pages(link, pages, target, side, size).plain()

    ranges = page_ranges(crew.first, target.column.table, size.window_rows)
    parts = [None, *finer_at_the_end(ranges, crew.workers)]  # the database counts while the first rows are opened
    done = crew.each(count, parts, lambda link: joined(link, moment))
    for is_count, plain in done if len(ranges) > 1 else (count(crew.first, part) for part in parts):
        if is_count:
            in_table, total, filled = plain
            pace.expect(total)
        else:
            pace.did(covered.add(plain))
    counts.skipped = in_table - total
    counts.rows[NULL] += total - filled
    seen, counts.total = counts.total, total
    target.prefer = counts.settle()
    if seen != filled or sum(counts.rows.values()) != counts.total:
        raise KeyturnError(
            "count-wrong",
            f"the database counts {filled} rows and hands out {seen}",
            where=target.place,
            hint="Check the table's indexes (amcheck) before anything else",
        )
    return covered


def cover(crew: Crew, targets: Sequence[Target], sides: Sequence[Shadow], pace: Pace, size: BatchSize) -> list[Covered]:
    """The coverage of all columns in one snapshot; nothing is written."""

    def count() -> list[Covered]:
        with snapshot(crew.first, [target.column.table.identifier for target in targets]) as moment:
            covered = []
            for target, side in zip(targets, sides):
                with explained(target.place):
                    covered.append(_cover_one(crew, moment, target, side, pace, size))
            return covered

    return retrying(pace, ", ".join(target.place for target in targets), count)


def unreadable(target: Target, kind: str, key: tuple[bytes, ...]) -> KeyturnError:
    """The refusal of a row that was written meanwhile and cannot be taken over."""
    counts = Counts(1)
    counts.add_many([kind], partial(list, (key,)))
    return _refuse_rows(target, counts, kind, "Find out who writes such rows, then run again")


def _unknown_text(counts: Counts) -> str:
    if not counts.either:
        return "open under neither key"
    return "open under neither key, or under both by chance while the column holds cells of each"


def _refuse_rows(target: Target, counts: Counts, kind: str, hint: str) -> KeyturnError:
    code, what, keys = {
        UNKNOWN: ("rows-unknown", _unknown_text(counts), counts.unknown_keys),
        PLAINTEXT: ("rows-plaintext", "are not encrypted", counts.plaintext_keys),
    }[kind]
    message = f"{counts.rows[kind]} of {counts.total} rows {what} (primary keys: {'; '.join(keys)})"
    return KeyturnError(code, message, where=target.place, hint=hint)


def check_first(covered: Sequence[Covered]) -> None:
    """Refuse to begin where a row cannot be read, or where there is nothing to read.

    :raises KeyturnError: ``rows-unknown``, ``rows-plaintext``, ``rows-none``, ``path-unmatched``.
    """
    for one in covered:
        counts, target = one.counts, one.target
        if counts.rows[UNKNOWN]:
            hint = "Check the old key and the envelope, or repair these rows. Nothing was written"
            raise _refuse_rows(target, counts, UNKNOWN, hint)
        if counts.rows[PLAINTEXT] and target.plaintext == "refuse":
            hint = "Say plaintext: encrypt or plaintext: keep. Nothing was written"
            raise _refuse_rows(target, counts, PLAINTEXT, hint)
    for one in covered:
        if one.counts.total and not one.target.may_be_empty:
            _check_paths(one)
        if one.counts.total == one.counts.rows[NULL] and not one.target.may_be_empty:
            raise KeyturnError(
                "rows-none",
                "holds no value at all" if one.target.shape is None else "holds no encrypted value of this shape",
                where=one.target.place,
                hint="Check the database, the schema and the names, or say may_be_empty: true",
            )


def _check_paths(covered: Covered) -> None:
    """Refuse a path that leads nowhere in any row: it is likely mistyped."""
    shape = covered.target.shape
    for number, path in enumerate(shape.paths if shape else ()):
        if number not in covered.counts.paths:
            where, hint = f"{covered.target.place} {path}", "Check the path, or say may_be_empty: true"
            raise KeyturnError("path-unmatched", "no row has anything at this path", where=where, hint=hint)
