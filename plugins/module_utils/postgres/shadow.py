# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settling a shadow: each row is kept under both keys, in a side table or in a second column.

Content decides what is up to date: a row is settled when its shadow knows its present cell. Settling is filling,
carrying over and sweeping, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import unreadable
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Key, Row, Source
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.ways import Pairs, Way
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Outcome, Work

__all__ = ["Batch", "settle", "settle_all"]

_FEW = 3


class Batch:
    """One batch, judged and encrypted, ready to be written.

    :param back: whether the rotation goes back: nothing may stop it then, so a row that cannot be read stays as it is.
    """

    def __init__(self, way: Way, target: Target, shadow: Shadow, rows: Sequence[Row], back: bool) -> None:
        self._writer = way.writer(target, shadow)
        self._keeps = self._writer.keeps
        self._ciphered = Pairs()  # both cells encrypted
        self._plain = Pairs()  # was plaintext: the server copies it, under_old is not used
        self._sent = Pairs()  # to become plaintext, or with other text around: sent by COPY
        self._kept: list[Row] = []  # the same under both keys
        self._truth_is_new = shadow.truth == NEW
        by_class: dict[str, tuple[list[Row], list[Content]]] = {}
        keys = [row.key for row in rows] if target.needs_context else ()
        judged = target.judge_values([row.raw for row in rows], keys, shadow.truth)
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
            self._kept = rows if self._keeps else []
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

    def write(self, link: Link, keys: frozenset[Key] | None) -> int:
        """Write the rows with these keys (None for all); how many of the table's own somebody else had changed."""
        writer, raced = self._writer, 0
        writer.begin(link)
        ciphered = self._ciphered.only(keys)
        if ciphered.rows:
            raced += writer.write_ciphered(link, ciphered)
        plain = self._plain.only(keys)
        if plain.rows:
            raced += writer.write_plain(link, plain.rows, plain.under_new)
        sent = self._sent.only(keys)
        if sent.rows:
            raced += writer.write_sent(link, sent)
        kept = [row for row in self._kept if keys is None or row.key in keys]
        if kept:
            writer.write_kept(link, kept)
        return raced


def settle(work: Work, way: Way, target: Target, shadow: Shadow, back: bool, everything: bool = False) -> Outcome:
    """One pass: every row whose shadow is behind is put right, in the table and in the shadow.

    :param everything: the other rows too, by this host alone: their shadow is not to be trusted.
    """

    def one(link: Link, rows: list[Row]) -> Outcome:
        batch = Batch(way, target, shadow, rows, back)
        outcome = work.write(link, target, batch.rows, batch.write) if batch.rows else Outcome()
        outcome.seen = len(rows)
        return outcome

    return work.run(target, Source(target.column, None if everything else shadow), one, is_shared=not everything)


def settle_all(work: Work, way: Way, targets: Sequence[Target], shadows: Sequence[Shadow], back: bool) -> None:
    """Passes over all columns until hardly anything is left to do, or writers add as much as a pass takes away."""
    before = None
    while True:
        left = 0
        for target, shadow in zip(targets, shadows):
            outcome = settle(work, way, target, shadow, back)
            left += outcome.written + len(outcome.again) + outcome.elsewhere
        if left <= _FEW or (before is not None and left >= before):
            return
        before = left
