# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any primary key, any column type, any name; and what is refused, with the place and the nearest name."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import split_name
from psycopg import sql

from tests.support.reencryption import Rig, opens, seal

_KEYS = {
    "smallint": ("id smallint PRIMARY KEY", "n - 20"),
    "integer": ("id integer PRIMARY KEY", "n"),
    "highest": ("id integer PRIMARY KEY", "2147483607 + n"),
    "bigint": ("id bigint PRIMARY KEY", "n * 10000000000"),
    "lowest": ("id bigint PRIMARY KEY", "-9223372036854775809 + n"),
    "integers": ("a smallint, b bigint, PRIMARY KEY (b, a)", "-n, n % 3"),
    "uuid": ("id uuid PRIMARY KEY", "md5(n::text)::uuid"),
    "text": ("id text PRIMARY KEY", "'c' || n || ' ''\"%s{}\\'"),
    "char": ("id char(8) PRIMARY KEY", "n::text"),
    "bytea": ("id bytea PRIMARY KEY", "decode(md5(n::text), 'hex')"),
    "timestamp": ("id timestamptz PRIMARY KEY", "'2024-02-29 12:00+00'::timestamptz + n * interval '1.000001 s'"),
    "numeric": ("id numeric PRIMARY KEY", "n / 7.0"),
    "collated": ('id text COLLATE "POSIX" PRIMARY KEY', "'c' || n"),
    "enum": ("id colour PRIMARY KEY", "(enum_range(NULL::colour))[n]"),
    "composite": ("a int, b text, PRIMARY KEY (b, a)", "n % 3, 'x' || n"),
}


@pytest.mark.parametrize("kind", _KEYS)
def test_every_kind_of_primary_key(rig: Rig, kind: str) -> None:
    declaration, values = (sql.SQL(text) for text in _KEYS[kind])
    rig.sql.execute(f"CREATE TYPE colour AS ENUM ({', '.join(repr(f'c{n}') for n in range(1, 41))})")
    rig.sql.execute(sql.SQL("CREATE TABLE t ({}, secret text)").format(declaration))
    cells = sql.Literal([seal("old", f"row {n}".encode()).decode() for n in range(1, 41)])
    fill = sql.SQL("INSERT INTO t SELECT {}, c FROM unnest({}::text[]) WITH ORDINALITY u(c, o), int4(o) n")
    rig.sql.execute(fill.format(values, cells))
    rig.columns = [rig.column("t", "secret")]
    for state in ("prepared", "cut_over", "swept", "rolled_back", "swept", "cleaned"):
        result = rig.run(state)
    assert result["coverage"][0]["old"] == 40
    result = rig.run("in_place", rotation_id="r2")
    assert (result["coverage"][0]["new"], result["rows_written"]) == (40, 40)
    rows = rig.sql.execute("SELECT secret FROM t").fetchall()
    assert {opens("new", row[0]) for row in rows} == {f"row {n}".encode() for n in range(1, 41)}


def _text(cell: bytes) -> Any:
    return cell.decode()


_TYPES: dict[str, Callable[[bytes], Any]] = {
    "text": _text,
    "varchar": _text,
    "varchar(200)": _text,
    "bytea": bytes,
    "jsonb": lambda cell: json.dumps(cell.decode()),
    "json": lambda cell: json.dumps(cell.decode()),
}


@pytest.mark.parametrize("type_sql", _TYPES)
@pytest.mark.parametrize("way", ["in_place", "rows", "columns"])
def test_every_type_of_column(rig: Rig, type_sql: str, way: str) -> None:
    envelope = "aesgcm-raw" if type_sql == "bytea" else "aes256gcm-b64"
    rig.sql.execute(sql.SQL("CREATE TABLE t (id int PRIMARY KEY, secret {})").format(sql.SQL(type_sql)))
    for number in range(20):
        cell = _TYPES[type_sql](seal("old", f"row {number}".encode(), envelope))
        rig.sql.execute("INSERT INTO t VALUES (%s, %s)", (number, cell))
    rig.sql.execute("INSERT INTO t VALUES (99, NULL)")
    rig.columns = [rig.column("t", "secret", envelope=envelope)]
    rig.defaults = {"cut_over": way if way != "in_place" else "rows"}
    for state in ["in_place"] if way == "in_place" else ["prepared", "cut_over", "swept"]:
        result = rig.run(state)
    assert (result["coverage"][0]["new"], result["coverage"][0]["null"]) == (20, 1)
    cells = rig.cells("t")
    assert {opens("new", cells[number], envelope) for number in range(20)} == {
        f"row {number}".encode() for number in range(20)
    }
    for state in ["rolled_back", "swept", "cleaned"]:
        result = rig.run(state)
    assert result["coverage"][0]["old"] == 20
    assert opens("old", rig.cells("t")[7], envelope) == b"row 7"


@pytest.mark.parametrize("type_name", ["jsonb", "json"])
@pytest.mark.parametrize("way", ["rows", "columns"])
def test_plaintext_objects_in_json_columns(rig: Rig, type_name: str, way: str) -> None:
    rig.defaults = {"cut_over": way}
    rig.sql.execute(sql.SQL("CREATE TABLE t (id int PRIMARY KEY, secret {})").format(sql.SQL(type_name)))
    rig.sql.execute("""INSERT INTO t VALUES (1, '{"kty":"oct","k":"one"}'), (2, 'null')""")
    before = rig.cells("t")
    rig.columns = [rig.column("t", "secret", plaintext="encrypt")]
    rig.old = ""
    for state in ("prepared", "cut_over", "swept"):
        result = rig.run(state)
    assert (result["coverage"][0]["new"], result["coverage"][0]["null"]) == (1, 1)
    assert json.loads(opens("new", rig.cells("t")[1]) or b"") == {"kty": "oct", "k": "one"}
    later = json.dumps(seal("new", b'{"k": "later"}').decode())
    rig.sql.execute("INSERT INTO t VALUES (3, %s)", (later,))
    rig.run("rolled_back", step="all")
    assert rig.cells("t") == {**before, 3: {"k": "later"}}


_HOSTILE = ['we"ird', "per%cent %s", "{brace} {}", "semi; DROP TABLE x --", "dot.ted", "Größe", "back\\slash", "k0"]


@pytest.mark.parametrize("name", _HOSTILE)
@pytest.mark.parametrize("way", ["rows", "columns"])
def test_hostile_names(rig: Rig, name: str, way: str) -> None:
    rig.defaults = {"cut_over": way}
    ident = sql.Identifier(name)
    rig.sql.execute(sql.SQL("CREATE SCHEMA {}").format(ident))
    rig.sql.execute(
        sql.SQL("CREATE TABLE {t} ({k} int, p1 text, {c} text, PRIMARY KEY ({k}, p1))").format(
            t=sql.Identifier(name, name), k=sql.Identifier(name + "k"), c=ident
        )
    )
    insert = sql.SQL("INSERT INTO {} VALUES (%s, 'x', %s)").format(
        sql.Identifier(name.replace("%", "%%"), name.replace("%", "%%"))
    )
    for number in range(10):
        rig.sql.execute(insert, (number, seal("old", f"{number}".encode()).decode()))
    quoted = '"' + name.replace('"', '""') + '"'
    rig.columns = [rig.column(f"{quoted}.{quoted}", name)]
    states = ("prepared", "cut_over", "swept", "rolled_back", "swept", "cleaned")
    assert [rig.run(state)["changed"] for state in states] == [True, True, False, True, False, True]
    assert rig.run("in_place", rotation_id="r2")["coverage"][0]["new"] == 10
    assert rig.info(search=True)["columns"][0]["column"] == name


def test_partitioned_tables(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text, ver int) PARTITION BY RANGE (id)")
    rig.sql.execute("CREATE TABLE low PARTITION OF creds FOR VALUES FROM (0) TO (10)")
    rig.sql.execute("CREATE TABLE high PARTITION OF creds FOR VALUES FROM (10) TO (100)")
    rig.insert([(number, seal("old", b"x").decode()) for number in range(20)])
    for state in ("prepared", "cut_over", "swept", "rolled_back", "swept", "cleaned"):
        result = rig.run(state)
    assert result["coverage"][0]["old"] == 20


_REFUSED = {
    "table-missing": (["CREATE TABLE credz (id int PRIMARY KEY, secret text)"], "creds", "credz"),
    "column-missing": (["CREATE TABLE creds (id int PRIMARY KEY, secrets text)"], "public.creds.secret", "secrets"),
    "primary-key-missing": (["CREATE TABLE creds (id int, secret text)"], "public.creds", "PRIMARY KEY"),
    "column-type-unsupported": (
        ["CREATE TABLE creds (id int PRIMARY KEY, secret int)"],
        "public.creds.secret",
        "bytea",
    ),
    "table-unsupported": (["CREATE VIEW creds AS SELECT 1 AS id, ''::text AS secret"], "public.creds", "beneath"),
}


@pytest.mark.parametrize("code", _REFUSED)
def test_refusals_name_the_place_and_what_to_do(rig: Rig, code: str) -> None:
    statements, where, hint = _REFUSED[code]
    for statement in statements:
        rig.sql.execute(statement)
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert (refused.value.code, refused.value.where) == (code, where)
    assert hint in refused.value.hint


def test_inherited_tables_and_keys_as_columns_are_refused(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int, secret text PRIMARY KEY)")
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert refused.value.code == "column-type-unsupported"
    rig.sql.execute("CREATE TABLE child () INHERITS (creds)")
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert refused.value.code == "table-unsupported"


def test_a_column_named_twice_is_refused(rig: Rig) -> None:
    rig.fill(2)
    rig.columns.append(rig.column("public.creds", "secret"))
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert refused.value.code == "column-twice"


def test_a_partition_beside_its_whole_table_is_refused(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text, other text) PARTITION BY RANGE (id)")
    rig.sql.execute("CREATE TABLE low PARTITION OF creds FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id)")
    rig.sql.execute("CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (5)")
    rig.sql.execute("CREATE TABLE rest PARTITION OF low DEFAULT")
    rig.columns = [rig.column("creds", "secret"), rig.column("lowest", "secret")]
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert (refused.value.code, refused.value.where) == ("column-twice", "public.lowest.secret")
    assert "a part of public.creds.secret" in str(refused.value)
    cell = seal("old", b"one").decode()
    rig.sql.execute("INSERT INTO creds VALUES (1, %s, %s), (7, %s, %s)", [cell] * 4)
    rig.columns = [rig.column("lowest", "secret"), rig.column("rest", "secret"), rig.column("creds", "other")]
    assert len(rig.run("prepared")["coverage"]) == 3


@pytest.mark.parametrize("type_sql", ["text", "varchar(200)", "jsonb", "text[]"])
def test_bytes_are_not_written_into_a_column_of_text(rig: Rig, type_sql: str) -> None:
    rig.sql.execute(sql.SQL("CREATE TABLE creds (id int PRIMARY KEY, secret {})").format(sql.SQL(type_sql)))
    cell = seal("old", b"x").decode()
    rig.sql.execute("INSERT INTO creds VALUES (1, %s)", ([cell] if "[]" in type_sql else json.dumps(cell),))
    rig.columns = [rig.column("creds", "secret", new_envelope="aesgcm-raw")]
    for call in (rig.info, partial(rig.run, "in_place"), partial(rig.run, "prepared")):
        with pytest.raises(KeyturnError) as refused:
            call()
        assert (refused.value.code, "aesgcm-raw" in refused.value.message) == ("column-type-unsupported", True)
        assert "bytea" in refused.value.hint


def test_a_column_too_narrow_for_the_new_value(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret varchar(20))")
    rig.insert([(1, '{"a": 1}')])
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt")]
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert (refused.value.code, refused.value.where) == ("cell-too-long", "public.creds.secret")


@pytest.mark.parametrize(
    ("name", "parts"),
    [("t", ("", "t")), ("s.t", ("s", "t")), ('"a.b"."c""d"', ("a.b", 'c"d')), ('s."T"', ("s", "T"))],
)
def test_names_of_tables(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("name", ["", "a.b.c", ".", "a.", '"', '"a"b', "a..b"])
def test_what_is_no_name_of_a_table(name: str) -> None:
    with pytest.raises(KeyturnError) as refused:
        split_name(name)
    assert refused.value.code == "table-missing"


def test_a_role_without_privileges(rig: Rig, dsn: str) -> None:
    rig.fill(2)
    rig.sql.execute("DROP ROLE IF EXISTS reader")
    rig.sql.execute("CREATE ROLE reader LOGIN")
    try:
        rig.dsn = dsn.replace("user=postgres", "user=reader")
        codes = []
        for grant in (None, "SELECT", "UPDATE"):
            if grant:
                rig.sql.execute(sql.SQL("GRANT {} ON creds TO reader").format(sql.SQL(grant)))
            with pytest.raises(KeyturnError) as refused:
                rig.run("prepared")
            codes.append((refused.value.code, refused.value.where))
        assert codes == [
            ("privilege-missing", "public.creds"),
            ("privilege-missing", "public.creds"),
            ("privilege-missing", "database app"),
        ]
        assert rig.info()["server"]["may_make_side_tables"] is False
    finally:
        rig.sql.execute("DROP OWNED BY reader")
        rig.sql.execute("DROP ROLE reader")
