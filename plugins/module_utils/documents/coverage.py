# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many documents are of which class, counted in one snapshot by all processors; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.declared import Documents
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.judge import (
    BROKEN,
    CLASSES,
    NEW,
    OLD,
    OTHER,
    REFUSED,
    UNSIGNED,
    Judge,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.rows import DocumentRows, DocumentSource
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
    joined,
    snapshot,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import (
    BatchSize,
    Pages,
    finer_at_the_end,
    page_ranges,
    windows,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Counted", "check_first", "count", "demand"]

_NAMED = 10  # rows that a message names
#: Rows that are judged between two reads: the server ends a transaction that stays idle for long.
_AT_ONCE = 1000


class Counted:
    """The coverage of one table.

    :param total: its rows; those that are not meant are ``skipped``.
    """

    def __init__(self, one: Documents, total: int = 0) -> None:
        self.one, self.total = one, total
        self.rows = dict.fromkeys(CLASSES, 0)
        self.named: dict[str, list[str]] = {}

    def note(self, kind: str, rows: DocumentRows, places: Sequence[int], why: Callable[[int], str]) -> None:
        """Count rows, and remember the first of those that stop a run."""
        self.rows[kind] += len(places)
        if kind not in _STOPS:
            return
        names = self.named.setdefault(kind, [])
        for place in places[: _NAMED - len(names)]:
            key = ",".join(part[place].decode("utf-8", "replace") for part in rows.key_parts)
            said = why(place)
            names.append(f"{key} {said}" if said else key)

    def plain(self) -> tuple[Any, ...]:
        """Built of plain types, for another process."""
        return self.rows, self.named

    def add(self, plain: tuple[Any, ...]) -> int:
        """Add what :meth:`plain` gave; how many rows that is."""
        rows, named = plain
        for kind, number in rows.items():
            self.rows[kind] += number
        for kind, names in named.items():
            known = self.named.setdefault(kind, [])
            known += names[: _NAMED - len(known)]
        return sum(rows.values())

    @property
    def meant(self) -> int:
        """Rows that are meant."""
        return sum(self.rows.values())

    def behind(self, back: bool) -> int:
        """Rows that are still to be signed."""
        if back:
            return self.rows[NEW]
        return self.rows[OLD] + self.rows[REFUSED] + (self.rows[UNSIGNED] if self.one.signs_unsigned else 0)

    def as_result(self) -> dict[str, Any]:
        """For the result of the module."""
        column = self.one.column
        skipped = self.total - self.meant
        return {
            "table": str(column.table),
            "column": column.name,
            "total": self.total,
            **self.rows,
            "skipped": skipped,
        }


def count(
    crew: Crew, all_of_them: Sequence[tuple[Documents, Judge]], pace: Pace, size: BatchSize, now: datetime
) -> list[Counted]:
    """The coverage of all tables at one moment."""

    def attempt() -> list[Counted]:
        with snapshot(crew.first, [one.table.identifier for one, _judge in all_of_them]) as moment:
            counted = []
            for one, judge in all_of_them:
                with explained(one.place):
                    counted.append(_count_one(crew, moment, one, judge, pace, size, now))
            return counted

    return retrying(pace, ", ".join(one.place for one, _judge in all_of_them), attempt)


def _count_one(
    crew: Crew, moment: str, one: Documents, judge: Judge, pace: Pace, size: BatchSize, now: datetime
) -> Counted:
    counted = Counted(one, _total(crew.first, one))
    pace.begin(str(one.table), one.column.name, counted.total)
    source, size = DocumentSource(one), size.limited(_AT_ONCE)
    parts = page_ranges(crew.first, one.table, size.window_rows)

    def part(link: Link, pages: Pages) -> tuple[Any, ...]:
        some = Counted(one)
        for window in windows(link, pages, source.reading, size):
            _judge_rows(some, link, DocumentRows(window, one), judge, now)
        return some.plain()

    for plain in crew.each(part, finer_at_the_end(parts, crew.workers), lambda link: joined(link, moment)):
        pace.did(counted.add(plain))
    return counted


def _judge_rows(some: Counted, link: Link, rows: DocumentRows, judge: Judge, now: datetime) -> None:
    kinds = judge.kinds(link, rows)
    refusals = judge.refusals(rows, kinds, now)
    kinds = [REFUSED if place in refusals else kind for place, kind in enumerate(kinds)]
    for kind in set(kinds):
        places = [place for place, found in enumerate(kinds) if found == kind]
        some.note(kind, rows, places, partial(_reason, refusals))


def _reason(refusals: dict[int, str], place: int) -> str:
    return refusals.get(place, "")


def _total(link: Link, one: Documents) -> int:
    whole_tables(link)
    row = link.execute(sql.SQL("SELECT count(*) FROM {} c").format(one.table.identifier), NO_PARAMETERS).fetchone()
    return int(row[0]) if row else 0


# -- what is demanded --------------------------------------------------------------------------------------------

_STOPS = {
    BROKEN: (
        "signature-broken",
        "have no signature that holds",
        "Find out who wrote them: what nobody signed is not signed again",
    ),
    OTHER: (
        "kid-unknown",
        "are signed under a kid that is neither the new one nor an old one",
        "Name it among the old ones, or leave these rows out with where",
    ),
    REFUSED: (
        "document-refused",
        "cannot be signed as they stand",
        "Correct the documents, or allow their claims by name with allow_claims",
    ),
}


def check_first(counted: Sequence[Counted]) -> None:
    """Refuse to begin where a row is not understood, or none is there.

    :raises KeyturnError: ``signature-broken``, ``kid-unknown``, ``document-refused``, ``no-documents``.
    """
    for one in counted:
        _refuse(one)
        if not one.meant and not one.one.may_be_empty:
            raise KeyturnError(
                "no-documents",
                f"none of {one.total} rows is meant",
                where=one.one.place,
                hint="Is it the right database, and are the conditions right? Else say may_be_empty: true",
            )


def _refuse(one: Counted) -> None:
    for kind, (code, what, hint) in _STOPS.items():
        if one.rows[kind]:
            keys = "; ".join(one.named[kind])
            message = f"{one.rows[kind]} of {one.meant} rows {what} (primary keys: {keys})"
            raise KeyturnError(code, message, where=one.one.place, hint=hint)


def demand(counted: Sequence[Counted], back: bool) -> None:
    """Refuse coverage that is not complete.

    :raises KeyturnError: ``rows-behind``, and those of :func:`check_first`.
    """
    for one in counted:
        if not back:
            _refuse(one)
        if one.behind(back):
            raise KeyturnError(
                "rows-behind",
                f"{one.behind(back)} rows are still, or again, under the {'new' if back else 'old'} kid",
                where=one.one.place,
                hint="Somebody still signs with it, or has held such a row locked for all of max_wait_s. Let that "
                "service sign with the other key, or end its long transaction, then run again",
            )
