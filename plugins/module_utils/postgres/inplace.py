# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Re-encryption in place, for readers that hold several keys; the same the other way round to go back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import (
    NEW,
    OLD,
    PLAINTEXT,
    Content,
    Target,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import writer_for
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Key, Rows, Source
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tidy import Tidier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Later, Outcome, Work
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import Writer

__all__ = ["re_encrypt"]


@dataclass
class _Change:
    """Rows with what comes in the place of their cells."""

    rows: Rows
    cells: Sequence[bytes]

    def only(self, keys: frozenset[Key] | None) -> _Change:
        """Those of the rows with these keys; None for all."""
        if keys is None:
            return self
        at = self.rows.places(keys)
        return _Change(self.rows.pick(at), [self.cells[place] for place in at])


class _Batch:
    """One batch, judged and encrypted: the rows to change with what comes in their place."""

    def __init__(self, target: Target, writer: Writer, rows: Rows, back: bool) -> None:
        self._writer = writer
        kinds, contents = target.judge_values(rows.raws, rows.keys if target.needs_context else (), target.prefer)
        wanted = NEW if back else OLD
        to_plaintext = back and target.is_adoption
        ciphered: Sequence[int] = range(len(rows))
        plain: Sequence[int] = ()
        if kinds.count(wanted) < len(kinds):  # mostly all are: no step for each row then
            encrypts = not back and target.plaintext == "encrypt"
            taken = {wanted, PLAINTEXT} if encrypts and target.shape is not None else {wanted}
            ciphered = [place for place, kind in enumerate(kinds) if kind in taken and contents[place] is not None]
            plain = [place for place, kind in enumerate(kinds) if encrypts and kind == PLAINTEXT and kind not in taken]
        self._is_staged = to_plaintext or target.shape is not None  # what may hold text in clear is no parameter
        under = OLD if back else NEW
        self._ciphered = _sealed(target, None if to_plaintext else under, rows, contents, ciphered)
        self._plain = _sealed(target, NEW, rows, contents, plain)
        self.rows = rows.pick([*ciphered, *plain]) if plain else self._ciphered.rows  # all rows to change

    @property
    def is_plain(self) -> bool:
        """Whether :meth:`write_at_once` will do."""
        return self._writer.is_plain and not self._is_staged and not self._plain.rows

    def write_at_once(self, link: Link, fence: Fence) -> int:
        """Write all rows in one statement, which commits by itself; how many somebody else had changed.

        All count as changed, and none is written, once somebody else has the fence.
        """
        rows, cells = self._ciphered.rows, self._ciphered.cells
        return len(rows) - self._writer.replace_fenced(link, fence, rows, cells)

    def write(self, link: Link, keys: frozenset[Key] | None) -> int:
        """Write the rows with these keys (None for all); how many somebody else had changed."""
        ciphered, plain, done = self._ciphered.only(keys), self._plain.only(keys), 0
        if ciphered.rows and self._is_staged:
            self._writer.stage(link, ciphered.rows, n=ciphered.cells)
            done += self._writer.replace_staged(link, "n")
        elif ciphered.rows:
            done += self._writer.replace_cells(link, ciphered.rows, ciphered.cells)
        if plain.rows:
            done += self._writer.replace_versions(link, plain.rows, plain.cells)
        return len(ciphered.rows) + len(plain.rows) - done


def _sealed(
    target: Target, under: str | None, rows: Rows, contents: Sequence[Content | None], places: Sequence[int]
) -> _Change:
    """The change of these rows; with ``under`` None they become plaintext again."""
    rows = rows.pick(places)
    if len(rows) < len(contents):
        contents = [contents[place] for place in places]
    texts = cast("Sequence[Content]", contents)
    if under is None:
        return _Change(rows, target.bare_values(texts))
    return _Change(rows, target.seal_values(under, texts, rows.keys if target.needs_context else ()))


def re_encrypt(work: Work, target: Target, back: bool) -> Outcome:
    """One pass over a column: every row under the key to leave is put under the other one.

    :param back: from the new key to the old one, or to plaintext where there was no key before.
    """
    writer = writer_for(target.column, work.schema, OLD if back else NEW)
    tidier = Tidier(work.link, target.column.table, work.crew.workers)

    def one(link: Link, rows: Rows) -> Later:
        batch = _Batch(target, writer, rows, back)

        def write() -> Outcome:
            if not batch.rows:
                return Outcome(len(rows))
            at_once = batch.write_at_once if batch.is_plain else None
            outcome = work.write(link, target, batch.rows, batch.write, at_once)
            tidier.replaced(link, sum(map(len, batch.rows.raws)))
            return outcome

        return write

    return work.run(target, Source(target.column), one)
