# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a table is cut up, and how large a batch is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import classes
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Limits, connect
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import (
    BatchSize,
    Pages,
    Reading,
    fetch,
    finer_at_the_end,
    page_ranges,
    windows,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import find_column, find_table
from psycopg import sql

from tests.support.reencryption import KEYS, Rig, opens, seal


def _ranges(*lengths: int) -> list[Pages]:
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    return [Pages("public", "creds", end - length, end, False) for length, end in zip(lengths, ends)]


@pytest.mark.parametrize("lengths", [(10, 10, 10, 10), (10, 10, 9, 1), (1, 1, 1), (7,), ()])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_finer_end_covers_the_same_pages(lengths: tuple[int, ...], workers: int) -> None:
    ranges = _ranges(*lengths)
    finer = finer_at_the_end(ranges, workers)
    covered = [page for pages in finer for page in range(pages.first, pages.end)]
    assert covered == list(range(sum(lengths)))
    assert len(finer) >= len(ranges)


def test_only_the_last_ranges_are_cut() -> None:
    finer = finer_at_the_end(_ranges(10, 10, 10, 9), 2)
    assert [pages.end - pages.first for pages in finer] == [10, 10, 3, 3, 3, 1, 3, 3, 3]


def test_few_ranges_stay_whole() -> None:
    ranges = _ranges(10, 10)
    assert finer_at_the_end(ranges, 3) == ranges


def test_the_rows_of_a_range_fit_into_one_window(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text)")
    rig.sql.execute("INSERT INTO creds SELECT n, repeat('x', 150 + n % 100) FROM generate_series(1, 5000) n")
    rig.sql.execute("ANALYZE creds")
    ranges = page_ranges(rig.sql, find_table(rig.sql, "creds"), 800)
    query = "SELECT count(*) FROM creds WHERE ctid >= %s::tid AND ctid < %s::tid"
    counts = [rig.sql.execute(query, (f"({one.first},0)", f"({one.end},0)")).fetchone()[0] for one in ranges]
    assert sum(counts) == 5000
    assert max(counts) <= 800
    assert len(counts) <= 8  # seven if every window could be full


@pytest.mark.parametrize(("quick", "sealed"), [(60.0, [1, 64] * 2), (0.0, [1, 1])])
def test_how_long_a_cell_takes_is_the_mean_of_many_unless_one_takes_long(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, quick: float, sealed: list[int]
) -> None:
    """The first one costs what is done once; taken for all, it made batches a quarter as large as they may be."""
    counts = []
    real = Envelope.seal_many

    def counted(self: Envelope, plaintexts: Sequence[bytes], associated: Any = None) -> list[bytes]:
        counts.append(len(plaintexts))
        return real(self, plaintexts, associated)

    rig.fill(1)
    column = find_column(rig.sql, find_table(rig.sql, "creds"), "secret")
    target = Target(column, load_spec("aes256gcm-b64"), KEYS["new"], KEYS["old"])
    monkeypatch.setattr(classes, "_QUICK", quick)
    monkeypatch.setattr(Envelope, "seal_many", counted)
    assert target.seconds_to_seal() > 0
    assert counts == sealed


def _out_of_order(rig: Rig) -> None:
    """A table with an index that fits the condition of a reading, costs less than its pages, and has another order."""
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text, rank int, pad text)")
    with rig.sql.cursor() as cursor, cursor.copy("COPY creds FROM STDIN") as copy:
        for number in range(1, 7001):
            cell = seal("old", f"{number}".encode()).decode() if number % 6 == 0 else None
            copy.write_row((number, cell, number if number % 700 else 7000 - number, "x" * 1500))
    rig.sql.execute("CREATE INDEX ON creds (rank) WHERE secret IS NOT NULL")
    rig.sql.execute("ANALYZE creds")


@pytest.mark.parametrize("has_toast", [False, True])
@pytest.mark.parametrize("join", ["", "JOIN (SELECT id FROM creds ORDER BY rank DESC OFFSET 0) s ON s.id = c.id"])
def test_a_reading_leaves_no_row_out_whatever_the_planner_does(rig: Rig, has_toast: bool, join: str) -> None:
    _out_of_order(rig)
    (pages,) = page_ranges(rig.sql, find_table(rig.sql, "creds"), 1_000_000)
    fields = [sql.SQL("c.id"), sql.SQL("c.secret")]
    reading = Reading(fields, (1,), sql.SQL(join), sql.SQL("c.secret IS NOT NULL"))
    with connect(rig.dsn.encode(), "app", Limits()) as link:
        plain = fetch(link, reading.query(pages, 100, 1 << 20), ("(0,0)", f"({pages.end},0)")).column(2)
        read = windows(link, pages._replace(has_toast=has_toast), reading, BatchSize(20, 1 << 20))
        found = [int.from_bytes(key, "big") for window in read for key in window.column(0)]
    assert (plain == sorted(plain)) == (join == ""), "the planner gives another order by itself"
    assert sorted(found) == list(range(6, 7001, 6))


def test_no_row_is_passed_over_where_an_index_has_another_order(rig: Rig) -> None:
    _out_of_order(rig)
    assert rig.run("in_place", batch_rows=500)["coverage"][0]["new"] == 1166
    cells = rig.sql.execute("SELECT secret, id FROM creds WHERE secret IS NOT NULL").fetchall()
    assert {opens("new", cell) == f"{number}".encode() for cell, number in cells} == {True}
