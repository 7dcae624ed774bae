# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting over by columns: what the trigger keeps true, what is waited for, and what goes over with the name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from psycopg import sql

from tests.support.reencryption import Rig, opens, seal

_FORWARD = ("prepared", "cut_over", "swept")


@pytest.fixture(autouse=True)
def _by_columns(rig: Rig) -> None:
    rig.defaults["cut_over"] = "columns"


@pytest.fixture
def other(dsn: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Another session."""
    with psycopg.connect(dsn, autocommit=True) as link:
        yield link


def _cell(key: str, text: str) -> str:
    return seal(key, text.encode()).decode()


def _columns(rig: Rig, table: str = "creds") -> dict[str, bool]:
    query = """SELECT attname, attnotnull FROM pg_attribute
               WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
    return dict(rig.sql.execute(query, (table,)).fetchall())


def _forward(rig: Rig) -> None:
    for state in _FORWARD:
        rig.run(state)


def test_not_null_is_kept_on_every_way(rig: Rig) -> None:
    rig.fill(5)
    _forward(rig)
    assert [name for name, not_null in _columns(rig).items() if not_null].count("secret") == 1
    rig.run("cleaned")
    assert _columns(rig) == {"id": True, "ver": True, "secret": True}
    rig.old, rig.new = "new", "third"
    for state in (*_FORWARD, "rolled_back", "swept", "cleaned"):
        rig.run(state, rotation_id="r2")
    assert _columns(rig) == {"id": True, "ver": True, "secret": True}
    assert rig.left_behind() == []


def test_nulls_and_empty_cells_stay(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text)")
    rig.insert([(1, _cell("old", "1:0")), (2, None), (3, "")])
    rig.run("prepared")
    rig.sql.execute("UPDATE creds SET secret = NULL WHERE id = 1")
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 2", (_cell("old", "2:1"),))
    rig.run("cut_over")
    rig.insert([(4, None)])
    rig.run("swept")
    cells = dict(rig.cells())
    assert opens("new", cells.pop(2)) == b"2:1"
    assert cells == {1: None, 3: "", 4: None}
    rig.run("cleaned")
    assert _columns(rig) == {"id": True, "secret": False}
    assert rig.left_behind() == []


def test_what_others_write_meanwhile_is_carried_over(rig: Rig) -> None:
    rig.fill(6)
    rig.run("prepared")
    rig.sql.execute("UPDATE creds SET ver = 9 WHERE id = 1")
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 2", (_cell("old", "2:1"),))
    rig.sql.execute("DELETE FROM creds WHERE id = 3")
    rig.insert([(3, _cell("old", "3:again")), (7, _cell("old", "7:0"))])
    rig.run("cut_over")
    expected = {1: "1:0", 2: "2:1", 3: "3:again", 4: "4:0", 5: "5:0", 6: "6:0", 7: "7:0"}
    assert rig.plaintexts("new") == expected


def test_writers_under_replication_are_seen_too(rig: Rig, other: psycopg.Connection[tuple[Any, ...]]) -> None:
    rig.fill(3)
    rig.run("prepared")
    other.execute("SET session_replication_role = replica")
    other.execute("UPDATE creds SET secret = %s WHERE id = 2", (_cell("old", "2:1"),))
    _forward(rig)
    assert rig.plaintexts("new") == {1: "1:0", 2: "2:1", 3: "3:0"}


def test_a_client_that_writes_all_columns_back_changes_only_its_own(rig: Rig) -> None:
    rig.fill(2)
    _forward(rig)
    (former,) = [name for name in _columns(rig) if name.endswith("_prev")]
    before = rig.cells(column=former)
    write = sql.SQL("UPDATE creds SET {} = 'nonsense', secret = secret WHERE id = 1").format(sql.Identifier(former))
    rig.sql.execute(write)
    assert rig.cells(column=former) == before


@pytest.mark.parametrize("default", ["", " DEFAULT ''"], ids=["bare", "default"])
def test_an_insert_by_position_meets_the_right_column(rig: Rig, default: str) -> None:
    rig.sql.execute(f"CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL{default}, ver int DEFAULT 0)")
    rig.insert([(1, _cell("old", "1:0"))])
    rig.run("prepared")
    rig.sql.execute("INSERT INTO creds VALUES (2, %s, 0)", (_cell("old", "2:0"),))
    rig.run("cut_over")
    rig.sql.execute("INSERT INTO creds VALUES (3, %s, 0)", (_cell("new", "3:0"),))
    rig.run("swept")
    assert rig.plaintexts("new") == {1: "1:0", 2: "2:0", 3: "3:0"}
    rig.run("rolled_back", step="all")
    rig.sql.execute("INSERT INTO creds VALUES (4, %s, 0)", (_cell("old", "4:0"),))
    assert rig.plaintexts("old") == {1: "1:0", 2: "2:0", 3: "3:0", 4: "4:0"}


def test_an_old_snapshot_is_waited_for_and_named(rig: Rig, other: psycopg.Connection[tuple[Any, ...]]) -> None:
    rig.fill(3)
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT 1 FROM pg_class LIMIT 1")
    rig.run("prepared")
    with pytest.raises(KeyturnError) as refused:
        rig.run("cut_over", max_wait_s=0)
    assert refused.value.code == "snapshots-old"
    assert str(other.info.backend_pid) in refused.value.message
    assert rig.shadows() == ["next"]
    other.execute("ROLLBACK")
    rig.run("cut_over")
    assert rig.plaintexts("new") == {1: "1:0", 2: "2:0", 3: "3:0"}


def test_a_snapshot_from_before_the_swap_reads_what_was(rig: Rig, other: psycopg.Connection[tuple[Any, ...]]) -> None:
    rig.fill(3)
    _forward(rig)
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT 1 FROM pg_class LIMIT 1")
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 2", (_cell("new", "2:1"),))
    rig.run("rolled_back")
    seen = dict(other.execute("SELECT id, secret FROM creds").fetchall())
    assert [opens("old", seen[1]), opens("new", seen[2]) or opens("old", seen[2])] == [b"1:0", b"2:0"]
    other.execute("ROLLBACK")


@pytest.mark.parametrize("how", ["DISABLE", "DROP"])
def test_a_trigger_that_was_away_for_a_while_loses_no_update(rig: Rig, how: str) -> None:
    rig.fill(5)
    rig.run("prepared")
    (trigger,) = [name for name in rig.left_behind() if name.startswith("zzzz")]
    gone = f"ALTER TABLE creds DISABLE TRIGGER {trigger}" if how == "DISABLE" else f"DROP TRIGGER {trigger} ON creds"
    rig.sql.execute(gone)
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 2", (_cell("old", "2:unseen"),))
    if how == "DISABLE":
        rig.sql.execute(f"ALTER TABLE creds ENABLE ALWAYS TRIGGER {trigger}")
    rig.run("cut_over")
    assert rig.plaintexts("new") == {1: "1:0", 2: "2:unseen", 3: "3:0", 4: "4:0", 5: "5:0"}
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 3", (_cell("new", "3:1"),))
    assert rig.run("rolled_back", step="all")["coverage"][0]["old"] == 5
    assert rig.plaintexts("old") == {1: "1:0", 2: "2:unseen", 3: "3:1", 4: "4:0", 5: "5:0"}


def test_partitioned_tables(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL) PARTITION BY RANGE (id)")
    rig.sql.execute("CREATE TABLE low PARTITION OF creds FOR VALUES FROM (0) TO (10)")
    rig.sql.execute("CREATE TABLE high PARTITION OF creds FOR VALUES FROM (10) TO (20)")
    rig.insert([(number, _cell("old", f"{number}:0")) for number in range(20)])
    rig.run("prepared")
    rig.sql.execute("CREATE TABLE more PARTITION OF creds FOR VALUES FROM (20) TO (30)")
    rig.sql.execute("UPDATE creds SET id = 25, secret = %s WHERE id = 3", (_cell("old", "25:0"),))
    rig.run("cut_over")
    rig.insert([(26, _cell("old", "26:0"))])
    assert rig.run("swept")["coverage"][0]["new"] == 21
    rig.run("rolled_back", step="all")
    expected = {number: f"{number}:0" for number in (*range(3), *range(4, 20), 25, 26)}
    assert rig.plaintexts("old") == expected
    assert (_columns(rig, "high"), rig.left_behind()) == ({"id": True, "secret": True}, [])


def test_a_run_that_was_frozen_while_it_counted_does_not_hold_up_the_next(rig: Rig, dsn: str) -> None:
    rig.fill(3)
    rig.run("prepared")
    with psycopg.connect(dsn) as frozen:
        frozen.execute("SELECT count(*) FROM creds")
        frozen_now = """UPDATE keyturn.fence SET pid = a.pid, backend_start = a.backend_start
                        FROM pg_stat_activity a WHERE a.pid = %s"""
        rig.sql.execute(frozen_now, (frozen.info.backend_pid,))
        rig.run("rolled_back", max_wait_s=5)
        with pytest.raises(psycopg.OperationalError):
            frozen.execute("SELECT 1")
    assert (rig.shadows(), rig.left_behind()) == ([], [])


# -- what goes over with the name ----------------------------------------------------------------------------------


@pytest.mark.parametrize("goes_back", [False, True], ids=["forward", "back"])
def test_what_belongs_to_the_name_goes_with_it(rig: Rig, goes_back: bool) -> None:
    rig.sql.execute("""
        CREATE TABLE creds (id bigint PRIMARY KEY, secret text DEFAULT 'nothing 50%' NOT NULL);
        ALTER TABLE creds ALTER secret SET STORAGE EXTERNAL, ALTER secret SET STATISTICS 7,
                          ALTER secret SET (n_distinct = -0.5), ALTER secret SET COMPRESSION pglz;
        COMMENT ON COLUMN creds.secret IS 'what nobody may know, 100%';
        DO $$ BEGIN CREATE ROLE reader_of_one; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT SELECT (secret), UPDATE (secret) ON creds TO reader_of_one;
        GRANT SELECT (id) ON creds TO reader_of_one;
        CREATE VIEW shown WITH (security_barrier = true) AS SELECT id, secret AS cell FROM creds;
        CREATE VIEW shown_again AS SELECT cell FROM shown;
        CREATE VIEW counted AS SELECT count(*) AS rows FROM creds""")
    rig.insert([(1, _cell("old", "1:0"))])
    asked = """
        SELECT pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum), a.attstorage::text,
               a.attcompression::text, a.attstattarget, a.attoptions, a.attacl::text, a.attnotnull
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'creds'::regclass AND a.attname = 'secret'"""
    before = rig.sql.execute(asked).fetchone()
    _forward(rig)
    if goes_back:
        rig.run("rolled_back")
    assert rig.sql.execute(asked).fetchone() == before
    (shadow,) = [name for name in _columns(rig) if name.startswith("keyturn_")]
    acl = "SELECT attacl::text FROM pg_attribute WHERE attrelid = 'creds'::regclass AND attname = %s"
    assert rig.sql.execute(acl, (shadow,)).fetchone() in ((None,), ("{}",))
    key = "old" if goes_back else "new"
    for view in ("shown", "shown_again"):
        (cell,) = rig.cells(view, "cell", "cell").values()
        assert opens(key, cell) == b"1:0"
    options = rig.sql.execute("SELECT reloptions FROM pg_class WHERE relname = 'shown'").fetchone()
    assert options == (["security_barrier=true"],)
    rig.run("swept")
    rig.run("cleaned")
    assert rig.sql.execute(asked).fetchone() == before
    rig.sql.execute("DROP OWNED BY reader_of_one")


_REFUSED = {
    "generated column": ("ALTER TABLE creds ADD size int GENERATED ALWAYS AS (length(secret)) STORED", "size"),
    "index": ("CREATE INDEX by_secret ON creds (secret)", "by_secret"),
    "partial index": ("CREATE INDEX by_some ON creds (ver) WHERE secret <> ''", "by_some"),
    "UNIQUE": ("ALTER TABLE creds ADD CONSTRAINT one_each UNIQUE (secret)", "one_each"),
    "CHECK": ("ALTER TABLE creds ADD CONSTRAINT filled CHECK (secret <> '')", "filled"),
    "foreign key": (
        "CREATE TABLE named (name text PRIMARY KEY); ALTER TABLE creds DISABLE TRIGGER ALL;"
        "INSERT INTO named SELECT secret FROM creds;"
        "ALTER TABLE creds ADD CONSTRAINT known FOREIGN KEY (secret) REFERENCES named (name)",
        "known",
    ),
    "materialized view": ("CREATE MATERIALIZED VIEW kept AS SELECT secret FROM creds", "kept"),
    "rule": (
        "CREATE TABLE log (t text); CREATE RULE noted AS ON UPDATE TO creds DO ALSO INSERT INTO log "
        "VALUES (NEW.secret)",
        "noted",
    ),
    "function with a SQL body": (
        "CREATE FUNCTION one() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT secret FROM creds LIMIT 1; END",
        "one()",
    ),
    "extended statistics": ("CREATE STATISTICS pair ON secret, ver FROM creds", "pair"),
    "policy": ("CREATE POLICY those ON creds USING (secret <> '')", "those"),
    "publication with columns": ("CREATE PUBLICATION listed FOR TABLE creds (id, secret)", "listed"),
    "publication": ("CREATE PUBLICATION whole FOR TABLE creds", "whole"),
    "publication of all": ("CREATE PUBLICATION everything FOR ALL TABLES", "everything"),
    "trigger": (
        "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER watching AFTER UPDATE OF secret ON creds FOR EACH ROW EXECUTE FUNCTION t()",
        "watching",
    ),
    "trigger when": (
        "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER judging AFTER UPDATE ON creds FOR EACH ROW WHEN (NEW.secret IS NULL) EXECUTE FUNCTION t()",
        "judging",
    ),
    "trigger after ours": (
        "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER zzzz_last BEFORE UPDATE ON creds FOR EACH ROW EXECUTE FUNCTION t()",
        "zzzz_last",
    ),
    "inherits": (
        "CREATE TABLE parent (secret text NOT NULL); ALTER TABLE creds INHERIT parent",
        "inherits the column",
    ),
    "collation": (
        "CREATE COLLATION loose (locale = 'C'); ALTER TABLE creds ALTER secret TYPE text COLLATE loose;"
        "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'loose'",
        "nondeterministic collation",
    ),
    "attribute numbers": (
        "DO $$ BEGIN FOR n IN 1..1500 LOOP EXECUTE 'ALTER TABLE creds ADD COLUMN x int'; "
        "EXECUTE 'ALTER TABLE creds DROP COLUMN x'; END LOOP; END $$",
        "1503 attribute numbers",
    ),
}


@pytest.mark.parametrize("what", sorted(_REFUSED), ids=lambda what: what.replace(" ", "-"))
def test_trap_48_what_would_stay_with_the_old_column_is_refused_by_name(rig: Rig, what: str) -> None:
    rig.fill(2)
    statement, name = _REFUSED[what]
    rig.sql.execute(statement)
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert refused.value.code == "columns-refused"
    assert name in refused.value.message
    assert "cut_over: rows" in str(refused.value)
    assert (rig.shadows(), rig.left_behind()) == ([], [])
    rig.sql.execute("DROP PUBLICATION IF EXISTS listed, whole, everything")


def test_all_refusals_are_told_at_once(rig: Rig) -> None:
    rig.fill(2)
    rig.sql.execute(
        "CREATE INDEX by_secret ON creds (secret); CREATE MATERIALIZED VIEW kept AS SELECT secret FROM creds"
    )
    rig.columns = [rig.column("creds", "secret", plaintext="keep")]
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    for name in ("by_secret", "kept", "plaintext: keep"):
        assert name in refused.value.message


def test_a_dependant_that_appears_later_is_refused_before_the_swap_and_not_on_the_way_back(rig: Rig) -> None:
    rig.fill(2)
    rig.run("prepared")
    rig.sql.execute("CREATE INDEX by_secret ON creds (secret)")
    with pytest.raises(KeyturnError) as refused:
        rig.run("cut_over")
    assert "by_secret" in refused.value.message
    rig.sql.execute("DROP INDEX by_secret")
    rig.run("cut_over")
    rig.sql.execute("CREATE INDEX by_secret ON creds (secret)")
    rig.run("rolled_back", step="all")
    assert rig.plaintexts("old") == {1: "1:0", 2: "2:0"}


def test_a_partition_of_its_own_kind_is_refused(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text) PARTITION BY RANGE (id)")
    rig.sql.execute("CREATE TABLE low PARTITION OF creds (secret NOT NULL) FOR VALUES FROM (0) TO (10)")
    rig.sql.execute("CREATE INDEX here_only ON low (secret)")
    rig.insert([(1, _cell("old", "1:0"))])
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert "NOT NULL of public.low" in refused.value.message
    assert "here_only of public.low" in refused.value.message


def test_another_owner_is_refused(rig: Rig, dsn: str) -> None:
    rig.fill(2)
    rig.sql.execute("DO $$ BEGIN CREATE ROLE writer_only LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    rig.sql.execute("GRANT SELECT, UPDATE ON creds TO writer_only; GRANT CREATE ON DATABASE app TO writer_only")
    rig.dsn = dsn.replace("user=postgres", "user=writer_only")
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert "a table of another owner" in refused.value.message
    rig.sql.execute("DROP OWNED BY writer_only")


@pytest.fixture
def keeper(rig: Rig, dsn: str) -> Iterator[Rig]:
    """A role that owns the table, and nothing else but the view ``ours``; calls are its own."""
    rig.fill(2)
    rig.sql.execute("""
        DO $$ BEGIN CREATE ROLE keeper LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT CREATE ON DATABASE app TO keeper;
        ALTER TABLE creds OWNER TO keeper;
        CREATE VIEW theirs AS SELECT secret FROM creds;
        CREATE VIEW ours AS SELECT secret FROM creds;
        ALTER VIEW ours OWNER TO keeper""")
    rig.dsn = dsn.replace("user=postgres", "user=keeper")
    yield rig
    rig.sql.execute("DROP OWNED BY keeper CASCADE")


def test_views_that_this_role_cannot_make_again_are_refused_and_others_are_carried_over(keeper: Rig) -> None:
    before = keeper.snapshot()
    with pytest.raises(KeyturnError) as refused:
        keeper.run("prepared")
    assert (refused.value.code, refused.value.where) == ("columns-refused", "public.creds.secret")
    for words in ("view of another owner theirs", "view in a schema where this role has no CREATE ours"):
        assert words in refused.value.message
    assert keeper.snapshot() == before
    keeper.sql.execute("DROP VIEW theirs; GRANT CREATE ON SCHEMA public TO keeper")
    _forward(keeper)
    assert sorted(opens("new", cell) or b"" for cell in keeper.cells("ours", "secret", "secret")) == [b"1:0", b"2:0"]


def test_a_table_made_of_a_type_is_refused(rig: Rig) -> None:
    rig.sql.execute("CREATE TYPE kind AS (id bigint, secret text); CREATE TABLE creds OF kind (PRIMARY KEY (id))")
    rig.insert([(1, _cell("old", "1:0"))])
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert (refused.value.code, refused.value.where) == ("columns-refused", "public.creds.secret")
    assert "a table made of a type" in refused.value.message
    assert rig.shadows() == []


_SEVERAL = "values of several cells"
#: What has to be done to a table of plain cells, what the catalog says of it, and the words of the refusal.
_NEVER: dict[str, tuple[str, dict[str, Any], str]] = {
    "paths": (
        "UPDATE creds SET secret = json_build_object('token', secret)",
        {"paths": ["$.token"]},
        _SEVERAL,
    ),
    "list": ("UPDATE creds SET secret = secret || ',' || secret", {"list": ","}, _SEVERAL),
    "pattern": ("UPDATE creds SET secret = '<' || secret || '>'", {"pattern": "<(.+)>"}, _SEVERAL),
    "array": ("ALTER TABLE creds ALTER secret TYPE text[] USING ARRAY[secret]", {}, _SEVERAL),
    "where": ("SELECT 1", {"where": {"column": "ver", "is": 0}}, "rows chosen by a condition"),
    "set": ("SELECT 1", {"set": {"ver": {"new": 2, "old": 0}}}, "columns that change with the cell"),
}


@pytest.mark.parametrize("what", sorted(_NEVER))
def test_what_never_goes_by_columns_is_refused_by_name_and_goes_by_rows(rig: Rig, what: str) -> None:
    statement, more, words = _NEVER[what]
    rig.fill(3)
    rig.sql.execute(statement)
    rig.columns = [rig.column("creds", "secret", **more)]
    before = rig.snapshot()
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert (refused.value.code, refused.value.where) == ("columns-refused", "public.creds.secret")
    assert f"public.creds.secret: {words}" in refused.value.message
    assert "cut_over: rows" in str(refused.value)
    assert rig.snapshot() == before
    rig.defaults.update(cut_over="auto", max_writer_wait_ms=0)
    choice = rig.info()["choice"]
    assert (choice["cut_over"], choice["refusals"]) == ("rows", [f"public.creds.secret: {words}"])
    _forward(rig)
    assert rig.info()["coverage"][0]["new"] == 3


def test_a_first_encryption_that_has_begun_otherwise_never_goes_by_columns(rig: Rig) -> None:
    rig.fill(3, "new")
    rig.sql.execute("UPDATE creds SET secret = '{}' WHERE id = 2")
    rig.old = ""
    plain = {"preset": "aes256gcm-b64", "plaintext": "json-object"}
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt", envelope=plain)]
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert refused.value.code == "columns-refused"
    assert "rows that are under the new key already, in a first encryption" in refused.value.message
    assert rig.shadows() == []


def test_one_of_them_decides_for_all_columns_of_the_secret(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE TABLE more (LIKE creds INCLUDING ALL); INSERT INTO more SELECT * FROM creds")
    rig.columns.append(rig.column("more", "secret", where={"column": "ver", "is": 0}))
    with pytest.raises(KeyturnError) as refused:
        rig.run("prepared")
    assert (refused.value.code, refused.value.where) == ("columns-refused", "public.more.secret")
    rig.run("prepared", cut_over="auto", max_writer_wait_ms=0)
    assert [fact["cut_over"] for fact in rig.run("prepared", check=True)["facts"]] == ["rows", "rows"]


def test_two_columns_of_one_table_go_together(rig: Rig) -> None:
    rig.fill(4)
    rig.sql.execute("ALTER TABLE creds ADD other text")
    rig.sql.execute("UPDATE creds SET other = secret WHERE id < 4")
    rig.columns.append(rig.column("creds", "other"))
    _forward(rig)
    rig.sql.execute("UPDATE creds SET other = %s WHERE id = 4", (_cell("new", "4:late"),))
    assert rig.plaintexts("new") == {1: "1:0", 2: "2:0", 3: "3:0", 4: "4:0"}
    assert [opens("new", cell) for _id, cell in sorted(rig.cells(column="other").items())] == [
        b"1:0",
        b"2:0",
        b"3:0",
        b"4:late",
    ]
    rig.run("rolled_back", step="all")
    assert [entry["old"] for entry in rig.info()["coverage"]] == [4, 4]
    assert (sorted(_columns(rig)), rig.left_behind()) == (["id", "other", "secret", "ver"], [])


# -- which way -----------------------------------------------------------------------------------------------------


def test_the_way_that_a_rotation_began_with_stays(rig: Rig) -> None:
    rig.fill(3)
    rig.run("prepared")
    result = rig.run("prepared", cut_over="rows")
    assert (result["choice"]["cut_over"], result["facts"][0]["cut_over"]) == ("columns", "columns")
    for state in ("cut_over", "swept", "cleaned"):
        rig.run(state, cut_over="rows")
    assert rig.plaintexts("new") == {1: "1:0", 2: "2:0", 3: "3:0"}
    assert rig.left_behind() == []


@pytest.mark.parametrize(("first", "second"), [("rows", "columns"), ("columns", "rows")])
def test_what_a_former_rotation_kept_the_other_way_goes(rig: Rig, first: str, second: str) -> None:
    rig.fill(3)
    for state in _FORWARD:
        rig.run(state, cut_over=first)
    rig.old, rig.new = "new", "third"
    for state in (*_FORWARD, "cleaned"):
        rig.run(state, cut_over=second, rotation_id="r2")
    assert rig.plaintexts("third") == {1: "1:0", 2: "2:0", 3: "3:0"}
    assert (rig.shadows(), rig.left_behind()) == ([], [])


@pytest.mark.parametrize(
    ("more", "index", "way", "why"),
    [
        ({}, False, "rows", "writers wait about 0 ms, 1.0 s are permitted"),
        ({"max_writer_wait_ms": 0}, False, "columns", "by rows writers would wait"),
        ({"max_writer_wait_ms": 0, "quiesce": "stop"}, False, "rows", "stopped meanwhile"),
        ({"max_writer_wait_ms": 0}, True, "rows", "columns is not possible"),
    ],
    ids=["short", "long", "stopped", "refused"],
)
def test_the_way_is_chosen_by_the_wait_and_by_what_depends_on_the_column(
    rig: Rig, more: dict[str, Any], index: bool, way: str, why: str
) -> None:
    rig.fill(5)
    if index:
        rig.sql.execute("CREATE INDEX by_secret ON creds (secret)")
    rig.defaults.update(cut_over="auto", **more)
    told = rig.info()["choice"]
    assert (told["cut_over"], why in told["why"], bool(told["refusals"])) == (way, True, index)
    _forward(rig)
    assert rig.run("cleaned", check=True)["facts"][0]["cut_over"] == way
    assert rig.info()["choice"] == {"cut_over": way, "why": "the rotation has begun this way", "refusals": []}
