# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that hold several cells: members of JSON, arrays, lists, and a pattern in a larger text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.layers import plain_json
from psycopg import sql

from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig, opens, seal

_WAYS = {"in_place": ["in_place"], "shadow": ["prepared", "cut_over", "swept"]}
_BACK = ["rolled_back", "swept", "cleaned"]


def _cell(key: str, text: str) -> str:
    return seal(key, text.encode()).decode()


def _document(key: str, number: int) -> str:
    """A document as a person wrote it: blanks, odd numbers, escapes, a member twice, nulls."""
    return f"""{{ "id": {number},  "rate": 1.50e+1, "big": 123456789012345678901234567890,
  "credentials": {{"apiKey": "{_cell(key, f"{number}:key")}", "user" : "J\\u00fcrgen \\/"}},
  "accounts": [ {{"token":"{_cell(key, f"{number}:t0")}"}}, {{"token":null}}, {{}}, 7,
                {{"token": "{_cell(key, f"{number}:t1")}", "name":"x"}} ],
  "odd name": {{"*": "{_cell(key, f"{number}:odd")}"}}, "empty": "", "twice": 1, "twice": 2 }}"""


_PATHS = ["$.credentials.apiKey", "$.accounts[*].token", '$["odd name"].*']
_MARK = re.compile(r"[A-Za-z0-9+/=_-]{40,}")


@dataclass
class _Case:
    """A column type, how it is declared, and the value of a row.

    :param value: from key and number.
    :param cells: how many cells each value holds.
    """

    type_sql: str
    value: Callable[[str, int], Any]
    cells: int
    more: dict[str, Any] = field(default_factory=dict)
    envelope: str = "aes256gcm-b64"


def _list_in_json(key: str, number: int) -> str:
    return json.dumps({"codes": ", ".join(_cell(key, f"{number}:{one}") for one in "abc"), "n": number})


def _documents(key: str, number: int) -> list[str | None]:
    return [json.dumps({"a": _cell(key, f"{number}:a"), "b": {"c": _cell(key, "c")}}), None, "", '{"a": null}']


def _tokens(key: str, number: int) -> str:
    return json.dumps({"a": {"token": _cell(key, f"{number}:a")}, "b": _cell(key, "b")})


_CASES = {
    "paths in text": _Case("text", _document, 4, {"paths": _PATHS}),
    "paths in json": _Case("json", _document, 4, {"paths": _PATHS}),
    "paths in jsonb": _Case("jsonb", _document, 4, {"paths": _PATHS}),
    "array in json": _Case(
        "jsonb", lambda key, number: json.dumps([_cell(key, f"{number}:a"), _cell(key, "b")]), 2, {"paths": ["$[*]"]}
    ),
    "one element": _Case("jsonb", lambda key, _number: json.dumps([1, _cell(key, "x")]), 1, {"paths": ["$[1]"]}),
    "text[]": _Case("text[]", lambda key, number: [_cell(key, f"{number}:a"), None, "", _cell(key, "b")], 2),
    "varchar[]": _Case("varchar(200)[]", lambda key, _number: [[_cell(key, "a")], [_cell(key, "b")]], 2),
    "bytea[]": _Case(
        "bytea[]", lambda key, _number: [seal(key, b"a", "aesgcm-raw"), None, b""], 1, envelope="aesgcm-raw"
    ),
    "paths in text[]": _Case("text[]", _documents, 2, {"paths": ["$.a", "$.b.c"]}),
    "odd blanks in text[]": _Case(
        "text[]",
        lambda key, _number: [f"x\u00a0{_cell(key, 'a')}\u3000", None],
        1,
        {"pattern": "([A-Za-z0-9+/=]{40,})"},
    ),
    "paths that meet": _Case("jsonb", _tokens, 2, {"paths": ["$.*.token", "$.a.token", "$.b"]}),
    "list": _Case("text", lambda key, _number: f"{_cell(key, 'a')},{_cell(key, 'b')}, ,", 2, {"list": ","}),
    "list in json": _Case("jsonb", _list_in_json, 3, {"paths": ["$.codes"], "list": ","}),
    "json string list": _Case("json", lambda key, _number: json.dumps(f"{_cell(key, 'a')};"), 1, {"list": ";"}),
    "pattern": _Case(
        "text",
        lambda key, number: f"host=x pw=enc:({_cell(key, f'{number}:pw')}) # enc:() and enc:({_cell(key, 'b')})\n",
        2,
        {"pattern": r"enc:\(([A-Za-z0-9+/=]+)\)"},
    ),
}


def _values(rig: Rig) -> dict[int, str]:
    return dict(rig.sql.execute("SELECT id, c::text FROM t ORDER BY id").fetchall())


def _cells_in(text: str, case: _Case) -> list[bytes]:
    if case.envelope == "aesgcm-raw":
        return [bytes.fromhex(one) for one in re.findall(r'"\\\\x([0-9a-f]{40,})"', text)]
    return [one.encode() for one in _MARK.findall(text)]


def _opened(rig: Rig, case: _Case, key: str) -> dict[int, list[bytes | None]]:
    return {
        number: [opens(key, cell, case.envelope) for cell in _cells_in(text, case)]
        for number, text in _values(rig).items()
    }


def _frames(rig: Rig, case: _Case) -> dict[int, str]:
    """The values with their cells blotted out: what must stay as it is."""
    mark = re.compile(r"\\\\x[0-9a-f]{40,}") if case.envelope == "aesgcm-raw" else _MARK
    return {number: mark.sub("#", text) for number, text in _values(rig).items()}


def _fill(rig: Rig, case: _Case, keys: list[str]) -> None:
    rig.sql.execute(sql.SQL("CREATE TABLE t (id int PRIMARY KEY, c {})").format(sql.SQL(case.type_sql)))
    for number, key in enumerate(keys, 1):
        rig.sql.execute("INSERT INTO t VALUES (%s, %s)", (number, case.value(key, number)))
    rig.columns = [rig.column("t", "c", envelope=case.envelope, **case.more)]


@pytest.mark.parametrize("name", _CASES)
@pytest.mark.parametrize("way", _WAYS)
def test_all_cells_of_a_value_turn_and_go_back(rig: Rig, name: str, way: str) -> None:
    case = _CASES[name]
    _fill(rig, case, ["old"] * 10)
    frames, wanted = _frames(rig, case), _opened(rig, case, "old")
    assert {len(found) for found in wanted.values()} == {case.cells}
    assert None not in [cell for found in wanted.values() for cell in found]
    for state in _WAYS[way]:
        result = rig.run(state)
    counted = result["coverage"][0]
    assert (counted["total"], counted["new"], counted["null"]) == (10, 10, 0)
    assert _opened(rig, case, "new") == wanted
    assert _frames(rig, case) == frames
    assert rig.run("in_place" if way == "in_place" else "swept")["changed"] is False
    for state in _BACK:
        result = rig.run(state)
    assert result["coverage"][0]["old"] == 10
    assert _opened(rig, case, "old") == wanted
    assert _frames(rig, case) == frames


def _mixed(rig: Rig, type_sql: str = "jsonb", **more: Any) -> None:
    """One row each: under old, under new, under both, without a member, with null, in part in clear."""
    rows = [
        {"a": _cell("old", "1a"), "b": _cell("old", "1b")},
        {"a": _cell("new", "2a"), "b": _cell("new", "2b")},
        {"a": _cell("new", "3a"), "b": _cell("old", "3b")},
        {"a": _cell("old", "4a")},
        {"a": None, "other": 1},
    ]
    rig.sql.execute(sql.SQL("CREATE TABLE t (id int PRIMARY KEY, c {})").format(sql.SQL(type_sql)))
    for number, row in enumerate(rows, 1):
        rig.sql.execute("INSERT INTO t VALUES (%s, %s)", (number, json.dumps(row)))
    rig.columns = [rig.column("t", "c", paths=["$.a", "$.b"], **more)]


def _opened_by(rig: Rig, key: str) -> set[bytes | None]:
    return {opens(key, cell) for text in _values(rig).values() for cell in _MARK.findall(text)}


@pytest.mark.parametrize("way", _WAYS)
def test_each_part_is_judged_and_only_what_needs_it_is_sealed(rig: Rig, way: str) -> None:
    _mixed(rig)
    before = _values(rig)
    counted = rig.info()["coverage"][0]
    assert [counted[kind] for kind in ("total", "new", "old", "null", "unknown")] == [5, 1, 3, 1, 0]
    for state in _WAYS[way]:
        result = rig.run(state)
    assert [result["coverage"][0][kind] for kind in ("new", "old", "null")] == [4, 0, 1]
    after = _values(rig)
    assert json.loads(after[3])["a"] == json.loads(before[3])["a"] or way == "shadow"
    assert _opened_by(rig, "new") == {b"1a", b"1b", b"2a", b"2b", b"3a", b"3b", b"4a"}
    late = json.dumps({"a": _cell("old", "6a"), "b": _cell("new", "6b")})
    rig.sql.execute("INSERT INTO t VALUES (6, %s)", (late,))
    for state in _BACK:
        result = rig.run(state)
    assert [result["coverage"][0][kind] for kind in ("new", "old", "null")] == [0, 5, 1]
    assert _opened_by(rig, "old") == {b"1a", b"1b", b"2a", b"2b", b"3a", b"3b", b"4a", b"6a", b"6b"}


@pytest.mark.parametrize("value", ['{"a": "garbage"}', '{"a": 5}', '{"a": [1]}', '{"a": true}'])
def test_a_part_that_opens_under_neither_key_makes_the_row_unknown(rig: Rig, value: str) -> None:
    _mixed(rig)
    rig.sql.execute("INSERT INTO t VALUES (7, %s)", (value,))
    before = _values(rig)
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert (refused.value.code, "keys: 7)" in refused.value.message) == ("rows-unknown", True)
    assert _values(rig) == before


@pytest.mark.parametrize(
    "text", ["no json", '{"a": "x"', '{"a" "x"}', '{"a": 1} 2', "[" * 100_000, "{'a': 1}", "{1: 2}"]
)
def test_a_text_that_is_no_json_is_unknown(rig: Rig, text: str) -> None:
    _mixed(rig, "text")
    rig.sql.execute("INSERT INTO t VALUES (7, %s)", (text,))
    assert rig.info()["unknown"] == [{"table": "public.t", "column": "c", "keys": ["7"]}]


@pytest.mark.parametrize("way", _WAYS)
def test_parts_in_clear_are_encrypted_and_come_back(rig: Rig, way: str, server: EmbeddedPostgres) -> None:
    canary = "canary-51d0aa-part"
    rig.sql.execute("CREATE TABLE t (id int PRIMARY KEY, c jsonb)")
    row = {"a": {"k": canary}, "b": {"k": 2}, "n": 1}
    with rig.sql.cursor().copy("COPY t FROM STDIN") as copy:
        copy.write_row((1, json.dumps({"a": {"k": canary}, "n": 1})))
        copy.write_row((2, json.dumps(row)))
    before = _values(rig)
    rig.old = ""
    rig.columns = [rig.column("t", "c", paths=["$.a", "$.b"], plaintext="encrypt")]
    for state in _WAYS[way]:
        result = rig.run(state)
    assert (result["coverage"][0]["new"], canary in str(_values(rig))) == (2, False)
    assert json.loads(opens("new", json.loads(_values(rig)[1])["a"]) or b"") == {"k": canary}
    for state in _BACK:
        rig.run(state)
    assert json.loads(_values(rig)[1]) == json.loads(before[1])
    assert json.loads(_values(rig)[2])["a"] == {"k": canary}
    assert canary not in server.log_text()


def test_a_part_under_the_new_key_before_the_first_encryption_stays_on_the_way_back(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE t (id int PRIMARY KEY, c jsonb)")
    rig.sql.execute("INSERT INTO t VALUES (1, %s)", (json.dumps({"a": {"k": 1}, "b": _cell("new", "b")}),))
    before = _values(rig)
    rig.old = ""
    rig.columns = [rig.column("t", "c", paths=["$.a", "$.b"], plaintext="encrypt")]
    for state in ("prepared", "cut_over", "swept"):
        assert rig.run(state)["changed"] is (state != "swept")
    for state in _BACK:
        rig.run(state)
    assert _values(rig) == before


def test_parts_in_clear_may_stay_beside_parts_that_turn(rig: Rig) -> None:
    _mixed(rig, plaintext="keep")
    rig.sql.execute("""UPDATE t SET c = c || '{"b": {"in": "clear"}}' WHERE id = 4""")
    for state in ("prepared", "cut_over", "swept"):
        result = rig.run(state)
    assert result["coverage"][0]["new"] == 4
    assert json.loads(_values(rig)[4])["b"] == {"in": "clear"}
    assert opens("new", json.loads(_values(rig)[4])["a"]) == b"4a"


def test_a_part_in_clear_stops_the_run_where_nothing_is_said(rig: Rig) -> None:
    _mixed(rig)
    rig.sql.execute("""UPDATE t SET c = c || '{"b": {"in": "clear"}}' WHERE id = 4""")
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert (refused.value.code, "keys: 4)" in refused.value.message) == ("rows-plaintext", True)


@pytest.mark.parametrize("way", _WAYS)
def test_elements_that_are_null_stay_so_whatever_the_role_has_set(rig: Rig, way: str) -> None:
    _fill(rig, _CASES["text[]"], ["old"] * 3)
    rig.dsn = psycopg.conninfo.make_conninfo(rig.dsn, options="-c array_nulls=off")
    for state in _WAYS[way]:
        result = rig.run(state)
    assert result["coverage"][0]["new"] == 3
    assert rig.sql.execute("SELECT count(*) FROM t WHERE c[2] IS NULL").fetchone() == (3,)


_NO_VALUES_OF_JSONB = ['{"c": "canary-40fe21", "k": "\\ud800"}', '{"c": "canary-40fe21", "k": 1e200000}']


@pytest.mark.parametrize("text", [*_NO_VALUES_OF_JSONB, '{"c": "canary-40fe21", "k": NaN}'])
@pytest.mark.parametrize("more", [{}, {"paths": ["$.a"]}])
@pytest.mark.parametrize("way", _WAYS)
def test_a_plaintext_that_jsonb_cannot_hold_is_refused_and_not_sent(
    rig: Rig, server: EmbeddedPostgres, text: str, more: dict[str, Any], way: str
) -> None:
    """The server would quote it in its log."""

    def value(inner: Any) -> str:
        return json.dumps({"a": inner} if more else inner)

    rig.sql.execute("CREATE TABLE t (id int PRIMARY KEY, c jsonb)")
    rig.sql.execute("INSERT INTO t VALUES (1, %s)", (value({"k": 1}),))
    rig.old = ""
    rig.columns = [rig.column("t", "c", plaintext="encrypt", **more)]
    for state in _WAYS[way]:
        rig.run(state)
    rig.sql.execute("INSERT INTO t VALUES (2, %s)", (value(_cell("new", text)),))
    with pytest.raises(KeyturnError) as refused:
        rig.run("rolled_back")
    assert refused.value.code == "cell-unsupported"
    assert "canary-40fe21" not in server.log_text()


def test_a_plaintext_with_half_a_surrogate_pair_is_text_to_json() -> None:
    text = _NO_VALUES_OF_JSONB[0]
    assert plain_json(text.encode()) == text
    with pytest.raises(ValueError, match="surrogates not allowed"):
        plain_json(text.encode(), is_binary=True)


@pytest.mark.parametrize("number", ["1e131071", "1e-16383", "0", "-0.0", "9" * 131072])
def test_a_number_that_jsonb_holds_is_one_of_its_values(rig: Rig, number: str) -> None:
    text = f'{{"n": {number}}}'
    assert plain_json(text.encode(), is_binary=True) == text
    assert rig.sql.execute("SELECT (%s::jsonb -> 'n') IS NOT NULL", (text,)).fetchone() == (True,)


@pytest.mark.parametrize("number", ["1e131072", "-1e131072", "1e-16384", "9" * 131073])
def test_a_number_that_jsonb_does_not_hold_is_none(rig: Rig, number: str) -> None:
    text = f'{{"n": {number}}}'
    with pytest.raises(ValueError, match="too large"):
        plain_json(text.encode(), is_binary=True)
    with pytest.raises(psycopg.DataError):
        rig.sql.execute("SELECT %s::jsonb", (text,))


_BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a path that leads nowhere": ({"paths": ["$.a", "$.apiKey"]}, "path-unmatched", "path"),
    "a path that is none": ({"paths": ["a.b"]}, "path-invalid", "$."),
    "a path with a filter": ({"paths": ["$.a[?(@.b)]"]}, "path-invalid", "$."),
    "a pattern without a group": ({"pattern": "enc:[a-z]+"}, "pattern-invalid", "parentheses"),
    "a pattern with two groups": ({"pattern": "(enc):([a-z]+)"}, "pattern-invalid", "parentheses"),
    "no regular expression": ({"pattern": "enc:(("}, "pattern-invalid", "parentheses"),
    "an empty separator": ({"list": ""}, "list-invalid", "list:"),
    "a list and a pattern": ({"list": ",", "pattern": "(a)"}, "list-invalid", "one of the two"),
    "a pattern that matches nothing": ({"paths": ["$.a"], "pattern": "enc:(.+)"}, "rows-none", "names"),
}


@pytest.mark.parametrize("case", _BAD)
def test_what_is_refused_before_anything(rig: Rig, case: str) -> None:
    _mixed(rig)
    more, code, hint = _BAD[case]
    rig.columns = [rig.column("t", "c", **more)]
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert (refused.value.code, hint in refused.value.hint) == (code, True)


def test_an_edit_beside_the_cell_is_never_overwritten(rig: Rig) -> None:
    _mixed(rig)
    rig.run("prepared")
    rig.sql.execute("""UPDATE t SET c = c || '{"note": "edited"}' WHERE id = 1""")
    rig.run("cut_over")
    rig.run("swept")
    rig.sql.execute("""UPDATE t SET c = c || '{"note": "again"}' WHERE id = 2""")
    rig.run("rolled_back")
    found = {number: json.loads(text).get("note") for number, text in _values(rig).items()}
    assert found == {1: "edited", 2: "again", 3: None, 4: None, 5: None}


def test_an_object_with_a_number_longer_than_python_reads_stays_an_object() -> None:
    text = '{"n": ' + "1" * 5000 + "}"
    assert plain_json(text.encode()) == text


def test_a_plaintext_that_is_nested_too_deep_for_us_is_refused() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        plain_json(b"[" * 100_000)
