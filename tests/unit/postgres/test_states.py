# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each state of ``reencrypt``: check, for real, check again, for real again; and the way back from each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.reencryption import Rig, opens, seal

_ALL = {number: f"{number}:0" for number in range(1, 31)}
_NONE = dict.fromkeys(range(1, 31))


@pytest.fixture(params=["rows", "columns"])
def way(request: pytest.FixtureRequest, rig: Rig) -> str:
    """Each of the ways to cut over."""
    rig.defaults["cut_over"] = request.param
    return str(request.param)


def _quadruple(rig: Rig, state: str, **more: Any) -> dict[str, Any]:
    """The four calls; returns the result of the one that changed things."""
    before = rig.snapshot()
    assert rig.run(state, check=True, **more)["changed"]
    assert rig.snapshot() == before
    result = rig.run(state, **more)
    assert result["changed"]
    after = rig.snapshot()
    assert not rig.run(state, check=True, **more)["changed"]
    again = rig.run(state, **more)
    assert not again["changed"]
    assert rig.snapshot() == after
    return result


def _counts(result: dict[str, Any], at: int = 0) -> dict[str, int]:
    entry = result["coverage"][at]
    return {name: entry[name] for name in ("total", "new", "old", "plaintext", "null", "unknown") if entry[name]}


def test_in_place(rig: Rig) -> None:
    rig.fill()
    result = _quadruple(rig, "in_place")
    assert _counts(result) == {"total": 30, "new": 30}
    assert result["rows_written"] == 30
    assert rig.plaintexts("new") == _ALL


def test_in_place_and_back(rig: Rig) -> None:
    rig.fill()
    rig.run("in_place")
    _quadruple(rig, "rolled_back")
    swept = rig.run("swept")
    assert _counts(swept) == {"total": 30, "old": 30}
    assert rig.plaintexts("old") == _ALL
    _quadruple(rig, "cleaned")


@pytest.mark.usefixtures("way")
def test_cut_over_forward(rig: Rig) -> None:
    rig.fill()
    prepared = _quadruple(rig, "prepared")
    assert [fact["fact"] for fact in prepared["facts"]] == ["next"]
    assert rig.plaintexts("old") == _ALL
    cut = _quadruple(rig, "cut_over")
    assert [fact["fact"] for fact in cut["facts"]] == ["prev"]
    assert cut["held_ms"] > 0
    assert rig.plaintexts("new") == _ALL
    rig.insert([(31, seal("old", b"31:0").decode())])
    swept = _quadruple(rig, "swept")
    assert _counts(swept) == {"total": 31, "new": 31}
    cleaned = _quadruple(rig, "cleaned")
    assert _counts(cleaned) == {"total": 31, "new": 31}
    assert rig.shadows() == []
    assert rig.plaintexts("new") == {**_ALL, 31: "31:0"}


@pytest.mark.usefixtures("way")
def test_cut_over_and_back(rig: Rig) -> None:
    rig.fill()
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 3", (seal("new", b"3:1").decode(),))
    _quadruple(rig, "rolled_back")
    assert rig.plaintexts("old") == {**_ALL, 3: "3:1"}
    rig.insert([(31, seal("new", b"31:0").decode())])
    swept = _quadruple(rig, "swept")
    assert _counts(swept) == {"total": 31, "old": 31}
    _quadruple(rig, "cleaned")
    assert rig.shadows() == []
    assert rig.plaintexts("old") == {**_ALL, 3: "3:1", 31: "31:0"}


@pytest.mark.usefixtures("way")
def test_all_steps_back_in_one_call(rig: Rig) -> None:
    rig.fill()
    rig.run("prepared")
    rig.run("cut_over")
    result = rig.run("rolled_back", step="all")
    assert _counts(result) == {"total": 30, "old": 30}
    assert rig.shadows() == []
    assert rig.plaintexts("old") == _ALL


def test_back_before_the_swap_drops_the_side_table(rig: Rig) -> None:
    rig.fill()
    before = rig.snapshot()
    rig.run("prepared")
    _quadruple(rig, "rolled_back")
    assert rig.snapshot() == before
    rig.run("swept")
    assert rig.run("cleaned")["changed"]
    assert rig.snapshot() == before


@pytest.mark.usefixtures("way")
def test_nothing_to_roll_back(rig: Rig) -> None:
    rig.fill()
    before = rig.snapshot()
    assert not rig.run("rolled_back")["changed"]
    assert rig.snapshot() == before


#: What is done in the middle, and where the column is then.
_LOST = {
    "renamed": ("ALTER TABLE creds RENAME TO creds2", "creds2", "secret"),
    "column": ("ALTER TABLE creds RENAME secret TO secret2", "creds", "secret2"),
    "moved": ("CREATE SCHEMA x; ALTER TABLE creds SET SCHEMA x", "x.creds", "secret"),
    "dropped": ("DROP SCHEMA keyturn CASCADE", "creds", "secret"),
}


def _bring_back(rig: Rig, step: str) -> None:
    assert rig.run("rolled_back", check=True, step=step)["changed"]
    assert rig.run("rolled_back", step=step)["changed"]
    for state in ("swept", "cleaned"):
        rig.run(state)


@pytest.mark.parametrize("step", ["all", "swap"])
@pytest.mark.parametrize("lost", list(_LOST))
def test_rows_come_back_or_are_refused_where_what_was_kept_of_them_is_not_found(
    rig: Rig, way: str, lost: str, step: str
) -> None:
    rig.fill()
    rig.run("prepared")
    rig.run("cut_over")
    rig.insert([(31, seal("new", b"31:0").decode())])
    statements, table, column = _LOST[lost]
    rig.sql.execute(statements)
    rig.columns = [rig.column(table, column)]
    if f"{way} {lost}" == "columns column":  # the shadow is in the table, and its trigger knows the former name
        with pytest.raises(KeyturnError) as caught:
            _bring_back(rig, step)
        assert caught.value.code == "table-changed"
        return
    _bring_back(rig, step)
    rig.sql.execute("SET search_path = public, x")
    cells = rig.cells(table.removeprefix("x."), column)
    assert {number: opens("old", cell) for number, cell in cells.items()} == {
        number: f"{number}:0".encode() for number in range(1, 32)
    }
    assert not rig.run("rolled_back", step=step)["changed"]


def test_rows_that_the_service_wrote_before_anything_was_re_encrypted_come_back(rig: Rig) -> None:
    rig.fill()
    rig.insert([(31, seal("new", b"31:0").decode())])
    assert rig.run("rolled_back")["changed"]
    for state in ("swept", "cleaned"):
        rig.run(state)
    assert rig.plaintexts("old") == {**_ALL, 31: "31:0"}


def test_rows_that_the_service_writes_until_it_has_the_old_key_again_come_back_too(rig: Rig) -> None:
    rig.fill()
    rig.run("rolled_back", overlap=True)
    rig.insert([(31, seal("new", b"31:0").decode())])
    for state in ("swept", "cleaned"):
        rig.run(state)
    assert rig.plaintexts("old") == {**_ALL, 31: "31:0"}
    assert not rig.run("rolled_back", overlap=True)["changed"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("step", ["all", "swap"])
def test_what_a_lost_host_writes_after_all_others_went_back_comes_back_too(rig: Rig, step: str) -> None:
    rig.fill()
    rig.sql.execute("ALTER TABLE creds ADD lookup text")
    clear = [{"table": "creds", "column": "lookup"}]

    def back(**more: Any) -> list[dict[str, Any]]:
        return [rig.run(state, clear=clear, **more) for state in ("rolled_back", "swept", "cleaned")]

    for state in ("prepared", "cut_over"):
        rig.run(state, clear=clear)
    back()
    rig.insert([(31, seal("new", b"31:0").decode())])
    rig.sql.execute(
        "UPDATE creds SET secret = %s, lookup = 'of the new key' WHERE id = 3", (seal("new", b"3:1").decode(),)
    )
    assert rig.run("rolled_back", check=True, step=step)["changed"]
    first = back(step=step, epoch=2)[0]
    assert (first["changed"], first["in_place"]) == (True, True)
    assert rig.plaintexts("old") == {**_ALL, 3: "3:1", 31: "31:0"}
    assert rig.sql.execute("SELECT count(lookup) FROM creds").fetchone() == (0,)
    assert not rig.run("rolled_back", epoch=3)["changed"]
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared", epoch=2)
    assert refused.value.code == "fenced"
    rig.run("prepared", epoch=4)  # as before: what is over may begin again


def test_rows_that_were_encrypted_before_a_first_encryption_began_stay_so(rig: Rig) -> None:
    rig.fill(3, "new")
    rig.old, rig.columns = "", [rig.column("creds", "secret", plaintext="encrypt")]
    assert not rig.run("rolled_back", step="all")["changed"]
    assert rig.plaintexts("new") == {number: f"{number}:0" for number in range(1, 4)}


def test_the_schema_is_dropped_in_the_middle_and_rows_in_place_come_back(rig: Rig) -> None:
    rig.fill()
    rig.run("in_place")
    rig.sql.execute("DROP SCHEMA keyturn CASCADE")
    assert rig.run("rolled_back", step="all")["changed"]
    assert rig.plaintexts("old") == _ALL


def _restore(rig: Rig, cells: Mapping[Any, Any]) -> None:
    """The database as it was before the rotation, which it has never heard of."""
    rig.sql.execute("DROP SCHEMA keyturn CASCADE; TRUNCATE creds")
    rig.insert(list(cells.items()))


@pytest.mark.parametrize("states", [("prepared", "cut_over", "swept"), ("in_place", "swept")])
def test_a_database_restored_from_a_copy_of_before_is_not_retired(rig: Rig, states: tuple[str, ...]) -> None:
    rig.fill()
    before = rig.cells()
    for state in states:
        rig.run(state)
    _restore(rig, before)
    for state in ("swept", "cleaned"):
        with pytest.raises(KeyturnError) as refused:
            rig.run(state, turned=True)
        assert refused.value.code == "rows-behind"
        assert "30 rows are not under the new key" in refused.value.message
    assert not rig.run("rolled_back", turned=True)["changed"]
    rig.run("cleaned")
    assert rig.plaintexts("old") == _ALL


def _drop_what_is_kept(rig: Rig, way: str) -> None:
    """As a tool does that compares the schema with what it should be."""
    query = "SELECT attname FROM pg_attribute WHERE attname ~ '^keyturn_.*_(prev|next)$' AND NOT attisdropped"
    if way == "rows":
        query = "SELECT relname FROM pg_class WHERE relname ~ '^s_.*_(prev|next)$' AND relkind = 'r'"
    ((name,),) = rig.sql.execute(query).fetchall()
    rig.sql.execute(f"DROP TABLE keyturn.{name}" if way == "rows" else f"ALTER TABLE creds DROP COLUMN {name}")


@pytest.mark.parametrize("then", [("swept", "cleaned"), ("rolled_back", "swept", "cleaned")])
def test_what_is_kept_is_dropped_after_rows_turned(rig: Rig, way: str, then: tuple[str, ...]) -> None:
    rig.fill()
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    _drop_what_is_kept(rig, way)
    for state in then:
        rig.run(state, turned=then[0] == "swept" or state == "rolled_back")
    assert rig.plaintexts("new" if then[0] == "swept" else "old") == _ALL
    assert (rig.shadows(), rig.left_behind()) == ([], [])
    rig.insert([(31, seal("new", b"31:0").decode())])


@pytest.mark.usefixtures("way")
def test_a_database_restored_from_the_middle_of_a_rotation_that_is_over_turns_again_as_the_hint_says(rig: Rig) -> None:
    rig.fill()
    for state in ("prepared", "cut_over"):  # and swept and cleaned, after the copy was made
        rig.run(state)
    rig.old, rig.new = "new", "third"
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared", rotation_id="r2", epoch=5)
    assert refused.value.code == "fenced"
    assert "delete its row from keyturn.fence" in refused.value.hint
    rig.sql.execute("DELETE FROM keyturn.fence WHERE name = 'KEY'")
    for state in ("prepared", "cut_over", "swept", "cleaned"):
        rig.run(state, rotation_id="r2", epoch=5)
    assert rig.plaintexts("third") == _ALL


@pytest.mark.usefixtures("way")
def test_the_schema_is_dropped_after_rows_turned_and_they_are_retired(rig: Rig) -> None:
    rig.fill()
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    rig.sql.execute("DROP SCHEMA keyturn CASCADE")
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 3", (seal("new", b"3:1").decode(),))
    for state in ("swept", "cleaned"):
        assert _counts(rig.run(state, turned=True)) == {"total": 30, "new": 30}
    assert rig.plaintexts("new") == {**_ALL, 3: "3:1"}
    assert (rig.shadows(), rig.left_behind()) == ([], [])
    rig.insert([(31, seal("new", b"31:0").decode())])


@pytest.mark.usefixtures("way")
def test_the_schema_is_dropped_before_the_swap_and_the_rotation_goes_on(rig: Rig) -> None:
    rig.fill()
    rig.run("prepared")
    rig.sql.execute("DROP SCHEMA keyturn CASCADE")
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 3", (seal("old", b"3:1").decode(),))
    for state in ("prepared", "cut_over", "swept", "cleaned"):
        rig.run(state)
    assert rig.plaintexts("new") == {**_ALL, 3: "3:1"}
    assert (rig.shadows(), rig.left_behind()) == ([], [])


@pytest.mark.parametrize("step", ["all", "swap"])
def test_the_schema_is_dropped_in_a_first_encryption_and_rows_come_back(rig: Rig, step: str) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text)")
    plain = {number: f'{{"d": {number}}}' for number in range(1, 11)}
    rig.insert(list(plain.items()))
    rig.old, rig.columns = "", [rig.column("creds", "secret", plaintext="encrypt")]
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    rig.sql.execute("DROP SCHEMA keyturn CASCADE")
    assert rig.run("rolled_back", check=True, step=step, turned=True)["changed"]
    for state in ("rolled_back", "swept", "cleaned"):
        rig.run(state, step=step, turned=state == "rolled_back")
    assert rig.cells() == plain
    assert not rig.run("rolled_back", step=step, turned=True)["changed"]


def test_what_is_over_is_not_brought_back(rig: Rig) -> None:
    rig.fill()
    for state in ("in_place", "swept", "cleaned"):
        rig.run(state)
    assert not rig.run("rolled_back", step="all")["changed"]
    assert rig.plaintexts("new") == _ALL


@pytest.mark.usefixtures("way")
def test_a_late_step_forward_is_refused_once_the_rotation_goes_back(rig: Rig) -> None:
    rig.fill()
    rig.run("prepared")
    rig.run("cut_over")
    rig.run("rolled_back")
    with pytest.raises(KeyturnError) as refused:
        rig.run("cut_over")
    assert refused.value.code == "fenced"
    assert rig.plaintexts("old") == _ALL


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("state", "after", "code"),
    [
        ("cut_over", [], "not-prepared"),
        ("swept", ["prepared"], "not-cut-over"),
        ("cleaned", ["prepared"], "not-cut-over"),
        ("in_place", ["prepared"], "leftover-shadow"),
    ],
)
def test_a_state_out_of_order_is_refused(rig: Rig, state: str, after: list[str], code: str) -> None:
    rig.fill()
    for earlier in after:
        rig.run(earlier)
    before = rig.snapshot()
    with pytest.raises(KeyturnError) as refused:
        rig.run(state)
    assert refused.value.code == code
    assert rig.snapshot() == before


@pytest.mark.usefixtures("way")
def test_first_encryption_and_back(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text)")
    plain = {number: f'{{"d": "value {number}"}}' for number in range(1, 21)}
    rig.insert([*plain.items(), (21, None), (22, "")])
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt")]
    rig.old = ""
    _quadruple(rig, "prepared")
    _quadruple(rig, "cut_over")
    result = rig.run("swept")
    assert _counts(result) == {"total": 22, "new": 20, "null": 2}
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 5", (seal("new", b'{"d": "later"}').decode(),))
    rig.insert([(23, seal("new", b'{"d": "inserted"}').decode())])
    assert rig.run("swept")["coverage"][0]["new"] == 21
    _quadruple(rig, "rolled_back")
    rig.insert([(24, seal("new", b'{"d": "late"}').decode())])
    assert _counts(rig.run("swept")) == {"total": 24, "plaintext": 22, "null": 2}
    rig.run("cleaned")
    later = {5: '{"d": "later"}', 23: '{"d": "inserted"}', 24: '{"d": "late"}'}
    assert rig.cells() == {**plain, 21: None, 22: "", **later}


def test_first_encryption_in_place_and_back(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text)")
    plain = {number: f'{{"d": {number}}}' for number in range(1, 11)}
    rig.insert(list(plain.items()))
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt")]
    rig.old = ""
    _quadruple(rig, "in_place")
    assert rig.plaintexts("new") == plain
    rig.run("rolled_back")
    assert rig.cells() == plain


def test_plaintext_that_is_kept_stays(rig: Rig) -> None:
    rig.fill(10)
    rig.insert([(11, '{"kept": 1}')])
    rig.columns = [rig.column("creds", "secret", plaintext="keep")]
    for state in ("prepared", "cut_over"):
        rig.run(state)
    assert _counts(rig.run("swept")) == {"total": 11, "new": 10, "plaintext": 1}
    rig.run("rolled_back", step="all")
    assert rig.cells()[11] == '{"kept": 1}'


@pytest.mark.usefixtures("way")
def test_plaintext_beside_an_old_key_comes_back_as_it_was(rig: Rig) -> None:
    rig.fill(10)
    wrapped = '{"__plain__": true,   "jwk": {"kty": "oct"}}'
    rig.insert([(11, wrapped)])
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt")]
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    assert rig.plaintexts("new")[11] == '{"kty": "oct"}'
    rig.run("rolled_back")
    assert rig.cells()[11] == wrapped


def test_plaintext_is_refused_by_default(rig: Rig) -> None:
    rig.fill(3)
    rig.insert([(4, '{"a": 1}')])
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert refused.value.code == "rows-plaintext"
    assert "4" in refused.value.message


def test_several_columns_go_over_together_or_not_at_all(rig: Rig) -> None:
    rig.fill()
    rig.sql.execute("CREATE TABLE more (a int, b text, one text, two bytea, PRIMARY KEY (a, b))")
    for number in range(5):
        cells = (seal("old", b"one"), seal("old", b"two", "aesgcm-raw"))
        rig.sql.execute("INSERT INTO more VALUES (%s, %s, %s, %s)", (number, "x", cells[0].decode(), cells[1]))
    rig.columns += [rig.column("more", "one"), rig.column("more", "two", envelope="aesgcm-raw")]
    rig.run("prepared")
    rig.sql.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    rig.sql.execute("CREATE TRIGGER no BEFORE UPDATE ON more FOR EACH ROW EXECUTE FUNCTION no()")
    before = rig.snapshot()
    with pytest.raises(KeyturnError) as refused:
        rig.run("cut_over")
    assert refused.value.code == "swap-count-wrong"
    assert rig.snapshot() == before
    rig.sql.execute("DROP TRIGGER no ON more")
    rig.run("cut_over")
    assert rig.shadows() == ["prev"] * 3
    assert [_counts(rig.run("swept"), at) for at in range(3)] == [
        {"total": 30, "new": 30},
        {"total": 5, "new": 5},
        {"total": 5, "new": 5},
    ]


@pytest.mark.usefixtures("way")
def test_rolling_forward_to_a_third_key_drops_the_former_side_table(rig: Rig) -> None:
    rig.fill()
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    rig.old, rig.new = "new", "third"
    for state in ("prepared", "cut_over", "swept", "cleaned"):
        rig.run(state, rotation_id="r2")
    assert rig.plaintexts("third") == _ALL
    assert rig.shadows() == []


@pytest.mark.usefixtures("way")
def test_another_rotation_that_is_not_finished_is_in_the_way(rig: Rig) -> None:
    rig.fill()
    rig.run("prepared")
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared", rotation_id="r2")
    assert refused.value.code == "leftover-shadow"
    assert "r1" in str(refused.value)


def test_workers_share_the_rows(rig: Rig) -> None:
    rig.fill(200)
    result = rig.run("in_place", workers=3)
    assert (result["rows_written"], _counts(result)) == (200, {"total": 200, "new": 200})


def test_rate_and_progress(rig: Rig, tmp_path: Any) -> None:
    rig.fill(20)
    path = tmp_path / "progress.json"
    result = rig.run("in_place", rate=100_000, progress_path=str(path))
    assert result["rows_written"] == 20
    assert '"state": "in_place"' in path.read_text()
    assert '"total": 20' in path.read_text()


def test_diff_shows_counts_only(rig: Rig) -> None:
    rig.fill(3)
    diff = rig.run("in_place")["diff"]
    assert diff["before"]["coverage"][0]["old"] == 3
    assert diff["after"]["coverage"][0]["new"] == 3


@pytest.mark.usefixtures("way")
def test_no_rows_at_all_where_they_may_be_missing(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text)")
    rig.columns = [rig.column("creds", "secret", may_be_empty=True)]
    for state in ("prepared", "cut_over", "swept", "cleaned"):
        rig.run(state)
    assert rig.shadows() == []


@pytest.mark.usefixtures("way")
def test_plaintext_written_after_the_swap_is_encrypted_by_the_sweep_and_comes_back(rig: Rig) -> None:
    rig.fill(5)
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt")]
    for state in ("prepared", "cut_over"):
        rig.run(state)
    rig.insert([(6, '{"a":   6}')])
    assert _counts(rig.run("swept")) == {"total": 6, "new": 6}
    assert rig.plaintexts("new")[6] == '{"a":   6}'
    rig.run("rolled_back")
    assert rig.cells()[6] == '{"a":   6}'
