# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Coverage: how many rows of each column are under which key, counted by the database and proven by decryption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, explained, snapshot
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.parts import Parts
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, aliased
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import (
    BatchSize,
    join_shadow,
    stream,
)
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

    @property
    def behind_new(self) -> int:
        """Rows that should be under the new key and are not."""
        rows = self.counts.rows
        return rows[OLD] + (rows[PLAINTEXT] if self.target.plaintext != "keep" else 0)

    @property
    def behind_old(self) -> int:
        """Rows that are under the new key and should not be, when going back."""
        return self.counts.rows[NEW] - self.explained_new


def _query(target: Target, side: Shadow) -> sql.Composed:
    table, read = target.column.table, target.cell_type.read
    cell = aliased("c", target.column.name)
    fields: list[sql.Composable] = [sql.SQL("{}::text").format(aliased("c", part.name)) for part in table.key]
    fields.append(read(cell))
    join: sql.Composable = sql.SQL("")
    if side.fact != NONE:
        fields += [read(expression) for expression in side.kept]
        join = join_shadow(table, side)
    return sql.SQL("SELECT {} FROM {} c {} WHERE {} IS NOT NULL{}").format(
        sql.SQL(", ").join(fields), table.identifier, join, cell, target.column.chosen
    )


def _totals(link: Link, target: Target) -> tuple[int, int, int]:
    """Rows of the table, those of them that are meant, and those of these that hold something."""
    column = target.column
    meant = sql.SQL("FILTER (WHERE true{})").format(column.chosen) if column.conditions else sql.SQL("")
    query = sql.SQL("SELECT count(*), count(*) {meant}, count({cell}) {meant} FROM {table} c").format(
        meant=meant, cell=aliased("c", column.name), table=column.table.identifier
    )
    row = link.execute(query, NO_PARAMETERS).fetchone() or (0, 0, 0)
    return int(row[0]), int(row[1]), int(row[2])


def _check_pairs(covered: Covered, side: Shadow, rows: Sequence[tuple[bytes, ...]], judged: Sequence[Judged]) -> None:
    """Compare what the shadow keeps of each row that it is up to date with."""
    target = covered.target
    width = len(target.column.table.key)
    settled = [
        (row[-3], row[-1], kind, plaintext, row[:width])
        for row, (kind, plaintext) in zip(rows, judged)
        if row[-2] is not None and row[-2] == row[-3]
    ]
    others = [row for row in settled if row[0] != row[1]]
    was_before = target.is_adoption and target.shape is not None and side.truth == OLD
    covered.explained_new += sum(1 for row in settled if row[2] == NEW and (was_before or row[0] == row[1]))
    prefer = OLD if side.truth == NEW else NEW
    fitting = (prefer, PLAINTEXT, NEW) if target.is_adoption and target.shape else (prefer, PLAINTEXT)
    keys = [row[4] for row in others] if target.needs_context else ()
    judged_others = target.judge_values([row[1] for row in others], keys, prefer)
    for (_raw, _other, _kind, plaintext, _key), (kind, kept) in zip(others, judged_others):
        if kept != plaintext or kind not in fitting:
            covered.wrong_pairs += 1


def _cover_one(link: Link, target: Target, side: Shadow, pace: Pace, size: BatchSize) -> Covered:
    counts = Counts()
    covered = Covered(target, counts)
    in_table, counts.total, filled = _totals(link, target)
    counts.skipped = in_table - counts.total
    counts.rows[NULL] = counts.total - filled
    pace.begin(str(target.column.table), target.column.name, counts.total)
    width = len(target.column.table.key)
    seen = 0
    has_side = side.fact != NONE
    for rows in stream(link, _query(target, side), size, 3 if has_side else 1):
        keys = [row[:width] for row in rows] if target.needs_context else ()
        judged = target.judge_values([row[width] for row in rows], keys, side.truth if has_side else "")
        for row, (kind, _plaintext) in zip(rows, judged):
            counts.add(kind, row[:width])
        if has_side:
            _check_pairs(covered, side, rows, judged)
        if target.shape is not None:
            counts.paths.update(*(value.frame.paths for _kind, value in judged if isinstance(value, Parts)))
        seen += len(rows)
        pace.did(len(rows))
    target.prefer = counts.settle()
    if seen != filled or sum(counts.rows.values()) != counts.total:
        raise KeyturnError(
            "count-wrong",
            f"the database counts {filled} rows and hands out {seen}",
            where=target.place,
            hint="Check the table's indexes (amcheck) before anything else",
        )
    return covered


def cover(link: Link, targets: Sequence[Target], sides: Sequence[Shadow], pace: Pace, size: BatchSize) -> list[Covered]:
    """The coverage of all columns in one snapshot; nothing is written."""

    def count() -> list[Covered]:
        with snapshot(link, [target.column.table.identifier for target in targets]):
            covered = []
            for target, side in zip(targets, sides):
                with explained(target.place):
                    covered.append(_cover_one(link, target, side, pace, size))
            return covered

    return retrying(pace, ", ".join(target.place for target in targets), count)


def unreadable(target: Target, kind: str, key: tuple[bytes, ...]) -> KeyturnError:
    """The refusal of a row that was written meanwhile and cannot be taken over."""
    counts = Counts(1)
    counts.add(kind, key)
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
