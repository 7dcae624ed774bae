# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding columns that hold values under the key and that nobody named."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import PRESETS, Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import search
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW, OLD, UNKNOWN, Counts
from psycopg import sql

from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import KEYS, Rig, seal

_MINE = {"name": "mine", "cipher": "aes-gcm", "text": "hex", "parts": ["nonce:12", "ciphertext", "tag:16"]}
_DECLARED = {**_MINE, "key": {"encoding": "base64", "lengths": [32]}}


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


def _table(rig: Rig, name: str, cells: list[bytes], kind: str = "text") -> None:
    rig.sql.execute(f"CREATE TABLE {name} (id serial PRIMARY KEY, secret {kind})")
    with rig.sql.cursor() as cursor:
        insert = sql.SQL("INSERT INTO {} (secret) VALUES (%s)").format(sql.Identifier(name))
        cursor.executemany(insert, [(cell.decode(),) for cell in cells])


def _as(envelope: Any, count: int = 1, key: str = "old") -> list[bytes]:
    return Envelope(load_spec(envelope), KEYS[key]).seal_many([b'{"number": %d}' % number for number in range(count)])


def _envelopes(rig: Rig, **more: object) -> dict[str, str]:
    return {row["table"]: row["envelope"] for row in rig.info(search=True, **more)["found"]}


def test_columns_are_found_where_none_is_named(rig: Rig) -> None:
    rig.fill(3)
    rig.columns = []
    assert _found(rig) == {("public.creds", "secret", "", "old")}
    assert _found(rig, keys={"new": {"value": KEYS["old"].decode()}}) == {("public.creds", "secret", "", "new")}
    with pytest.raises(KeyturnError) as refused:
        rig.info(search=True, keys={})
    assert refused.value.code == "keys-missing"


@pytest.mark.parametrize("envelope", ["fernet", "superset-gcm", "jwe-dir-a256gcm", "twenty-v2"])
def test_an_envelope_that_nobody_named_is_found(rig: Rig, envelope: str) -> None:
    rig.fill(3)
    value = base64.urlsafe_b64encode(bytes(range(200, 232)))  # fits all of these
    _table(rig, "other", Envelope(PRESETS[envelope], value).seal_many([b"x" * 20] * 5))
    keys = {"old": {"value": value.decode()}, "new": {"value": KEYS["new"].decode()}}
    (found,) = [row for row in rig.info(search=True, keys=keys)["found"] if row["table"] == "public.other"]
    assert (found["envelope"], found["key"], found["opened"], found["sampled"]) == (envelope, "old", 5, 5)


def test_what_opens_by_chance_or_slowly_is_tried_where_the_catalog_names_it(rig: Rig) -> None:
    rig.fill(3)
    _table(rig, "chance", _as("superset-cbc", 6))
    _table(rig, "slow", _as("pbkdf2-aes256gcm-b64", 6))
    assert _envelopes(rig) == {}
    _table(rig, "cbc", _as("superset-cbc"))
    _table(rig, "pbkdf2", _as("pbkdf2-aes256gcm-b64"))
    rig.columns.append(rig.column("cbc", "secret", envelope="superset-cbc"))
    rig.columns.append(rig.column("pbkdf2", "secret", envelope="pbkdf2-aes256gcm-b64"))
    found = {row["table"]: (row["envelope"], row["opened"], row["sampled"]) for row in rig.info(search=True)["found"]}
    slow = ("pbkdf2-aes256gcm-b64", 5, 5)
    assert found == {"public.chance": ("superset-cbc", 6, 6), "public.slow": slow}


def test_a_quick_derivation_is_tried_on_all_samples(rig: Rig) -> None:
    rig.fill(3)
    _table(rig, "other", _as("superset-gcm", 40))
    (found,) = rig.info(search=True)["found"]
    assert (found["envelope"], found["opened"], found["sampled"]) == ("superset-gcm", 40, 40)


def test_a_declared_envelope_is_called_by_the_column_that_declares_it(rig: Rig) -> None:
    _table(rig, "creds", _as(_DECLARED, 2))
    _table(rig, "other", _as(_DECLARED, 2))
    rig.columns = [rig.column("creds", "secret", envelope=_DECLARED)]
    assert _envelopes(rig) == {"public.other": "mine of public.creds.secret"}


def test_a_column_is_tried_up_to_the_first_envelope_that_opens(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fill(3)
    _table(rig, "other", _as("aes256gcm-b64", 3) + _as("aes256gcm-b64", 4, "new"))
    tried: list[str] = []
    whole = Envelope.open_many

    def note(self: Envelope, *args: Any) -> Any:
        tried.append(self.spec.name)
        return whole(self, *args)

    rig.columns = []
    rig.sql.execute("DROP TABLE creds")
    monkeypatch.setattr(Envelope, "open_many", note)
    found = rig.info(search=True)["found"]
    assert {row["key"]: (row["opened"], row["sampled"]) for row in found} == {"old": (3, 7), "new": (4, 7)}
    assert tried == ["aes256gcm-b64"] * 2


def test_every_type_that_can_hold_a_cell_and_no_other(rig: Rig, server: EmbeddedPostgres) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE DOMAIN token AS varchar(200); CREATE DOMAIN raw AS bytea")
    for number, kind in enumerate(("token", "char(120)", "varchar(90)", "raw")):
        _table(rig, f"t{number}", [seal("old", b"x", "aes256gcm-b64")], kind)
    rig.sql.execute("UPDATE t3 SET secret = %s", (seal("old", b"x", "aesgcm-raw"),))
    rig.sql.execute("CREATE TABLE bare (tiny varchar(15), number int, numbers int[], moment timestamptz)")
    rig.sql.execute("INSERT INTO bare SELECT 'short', 1, '{1}', now()")
    assert {table for table, *_rest in _found(rig)} == {f"public.t{number}" for number in range(4)}
    said = server.log_text()
    assert '"secret" AS cell FROM "public"."t0"' in said
    assert 'FROM "public"."bare"' not in said


def test_domains_of_domains_and_arrays_of_all_these(rig: Rig) -> None:
    rig.fill(1)
    rig.sql.execute("CREATE DOMAIN token AS text; CREATE DOMAIN raw AS bytea; CREATE DOMAIN raw2 AS raw")
    rig.sql.execute("CREATE DOMAIN doc AS jsonb; CREATE DOMAIN doc2 AS doc; CREATE DOMAIN several AS text[]")
    rig.sql.execute(
        "CREATE TABLE t (a raw2, b doc2, c jsonb[], d json[], e token[], f varchar(60)[], g raw[], h several, x int[])"
    )
    text, raw = _cell(), seal("old", b"x", "aesgcm-raw")
    document, quoted = json.dumps({"k": text}), json.dumps(text)
    values = (raw, document, document, quoted, text, text, raw, text)
    rig.sql.execute(
        "INSERT INTO t VALUES (%s, %s, ARRAY[%s]::jsonb[], ARRAY[%s]::json[], ARRAY[%s]::token[], ARRAY[%s]::varchar[],"
        " ARRAY[%s]::raw[], ARRAY[%s], '{1}')",
        values,
    )
    found = {(row["column"], row["path"]) for row in rig.info(search=True)["found"]}
    inside = {("b", "$.k"), ("c", "$.k"), ("d", "$")}
    assert found == {*inside, *((column, "") for column in "aefgh")}


@pytest.fixture
def stranger(rig: Rig) -> Rig:
    """A role that may read ``creds``, and little else."""
    rig.fill(3)
    rig.sql.execute("DO $$ BEGIN CREATE ROLE searcher LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    rig.sql.execute("GRANT SELECT ON creds TO searcher")
    for table in ("closed", "partly", "guarded", "free", "away.there"):
        rig.sql.execute("CREATE SCHEMA IF NOT EXISTS away")
        rig.sql.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, a text, b text)")
        insert = sql.SQL("INSERT INTO {} VALUES (1, %s, %s)").format(sql.Identifier(*table.split(".")))
        rig.sql.execute(insert, (_cell(), _cell()))
    rig.sql.execute("GRANT SELECT ON guarded, free, away.there TO searcher; GRANT SELECT (id, a) ON partly TO searcher")
    rig.sql.execute("ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE TABLE numbers (id int PRIMARY KEY)")
    rig.dsn = rig.dsn.replace("user=postgres", "user=searcher")
    return rig


def test_what_could_not_be_read_is_told(stranger: Rig) -> None:
    result = stranger.info(search=True)
    assert result["unreadable"] == [
        {"table": "away.there", "reason": "this role may not use its schema"},
        {"table": "public.closed", "reason": "this role may not read it"},
        {"table": "public.guarded", "reason": "row-level security hides rows from this role"},
        {"table": "public.partly", "reason": "this role may not read b"},
    ]
    found = [(row["table"], row["column"]) for row in result["found"]]
    assert found == [("public.free", "a"), ("public.free", "b"), ("public.partly", "a")]
    assert [row["table"] for row in stranger.info(search=True, schemas=["away"])["unreadable"]] == ["away.there"]
    assert stranger.info()["unreadable"] == []


def test_a_table_that_somebody_locked_is_told_and_holds_nothing_up(rig: Rig) -> None:
    rig.fill(3)
    _table(rig, "before", [seal("old", b"x")])
    _table(rig, "locked", [seal("old", b"x")])
    _table(rig, "other", [seal("old", b"x")])
    with psycopg.connect(rig.dsn) as somebody:
        somebody.execute("LOCK TABLE locked")
        result = rig.info(search=True)
    assert result["unreadable"] == [{"table": "public.locked", "reason": "somebody else holds a lock on it"}]
    assert [row["table"] for row in result["found"]] == ["public.before", "public.other"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DROP TABLE moving", "it is gone meanwhile"),
        ("ALTER TABLE moving RENAME secret TO other", "it changed meanwhile"),
    ],
)
def test_a_table_that_changes_meanwhile_is_told_and_ends_nothing(
    rig: Rig, change: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.fill(3)
    _table(rig, "moving", [seal("old", b"x")])
    _table(rig, "other", [seal("old", b"x")])
    extent_of = search.extent_of

    def changed(link: Any, table: Any) -> Any:
        if table.name == "moving":
            rig.sql.execute(change)
        return extent_of(link, table)

    monkeypatch.setattr(search, "extent_of", changed)
    result = rig.info(search=True)
    assert result["unreadable"] == [{"table": "public.moving", "reason": reason}]
    assert [row["table"] for row in result["found"]] == ["public.other"]


def test_members_named_by_an_id_are_looked_at_up_to_a_number(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE docs (id int PRIMARY KEY, doc jsonb)")
    cell = seal("old", b"x").decode()
    rig.sql.execute("INSERT INTO docs VALUES (1, %s)", (json.dumps({f"m{n:04}": cell for n in range(1000)}),))
    rig.columns = []
    found = rig.info(search=True)["found"]
    assert [row["path"] for row in found] == [f"$.m{number:04}" for number in range(199)]  # and the whole value


def test_large_objects_that_could_not_be_read_are_told(stranger: Rig) -> None:
    stranger.sql.execute("CREATE TABLE blobs (id int PRIMARY KEY, blob oid); GRANT SELECT ON blobs TO searcher")
    stranger.sql.execute("INSERT INTO blobs VALUES (1, lo_from_bytea(0, 'theirs')), (2, 0)")
    (told,) = [one for one in stranger.info(search=True)["unreadable"] if one["table"] == "public.blobs"]
    assert told["reason"] == "this role may not read some of the large objects that blob names"
    stranger.sql.execute("SELECT lo_unlink(blob) FROM blobs WHERE id = 1")


@pytest.mark.parametrize(("rows", "width"), [(2_000, 0), (60_000, 300)], ids=["whole", "sampled"])
def test_samples_come_from_everywhere(rig: Rig, server: EmbeddedPostgres, rows: int, width: int) -> None:
    """The first half of the table holds other values; no statistics say how large it is."""
    rig.fill(3)
    logged = len(server.log_text())
    rig.sql.execute("CREATE TABLE big (id int PRIMARY KEY, note text, more text) WITH (autovacuum_enabled = false)")
    rig.sql.execute(
        "INSERT INTO big SELECT n, CASE WHEN n > %s THEN %s ELSE repeat('x', 60) END, repeat('y', %s) "
        "FROM generate_series(1, %s) n",
        (rows // 2, _cell(), width, rows),
    )
    (found,) = rig.info(search=True)["found"]
    assert found["sampled"] == 50
    assert 8 <= found["opened"] <= 42  # by chance outside of it once in millions
    assert ('"public"."big" c TABLESAMPLE SYSTEM' in server.log_text()[logged:]) is bool(width)


def test_few_values_of_a_small_table_are_all_found(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE TABLE sparse (id int PRIMARY KEY, note text)")
    rig.sql.execute(
        "INSERT INTO sparse SELECT n, CASE n WHEN 4999 THEN %s END FROM generate_series(1, 5000) n", (_cell(),)
    )
    assert [(row["opened"], row["sampled"]) for row in rig.info(search=True)["found"]] == [(1, 1)]


def test_partitions_count_as_their_table(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE TABLE parts (id int, note text, wide text) PARTITION BY RANGE (id)")
    for number in range(2):
        bounds = f"FROM ({30_000 * number}) TO ({30_000 * (number + 1)})"
        rig.sql.execute(f"CREATE TABLE part{number} PARTITION OF parts FOR VALUES {bounds}")
    rig.sql.execute(
        "INSERT INTO parts SELECT n, CASE WHEN n >= 30000 THEN %s END, repeat('y', 300) "
        "FROM generate_series(0, 59999) n",
        (_cell(),),
    )
    assert [(row["table"], row["opened"]) for row in rig.info(search=True)["found"]] == [("public.parts", 50)]


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
