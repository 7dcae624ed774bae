# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding columns that hold values under the key and that nobody named."""

from __future__ import annotations

import json
from functools import partial

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, OLD, UNKNOWN, Counts

from tests.support.reencryption import Rig, seal


def _cell(key: str = "old") -> str:
    return seal(key, b"forgotten").decode()


def _found(rig: Rig, **more: object) -> set[tuple[str, str, str, str]]:
    rows = rig.info(search=True, **more)["found"]
    return {(row["table"], row["column"], row["path"], row["key"]) for row in rows}


def test_strings_inside_of_json_and_elements_of_arrays(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE SCHEMA other")
    rig.sql.execute(
        "CREATE TABLE other.f (id int PRIMARY KEY, doc jsonb, body text, codes text[], raw bytea[], n text)"
    )
    document = {"a": {"odd name": _cell()}, "list": [{"token": _cell("new")}, {"token": None}], "s": "x" * 60, "n": 5}
    row = (json.dumps(document), json.dumps([_cell()]), [_cell(), "short"], [seal("new", b"x", "aesgcm-raw")], "{" * 90)
    rig.sql.execute("INSERT INTO other.f VALUES (1, %s, %s, %s, %s, %s)", row)
    rig.columns.append(rig.column("creds", "ver2", envelope="aesgcm-raw", may_be_empty=True))
    rig.sql.execute("ALTER TABLE creds ADD ver2 bytea")
    wanted = {
        ("other.f", "doc", '$.a["odd name"]', "old"),
        ("other.f", "doc", "$.list[*].token", "new"),
        ("other.f", "body", "$[*]", "old"),
        ("other.f", "codes", "", "old"),
        ("other.f", "raw", "", "new"),
    }
    assert _found(rig) == wanted
    assert _found(rig, schemas=["public"]) == set()
    assert _found(rig, schemas=["other", "public"]) == wanted


def test_of_a_big_table_rows_are_taken_at_random(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE TABLE big (id int PRIMARY KEY, note text)")
    rig.sql.execute("INSERT INTO big SELECT n, %s FROM generate_series(1, 60000) n", (_cell(),))
    rig.sql.execute("ANALYZE big")
    found = rig.info(search=True)["found"]
    assert [(row["table"], row["opened"], row["sampled"]) for row in found] == [("public.big", 50, 50)]


def test_nothing_is_looked_for_unless_asked(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE TABLE other (secret text)")
    rig.sql.execute("INSERT INTO other VALUES (%s)", (_cell(),))
    before = rig.snapshot()
    assert rig.info()["found"] == []
    assert _found(rig) == {("public.other", "secret", "", "old")}
    assert rig.snapshot() == before


def test_a_row_that_opens_under_both_keys_goes_with_its_column() -> None:
    classes = []
    for others in ([], [OLD], [NEW], [NEW, OLD]):
        counts = Counts(total=len(others) + 1)
        for kind in (*others, "either"):
            counts.add_many([kind], partial(list, ((b"1",),)))
        classes.append((counts.settle(), sum(counts.rows.values()), counts.unknown_keys))
    assert classes == [(OLD, 1, []), (OLD, 2, []), (NEW, 2, []), (UNKNOWN, 3, ["1"])]
