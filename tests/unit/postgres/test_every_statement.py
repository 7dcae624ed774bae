# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Something happens just before a statement, each one in turn: a cut connection, a table that somebody alters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import psycopg
import pytest

from tests.support.faults import ROWS, STATES, Bed, check_truth, rotate
from tests.support.proxy import CountingProxy


@pytest.fixture
def proxy(bed: Bed) -> Iterator[CountingProxy]:
    """Stands before the server, and knows which statement is next."""
    with CountingProxy(bed.server.port) as running:
        bed.rig.dsn = bed.rig.dsn.replace(f"port={bed.server.port}", f"port={running.port}")
        yield running


def _cut(proxy: CountingProxy, chosen: int, number: int) -> None:
    if number == chosen:
        proxy.cut()


def test_a_connection_cut_at_any_statement_is_resumed(bed: Bed, proxy: CountingProxy) -> None:
    cuts = 0
    for state in (*STATES[bed.way], "rolled_back", "swept", "cleaned"):
        statement, is_reached = 0, False
        while not is_reached:
            statement += 1
            proxy.before_each(partial(_cut, proxy, statement))
            ended = rotate(bed, states=[state])
            is_reached = ended == "success"
            assert is_reached or ended == "connection-lost"
            cuts += not is_reached
        proxy.before_each(int)
        if state != "cleaned":
            check_truth(bed.rig)
    assert bed.rig.plaintexts("old") == {row: f"{row}:0" for row in range(1, ROWS + 1)}
    assert (bed.rig.shadows(), bed.rig.left_behind()) == ([], [])
    assert cuts > 50


#: What another session does, what undoes it the next time, and how the rotation ends.
_DDL = {
    "table made anew": ("ALTER TABLE creds ALTER ver TYPE bigint", "ALTER TABLE creds ALTER ver TYPE int", "success"),
    "column made anew": (
        "ALTER TABLE creds ALTER secret TYPE varchar",
        "ALTER TABLE creds ALTER secret TYPE text",
        "success",
    ),
    "column added": ("ALTER TABLE creds ADD late text DEFAULT random()", "ALTER TABLE creds DROP late", "success"),
    "index made": ("CREATE INDEX late ON creds (ver)", "DROP INDEX late", "success"),
    "table made anew by VACUUM": ("VACUUM FULL creds", "CLUSTER creds USING creds_pkey", "success"),
    "table renamed": ("ALTER TABLE creds RENAME TO away", "ALTER TABLE away RENAME TO creds", "table-changed"),
    "column renamed": (
        "ALTER TABLE creds RENAME secret TO away",
        "ALTER TABLE creds RENAME away TO secret",
        "column-missing",
    ),
}


@pytest.mark.parametrize("what", _DDL, ids=lambda what: what.replace(" ", "-"))
def test_somebody_alters_the_table_before_every_statement(bed: Bed, proxy: CountingProxy, what: str) -> None:
    do, undo, ends = _DDL[what]
    done = [0]
    with ExitStack() as stack:
        link = bed.other(stack)
        link.execute("SET lock_timeout = '5ms'")

        def alter(_number: int) -> None:
            with contextlib.suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DependentObjectsStillExist):
                link.execute(undo if done[0] % 2 else do)
                done[0] += 1

        proxy.before_each(alter)
        ended = rotate(bed)
        proxy.before_each(int)
        assert done[0] > 5
        while done[0] % 2:
            alter(0)
    assert ended == ends
    check_truth(bed.rig)
    assert rotate(bed) == "success"
    check_truth(bed.rig)
    assert bed.rig.plaintexts("new") == {row: f"{row}:0" for row in range(1, ROWS + 1)}
