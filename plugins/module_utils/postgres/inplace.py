# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Re-encryption in place, for readers that hold several keys; the same the other way round to go back."""

from __future__ import annotations

from typing import cast

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import (
    NEW,
    OLD,
    PLAINTEXT,
    Content,
    Target,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import writer_for
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Key, Row, Source
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tidy import Tidier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Outcome, Work

__all__ = ["re_encrypt"]


class _Batch:
    """One batch, judged and encrypted: the rows to change with what comes in their place."""

    def __init__(self, target: Target, schema: str, rows: list[Row], back: bool) -> None:
        self._writer = writer_for(target.column, schema, OLD if back else NEW)
        keys = [row.key for row in rows] if target.needs_context else ()
        judged = target.judge_values([row.raw for row in rows], keys, target.prefer)
        wanted = NEW if back else OLD
        self.ciphered, plain = [], []
        texts: list[Content] = []
        plain_texts: list[Content] = []
        if {kind for kind, _plaintext in judged} == {wanted}:  # mostly: no step for each row
            self.ciphered, texts, rows = rows, [cast("Content", plaintext) for _kind, plaintext in judged], []
        for row, (kind, plaintext) in zip(rows, judged):
            if plaintext is not None and kind == wanted:
                self.ciphered.append(row)
                texts.append(plaintext)
            elif plaintext is None or kind != PLAINTEXT or back or target.plaintext != "encrypt":
                continue
            elif target.shape is not None:
                self.ciphered.append(row)
                texts.append(plaintext)
            else:
                plain.append(row)
                plain_texts.append(plaintext)
        self.plain = plain
        to_plaintext = back and target.is_adoption
        self.is_staged = to_plaintext or target.shape is not None  # what may hold text in clear is no parameter
        if to_plaintext:
            self._new_cells = target.bare_values(texts)
        else:
            keys = [row.key for row in self.ciphered] if target.needs_context else ()
            self._new_cells = target.seal_values(OLD if back else NEW, texts, keys)
        keys = [row.key for row in plain] if target.needs_context else ()
        self._new_plain = target.seal_values(NEW, plain_texts, keys)

    @property
    def rows(self) -> list[Row]:
        """All rows to change."""
        return [*self.ciphered, *self.plain]

    def write(self, link: Link, keys: frozenset[Key] | None) -> int:
        """Write the rows with these keys (None for all); how many somebody else had changed."""
        rows, raws = _only(self.ciphered, self._new_cells, keys)
        done = 0
        if rows and self.is_staged:
            self._writer.stage(link, rows, n=raws)
            done += self._writer.replace_staged(link, "n")
        elif rows:
            done += self._writer.replace_cells(link, rows, raws)
        plain_rows, plain_raws = _only(self.plain, self._new_plain, keys)
        if plain_rows:
            done += self._writer.replace_versions(link, plain_rows, plain_raws)
        return len(rows) + len(plain_rows) - done


def _only(rows: list[Row], raws: list[bytes], keys: frozenset[Key] | None) -> tuple[list[Row], list[bytes]]:
    if keys is None:
        return rows, raws
    chosen = [(row, raw) for row, raw in zip(rows, raws) if row.key in keys]
    return [row for row, _raw in chosen], [raw for _row, raw in chosen]


def re_encrypt(work: Work, target: Target, back: bool) -> Outcome:
    """One pass over a column: every row under the key to leave is put under the other one.

    :param back: from the new key to the old one, or to plaintext where there was no key before.
    """
    tidier = Tidier(work.link, target.column.table, work.crew.workers)

    def one(link: Link, rows: list[Row]) -> Outcome:
        batch = _Batch(target, work.schema, rows, back)
        if not batch.rows:
            return Outcome(len(rows))
        outcome = work.write(link, target, batch.rows, batch.write)
        tidier.replaced(link, sum([len(row.raw) for row in batch.rows]))
        return outcome

    return work.run(target, Source(target.column), one)
