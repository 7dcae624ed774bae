# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows chosen by a condition, and columns that change with the cell."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.reencryption import KEYS, Rig, opens, seal

_WAYS = {"in_place": ["in_place"], "shadow": ["prepared", "cut_over", "swept"]}
_BACK = ["rolled_back", "swept", "cleaned"]


def _variables(rig: Rig, where: Any) -> dict[int, str]:
    """Rows by a flag, as Airflow has them: 1 to 6 encrypted, 7 to 9 in clear though they look alike, 10 undecided."""
    rig.sql.execute("CREATE TYPE kind AS ENUM ('secret', 'public')")
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text, is_encrypted boolean, type kind, level int)")
    for number in range(1, 11):
        flag = None if number == 10 else number <= 6
        kind = "secret" if flag else "public"
        cell = seal("old" if number != 8 else "other", b"%d:0" % number).decode()
        rig.sql.execute("INSERT INTO creds VALUES (%s, %s, %s, %s, %s)", (number, cell, flag, kind, number % 3))
    rig.columns = [rig.column("creds", "secret", where=where)]
    return dict(rig.cells())


_CONDITIONS: dict[str, Any] = {
    "boolean": {"column": "is_encrypted", "is": True},
    "enum": {"column": "type", "is": "secret"},
    "several": [{"column": "type", "is": "secret"}, {"column": "is_encrypted", "is": True}],
    "any of": [{"column": "is_encrypted", "is": [True]}, {"column": "level", "is": [0, 1, 2, None]}],
}


@pytest.mark.parametrize("condition", _CONDITIONS)
@pytest.mark.parametrize("way", _WAYS)
def test_rows_outside_of_the_condition_are_not_touched(rig: Rig, condition: str, way: str) -> None:
    before = _variables(rig, _CONDITIONS[condition])
    for state in _WAYS[way]:
        result = rig.run(state)
    counted = {**result["coverage"][0]}
    assert (counted["total"], counted["new"], counted["plaintext"], counted["skipped"]) == (6, 6, 0, 4)
    cells = rig.cells()
    assert [opens("new", cells[number]) for number in range(1, 7)] == [b"%d:0" % number for number in range(1, 7)]
    assert {number: cells[number] for number in range(7, 11)} == {number: before[number] for number in range(7, 11)}
    for state in _BACK:
        result = rig.run(state)
    assert (result["coverage"][0]["old"], result["coverage"][0]["skipped"]) == (6, 4)
    assert [opens("old", rig.cells()[number]) for number in range(1, 7)] == [b"%d:0" % n for n in range(1, 7)]


@pytest.mark.parametrize("is_chosen", [True, False])
def test_a_row_that_changes_sides_between_filling_and_swap(rig: Rig, is_chosen: bool) -> None:
    before = _variables(rig, {"column": "is_encrypted", "is": True})
    rig.run("prepared")
    rig.sql.execute("UPDATE creds SET is_encrypted = %s WHERE id = %s", (is_chosen, 7 if is_chosen else 1))
    rig.run("cut_over")
    result = rig.run("swept")
    assert (result["coverage"][0]["new"], result["coverage"][0]["skipped"]) == ((7, 3) if is_chosen else (5, 5))
    assert (rig.cells()[1] == before[1]) is not is_chosen


def test_nothing_that_meets_the_condition_is_no_success(rig: Rig) -> None:
    _variables(rig, {"column": "level", "is": 99})
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert refused.value.code == "rows-none"


_BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such column": ({"where": {"column": "is_encryptd", "is": True}}, "column-missing", "is_encrypted"),
    "no value of its type": ({"where": {"column": "level", "is": "high"}}, "condition-invalid", "type"),
    "an SQL text": ({"where": "is_encrypted"}, "condition-invalid", "where:"),
    "no value": ({"where": {"column": "level", "is": []}}, "condition-invalid", "where:"),
    "a mapping as a value": ({"where": {"column": "level", "is": {"a": 1}}}, "condition-invalid", "text"),
    "set without a column": ({"set": {"versoin": {"new": 2, "old": 1}}}, "column-missing", "Known"),
    "set of another type": ({"set": {"level": {"new": "two", "old": 1}}}, "set-invalid", "type"),
    "set of the key": ({"set": {"id": {"new": 2, "old": 1}}}, "set-invalid", "keys"),
    "set of the cell": ({"set": {"secret": {"new": 2, "old": 1}}}, "set-invalid", "keys"),
    "set of the condition": (
        {"where": {"column": "level", "is": 1}, "set": {"level": {"new": 2, "old": 1}}},
        "set-invalid",
        "condition",
    ),
    "set to an unknown hash": ({"set": {"level": {"hash": "crc32", "of": "key"}}}, "set-invalid", "sha1"),
    "set to more than it takes": ({"set": {"short": {"hash": "sha256", "of": "key"}}}, "set-invalid", "Widen"),
    "set to more than its domain takes": ({"set": {"brief": {"new": "12345", "old": 1}}}, "set-invalid", "Widen"),
    "set to null where it must not be": (
        {"set": {"filled": {"new": 2, "old": None}}},
        "set-invalid",
        "both directions",
    ),
    "set to half a rule": ({"set": {"level": {"new": 2}}}, "set-invalid", "set:"),
}


@pytest.mark.parametrize("case", _BAD)
def test_what_is_refused_before_anything(rig: Rig, case: str) -> None:
    _variables(rig, None)
    rig.sql.execute("CREATE DOMAIN brief AS varchar(4)")
    rig.sql.execute("ALTER TABLE creds ADD short char(40), ADD brief brief, ADD filled int NOT NULL DEFAULT 0")
    more, code, hint = _BAD[case]
    rig.columns = [rig.column("creds", "secret", **more)]
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert (refused.value.code, refused.value.where.startswith("public.creds")) == (code, True)
    assert hint in refused.value.hint
    assert rig.shadows() == []


def test_values_of_a_condition_are_never_sql(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text, tag text)")
    odd = "x' OR 'a' = 'a\\%s{}"
    for number, tag in enumerate((odd, "other"), 1):
        row = (number, seal("old", b"x").decode(), tag)
        rig.sql.execute("INSERT INTO creds VALUES (%s, %s, %s)", row)
    rig.columns = [rig.column("creds", "secret", where={"column": "tag", "is": odd})]
    for state in ("prepared", "cut_over", "swept"):
        result = rig.run(state)
    assert (result["coverage"][0]["new"], result["coverage"][0]["skipped"]) == (1, 1)


def _hash(key: str) -> str:
    return hashlib.sha1(KEYS[key], usedforsecurity=False).hexdigest()


def _credentials(rig: Rig) -> None:
    """Rows with the hash and the version of their key beside them, as Keystone has them; one without a value."""
    rig.sql.execute(
        "CREATE TABLE creds (id int PRIMARY KEY, secret text, key_hash varchar(64), kek_version int DEFAULT 1)"
    )
    for number in range(1, 10):
        row = (number, seal("old", b"%d:0" % number).decode(), _hash("old"))
        rig.sql.execute("INSERT INTO creds VALUES (%s, %s, %s)", row)
    rig.sql.execute("INSERT INTO creds VALUES (10, NULL, 'none', 7)")
    companions = {"key_hash": {"hash": "sha1", "of": "key"}, "kek_version": {"new": 2, "old": 1}}
    rig.columns = [rig.column("creds", "secret", set=companions)]


def _beside(rig: Rig) -> dict[int, tuple[str, int]]:
    rows = rig.sql.execute("SELECT id, key_hash, kek_version FROM creds ORDER BY id").fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


@pytest.mark.parametrize("way", _WAYS)
def test_columns_change_with_the_cell_in_both_directions(rig: Rig, way: str) -> None:
    _credentials(rig)
    before = _beside(rig)
    for state in _WAYS[way]:
        rig.run(state)
    assert _beside(rig) == {**dict.fromkeys(range(1, 10), (_hash("new"), 2)), 10: ("none", 7)}
    for state in _BACK:
        rig.run(state)
    assert _beside(rig) == before


def test_rows_written_meanwhile_get_their_columns_set_too(rig: Rig) -> None:
    _credentials(rig)
    rig.run("prepared")
    late = (seal("new", b"1:1").decode(), _hash("new"))
    rig.sql.execute("UPDATE creds SET secret = %s, key_hash = %s, kek_version = 2 WHERE id = 1", late)
    rig.run("cut_over")
    late = (seal("old", b"2:1").decode(), _hash("old"))
    rig.sql.execute("UPDATE creds SET secret = %s, key_hash = %s, kek_version = 1 WHERE id = 2", late)
    rig.run("swept")
    assert set(_beside(rig).values()) == {(_hash("new"), 2), ("none", 7)}
    assert [opens("new", rig.cells()[number]) for number in (1, 2)] == [b"1:1", b"2:1"]


def test_cells_that_stay_as_they_are_keep_what_stands_beside_them(rig: Rig) -> None:
    _credentials(rig)
    rig.sql.execute("""UPDATE creds SET secret = '{"a": 1}', key_hash = 'clear' WHERE id = 3""")
    rig.columns[0]["plaintext"] = "keep"
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    assert _beside(rig)[3] == ("clear", 1)
    assert _beside(rig)[4] == (_hash("new"), 2)


def test_a_column_that_cannot_be_null_is_no_hash_of_a_key_that_there_was_not(rig: Rig) -> None:
    """The way back would be refused by the server."""
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text, key_hash varchar(40) NOT NULL DEFAULT '')")
    rig.insert([(1, '{"k": 1}')])
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt", set={"key_hash": {"hash": "sha1", "of": "key"}})]
    rig.old = ""
    for call in (rig.info, partial(rig.run, "prepared"), partial(rig.run, "in_place")):
        with pytest.raises(KeyturnError) as refused:
            call()
        assert (refused.value.code, refused.value.where) == ("set-invalid", "public.creds.key_hash")
        assert "DROP NOT NULL" in refused.value.hint
    rig.sql.execute("ALTER TABLE creds ALTER key_hash DROP NOT NULL")
    for state in ("prepared", "cut_over", "swept", *_BACK):
        rig.run(state)
    assert rig.sql.execute("SELECT secret, key_hash FROM creds").fetchall() == [('{"k": 1}', None)]


def test_values_as_long_as_the_column_are_set(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text, key_hash char(40), tag varchar(2) NOT NULL)")
    rig.sql.execute("INSERT INTO creds VALUES (1, %s, '', 'o')", (seal("old", b"1").decode(),))
    companions = {"key_hash": {"hash": "sha1", "of": "key"}, "tag": {"new": "n   ", "old": "ol"}}
    rig.columns = [rig.column("creds", "secret", set=companions)]
    rig.run("in_place")
    assert rig.sql.execute("SELECT key_hash, tag FROM creds").fetchall() == [(_hash("new"), "n ")]


_VERSION = {"set": {"level": {"new": 2, "old": 1}}}
_ENTANGLED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a condition of the other": (_VERSION, {"where": {"column": "level", "is": 1}}, "public.creds.level"),
    "a cell of the other": ({"set": {"token": {"new": "n", "old": "o"}}}, {}, "public.creds.token"),
}


@pytest.mark.parametrize("case", _ENTANGLED)
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("state", ["info", "in_place", "prepared"])
def test_what_another_entry_needs_is_not_set(rig: Rig, case: str, is_first: bool, state: str) -> None:
    """Its rows would stay under the old key, skipped, or its cells would be lost."""
    one, other, where = _ENTANGLED[case]
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text, token text, level int)")
    rig.sql.execute("INSERT INTO creds VALUES (1, %s, %s, 1)", [seal("old", b"x").decode()] * 2)
    before = rig.sql.execute("SELECT * FROM creds").fetchall()
    rig.columns = [rig.column("creds", "secret", **one), rig.column("public.creds", "token", **other)]
    if not is_first:
        rig.columns.reverse()
    with pytest.raises(KeyturnError) as refused:
        rig.info() if state == "info" else rig.run(state)
    assert (refused.value.code, refused.value.where) == ("set-invalid", where)
    assert rig.sql.execute("SELECT * FROM creds").fetchall() == before


@pytest.mark.parametrize("column", ["secret", "level"])
@pytest.mark.parametrize("state", ["in_place", "prepared"])
def test_neither_cells_nor_what_chooses_their_rows_are_emptied(rig: Rig, column: str, state: str) -> None:
    _variables(rig, {"column": "level", "is": 1})
    with pytest.raises(KeyturnError) as refused:
        rig.run(state, clear=[{"table": "public.creds", "column": column}])
    assert (refused.value.code, refused.value.where) == ("clear-refused", f"public.creds.{column}")
    assert rig.shadows() == []
    assert rig.run("rolled_back", clear=[{"table": "creds", "column": column}])["changed"] is False
