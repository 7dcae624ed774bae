# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settling a shadow: each row is kept under both keys, in a side table or in a second column.

Content decides what is up to date: a row is settled when its shadow knows its present cell. Settling is filling,
carrying over and sweeping, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import (
    EITHER,
    NEW,
    OLD,
    PLAINTEXT,
    UNKNOWN,
    Content,
    Target,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import unreadable
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Key, Rows, Source
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.ways import Pairs, Way
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Later, Outcome, Work

__all__ = ["Batch", "settle", "settle_all"]

_FEW = 3


@dataclass
class _Found:
    """Rows of a batch, by their places, with their cell under both keys."""

    places: list[int] = field(default_factory=list)
    under_old: list[bytes] = field(default_factory=list)
    under_new: list[bytes] = field(default_factory=list)

    def add(self, places: Sequence[int], under_old: Sequence[bytes], under_new: Sequence[bytes]) -> None:
        """Append."""
        self.places += places
        self.under_old += under_old
        self.under_new += under_new

    def pairs(self, rows: Rows) -> Pairs:
        """The same with the rows themselves."""
        return Pairs(rows.pick(self.places), self.under_old, self.under_new)


class Batch:
    """One batch, judged and encrypted, ready to be written.

    :param back: whether the rotation goes back: nothing may stop it then, so a row that cannot be read stays as it is.
    """

    def __init__(self, way: Way, target: Target, shadow: Shadow, rows: Rows, back: bool) -> None:
        self._writer = way.writer(target, shadow)
        self._ciphered = _Found()  # both cells encrypted
        self._plain = _Found()  # was plaintext: the server copies it, under_old is not used
        self._sent = _Found()  # to become plaintext, or with other text around: sent by COPY
        self._kept: list[int] = []  # the same under both keys
        self._truth_is_new = shadow.truth == NEW
        self._read = rows
        by_class: dict[str, tuple[list[int], list[Content]]] = {}
        kinds, contents = target.judge_values(rows.raws, rows.keys if target.needs_context else (), shadow.truth)
        for place, (kind, content) in enumerate(zip(kinds, contents)):
            group = by_class.setdefault(self._group(target, back, place, kind), ([], []))
            group[0].append(place)
            group[1].append(b"" if content is None else content)
        for group_name, (places, texts) in by_class.items():
            self._prepare(target, group_name, places, texts)
        chosen = [*self._ciphered.places, *self._plain.places, *self._sent.places, *self._kept]
        self.rows = rows.pick(chosen)  # those to write

    def _group(self, target: Target, back: bool, place: int, kind: str) -> str:
        if kind in (UNKNOWN, EITHER) or (kind == PLAINTEXT and target.plaintext == "refuse"):
            if not back:
                raise unreadable(target, kind, self._read.keys[place])
            return "keep"
        if kind == PLAINTEXT:
            return PLAINTEXT if target.plaintext == "encrypt" else "keep"
        if kind == NEW and target.is_adoption:
            if back:
                return "bare"
            return "skip" if self._truth_is_new else "keep"
        return kind if kind in (NEW, OLD) else "keep"

    def _prepare(self, target: Target, group: str, places: list[int], texts: list[Content]) -> None:
        rows = self._read.pick(places)
        keys = rows.keys if target.needs_context else ()
        if group == "keep":
            self._kept = places if self._writer.keeps else []
        elif group == "bare":
            self._sent.add(places, target.bare_values(texts), rows.raws)
        elif group == "skip":
            return
        elif target.shape is not None:
            under_old = target.seal_values(OLD, texts, keys)
            self._sent.add(places, under_old, target.seal_values(NEW, texts, keys))
        elif group == OLD:
            self._ciphered.add(places, rows.raws, target.seal_values(NEW, texts, keys))
        elif group == NEW:
            self._ciphered.add(places, target.seal_values(OLD, texts, keys), rows.raws)
        elif group == PLAINTEXT:
            self._plain.add(places, rows.raws, target.seal_values(NEW, texts, keys))

    def write(self, link: Link, keys: frozenset[Key] | None) -> int:
        """Write the rows with these keys (None for all); how many of the table's own somebody else had changed."""
        writer, raced = self._writer, 0
        writer.begin(link)
        ciphered = self._ciphered.pairs(self._read).only(keys)
        if ciphered.rows:
            raced += writer.write_ciphered(link, ciphered)
        plain = self._plain.pairs(self._read).only(keys)
        if plain.rows:
            raced += writer.write_plain(link, plain.rows, plain.under_new)
        sent = self._sent.pairs(self._read).only(keys)
        if sent.rows:
            raced += writer.write_sent(link, sent)
        kept = self._read.pick(self._kept)
        kept = kept if keys is None else kept.pick(kept.places(keys))
        if kept:
            writer.write_kept(link, kept)
        return raced


def settle(work: Work, way: Way, target: Target, shadow: Shadow, back: bool, everything: bool = False) -> Outcome:
    """One pass: every row whose shadow is behind is put right, in the table and in the shadow.

    :param everything: the other rows too, by this host alone: their shadow is not to be trusted.
    """

    def one(link: Link, rows: Rows) -> Later:
        batch = Batch(way, target, shadow, rows, back)

        def write() -> Outcome:
            outcome = work.write(link, target, batch.rows, batch.write) if batch.rows else Outcome()
            outcome.seen = len(rows)
            return outcome

        return write

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
