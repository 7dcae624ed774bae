# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan says about a database: its lines, from the report of a real one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.plugin_utils import account

from tests.support.reencryption import Rig, seal


def _lines(rig: Rig, title: str, strategy: str = "cutover", quiesce: str = "none", **more: Any) -> list[str]:
    """The lines of the plan with this title, and those that go on beneath them."""
    report = {**rig.info(quiesce=quiesce, **more), "job": {"database": "app"}}
    service = {"name": "api", "quiesce": quiesce, "wave": 0}
    plan = {
        "secrets": [{"name": "KEY", "kind": "encryption_key", "strategy": strategy}],
        "strategy": strategy,
        "phases": ["preflight"],
        "kinds": [],
        "hosts": {"db": {"secrets": [], "jobs": [], "services": [service], "probes": [], "servers": []}},
        "helpers": {},
        "waived": [],
        "digest": "d" * 64,
    }
    run = account.Run(plan, "rotate", "r1", {}, {}, kinds=[("db", "preflight", report)])
    found: list[str] = []
    is_in = False
    for line in account.plan_lines(run, []):
        is_in = line.startswith(f"  {title} ") or (is_in and line.startswith("   "))
        found += [line] if is_in else []
    return found


def test_a_column_that_the_catalog_does_not_name_is_warned_of_with_its_place(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE TABLE other (id int, secret text, doc jsonb)")
    cell = seal("old", b"forgotten").decode()
    rig.sql.execute("INSERT INTO other VALUES (1, %s, jsonb_build_object('token', %s::text))", (cell, cell))
    assert _lines(rig, "warning") == []
    told = "of 1 samples open as aes256gcm-b64 under the old key, and the catalog does not name it"
    assert sorted(_lines(rig, "warning", search=True)) == [
        f"  warning     public.other.doc on db $.token: 1 {told}",
        f"  warning     public.other.secret on db: 1 {told}",
    ]


@pytest.mark.parametrize(
    ("index", "more", "told"),
    [
        (False, {"cut_over": "auto"}, ["by rows; writers wait about 0 ms, 1.0 s are permitted"]),
        (
            False,
            {"cut_over": "auto", "max_writer_wait_ms": 0},
            ["by columns; by rows writers would wait about 0 ms, 0 ms are permitted"],
        ),
        (
            True,
            {"cut_over": "auto", "max_writer_wait_ms": 0},
            [
                "by rows; writers wait about 0 ms, but columns is not possible",
                "not by columns: public.creds.secret: index by_secret",
                "not by columns: public.creds.secret: materialized view kept",
            ],
        ),
        (False, {"cut_over": "auto", "quiesce": "stop"}, ["by rows; the services are stopped meanwhile"]),
        (False, {"cut_over": "rows"}, ["by rows; asked for; writers wait about 0 ms"]),
        (
            True,
            {"cut_over": "columns"},
            [
                "by columns; asked for",
                "not by columns: public.creds.secret: index by_secret",
                "not by columns: public.creds.secret: materialized view kept",
            ],
        ),
    ],
    ids=["short", "long", "refused", "stopped", "rows-asked-for", "columns-asked-for"],
)
def test_the_plan_says_how_rows_are_cut_over_and_why(
    rig: Rig, index: bool, more: dict[str, Any], told: list[str]
) -> None:
    rig.fill(3)
    if index:
        rig.sql.execute("CREATE INDEX by_secret ON creds (secret)")
        rig.sql.execute("CREATE MATERIALIZED VIEW kept AS SELECT secret FROM creds")
    first, *others = told
    expected = [f"  cut-over    app on db: {first}", *(f"              {line}" for line in others)]
    assert _lines(rig, "cut-over", **more) == expected
    assert _lines(rig, "cut-over", "overlap", **more) == []


def test_a_rotation_that_has_begun_says_so(rig: Rig) -> None:
    rig.fill(3)
    rig.run("prepared", cut_over="columns")
    assert _lines(rig, "cut-over", cut_over="auto") == [
        "  cut-over    app on db: by columns; the rotation has begun this way"
    ]


@pytest.mark.parametrize(
    ("strategy", "quiesce", "told"),
    [
        ("cutover", "none", "; services run on; the swap takes 4 ms"),
        ("cutover", "stop", "; services are stopped for the swap and started after it; the swap takes 4 ms"),
        ("overlap", "none", "; services run on"),
        ("overlap", "stop", "; services run on"),
    ],
)
def test_only_what_is_swapped_has_a_time_of_the_swap(rig: Rig, strategy: str, quiesce: str, told: str) -> None:
    rig.fill(1000)
    (line,) = _lines(rig, "expected", strategy, quiesce)
    assert line.startswith("  expected    about ")
    assert line.endswith(f" s{told}")
