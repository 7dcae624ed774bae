# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which way to cut over: by the wait that writers would have, and by what depends on the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.dependants import find_refusals
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column

__all__ = ["Choice", "choose", "writer_wait_ms"]

_WAIT_MS_PER_ROW = 0.0044  # measured: one UPDATE of every row, 264 bytes each, no index on the column
_WAIT_MS_PER_OBJECT = 0.055  # measured: the content of one large object is taken, compared and replaced
_WAIT_PER_INDEX = 0.8  # measured: so much more for each index that the new value has to go into


@dataclass(frozen=True)
class Choice:
    """The way, and why.

    :param refusals: what forbids ``columns``, where that was looked at.
    """

    cut_over: str
    why: str
    refusals: list[str] = field(default_factory=list)

    def as_result(self) -> dict[str, Any]:
        """For a module's result."""
        return {"cut_over": self.cut_over, "why": self.why, "refusals": self.refusals}


def _indexes_on(link: Link, column: Column) -> int:
    query = """
        SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
        WHERE i.indrelid = %s::bigint::oid AND a.attnum = ANY (i.indkey::int2[]) AND a.attname = %s"""
    row = link.execute(query, (column.table.oid, column.name)).fetchone()
    return int(row[0]) if row else 0


def writer_wait_ms(link: Link, covered: Sequence[Covered]) -> float:
    """How long writers would wait for a swap by ``rows``."""
    return sum(one.counts.total * _wait_ms_per_row(link, one.target.column) for one in covered)


def _wait_ms_per_row(link: Link, column: Column) -> float:
    if column.is_large_object:
        return _WAIT_MS_PER_OBJECT  # the column itself does not change
    return _WAIT_MS_PER_ROW * (1 + _WAIT_PER_INDEX * _indexes_on(link, column))


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 950 else f"{milliseconds:.0f} ms"


def choose(
    link: Link, targets: Sequence[Target], covered: Sequence[Covered], params: Mapping[str, Any], begun: str = ""
) -> Choice:
    """How these columns are cut over.

    :param params: ``cut_over`` (``auto``, ``rows``, ``columns``), ``max_writer_wait_ms``, ``quiesce``.
    :param begun: the way of a rotation that has begun; it stays.
    """
    if begun:
        return Choice(begun, "the rotation has begun this way")
    asked, most = params["cut_over"], float(params["max_writer_wait_ms"])
    wait = writer_wait_ms(link, covered)
    if asked == "rows":
        return Choice("rows", f"asked for; writers wait about {_seconds(wait)}")
    if asked == "auto" and params["quiesce"] == "stop":
        return Choice("rows", "the services are stopped meanwhile")
    if asked == "auto" and wait <= most:
        return Choice("rows", f"writers wait about {_seconds(wait)}, {_seconds(most)} are permitted")
    refusals = [
        f"{target.place}: {refusal}"
        for target, one in zip(targets, covered)
        for refusal in find_refusals(link, target, one)
    ]
    if asked == "columns":
        return Choice("columns", "asked for", refusals)
    if refusals:
        return Choice("rows", f"writers wait about {_seconds(wait)}, but columns is not possible", refusals)
    return Choice("columns", f"by rows writers would wait about {_seconds(wait)}, {_seconds(most)} are permitted")
