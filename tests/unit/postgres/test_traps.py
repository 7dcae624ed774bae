# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults seen in other programs, one test each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.arrays import register
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Limits, connect, explained
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import FORWARD, SAME, Fence, ensure_schema
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Source
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import find_column, find_table
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import Writer

from tests.support.postgres import EmbeddedPostgres
from tests.support.proxy import RenamingProxy
from tests.support.reencryption import KEYS, Rig, opens, seal


def _refused(rig: Rig, state: str, **more: Any) -> KeyturnError:
    with pytest.raises(KeyturnError) as refused:
        rig.run(state, **more)
    return refused.value


@pytest.mark.parametrize("state", ["in_place", "prepared"])
def test_trap_02_unknown_rows_stop_before_any_write(rig: Rig, state: str) -> None:
    rig.fill()
    rig.insert([(31, seal("other", b"31:0").decode()), (32, "garbage")])
    before = rig.snapshot()
    error = _refused(rig, state)
    assert (error.code, error.where) == ("rows-unknown", "public.creds.secret")
    assert "31; 32" in error.message
    assert rig.snapshot() == before


def test_trap_02_a_wrong_old_key_writes_nothing(rig: Rig) -> None:
    rig.fill()
    rig.old = "other"
    before = rig.snapshot()
    error = _refused(rig, "in_place")
    assert error.code == "rows-unknown"
    assert "30 of 30" in error.message
    assert rig.snapshot() == before


def test_trap_02_one_bad_column_stops_all(rig: Rig) -> None:
    rig.fill()
    rig.sql.execute("CREATE TABLE more (id int PRIMARY KEY, secret text)")
    rig.sql.execute("INSERT INTO more VALUES (1, 'garbage')")
    rig.columns.append(rig.column("more", "secret"))
    before = rig.snapshot()
    assert _refused(rig, "in_place").where == "public.more.secret"
    assert rig.snapshot() == before


def test_trap_03_every_page_is_read(rig: Rig) -> None:
    rig.fill(1500)
    result = rig.run("in_place", batch_rows=100)
    assert (result["coverage"][0]["total"], result["coverage"][0]["new"]) == (1500, 1500)
    assert rig.sql.execute("SELECT count(*) FROM creds").fetchone() == (1500,)


def test_trap_04_zero_rows_is_a_failure(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text)")
    assert _refused(rig, "in_place").code == "rows-none"
    rig.insert([(1, None)])
    assert _refused(rig, "prepared").code == "rows-none"


def test_trap_04_a_table_in_another_schema_is_named(rig: Rig) -> None:
    rig.sql.execute("CREATE SCHEMA app CREATE TABLE creds (id int PRIMARY KEY, secret text)")
    error = _refused(rig, "in_place")
    assert (error.code, error.hint) == ("table-missing", "There is app.creds")


def _writer(rig: Rig) -> tuple[Any, Writer, Source]:
    link = connect(rig.dsn.encode(), "database app", Limits())
    register(link)
    column = find_column(link, find_table(link, "creds"), "secret")
    return link, Writer(column), Source(column)


def test_trap_05_an_edit_in_between_survives(rig: Rig) -> None:
    rig.fill(3)
    link, writer, source = _writer(rig)
    rows = source.some(link, 10)
    edited = seal("old", b"2:1").decode()
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 2", (edited,))
    assert writer.replace_cells(link, rows, [seal("new", b"x") for _raw in rows.raws]) == 2
    assert rig.cells()[2] == edited
    link.close()


def test_trap_05_an_edit_of_a_plaintext_row_survives(rig: Rig) -> None:
    rig.fill(1)
    rig.insert([(2, '{"a": 1}'), (3, '{"a": 1}')])
    link, writer, source = _writer(rig)
    rows = source.some(link, 10).pick((1, 2))
    rig.sql.execute("""UPDATE creds SET secret = '{"a": 2}' WHERE id = 2""")
    assert writer.replace_versions(link, rows, [seal("new", b"x") for _raw in rows.raws]) == 1
    assert rig.cells()[2] == '{"a": 2}'
    link.close()


def test_trap_06_rows_inserted_behind_the_cursor_are_found(rig: Rig) -> None:
    rig.fill(40)
    rig.sql.execute("CREATE TABLE parked AS SELECT -id AS id, secret FROM creds WHERE id < 4")
    rig.sql.execute("""
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO creds SELECT * FROM parked; DELETE FROM parked; RETURN NULL; END $$""")
    rig.sql.execute("CREATE TRIGGER late AFTER UPDATE ON creds FOR EACH ROW WHEN (OLD.id = 40) EXECUTE FUNCTION late()")
    result = rig.run("in_place")
    assert (result["coverage"][0]["total"], result["coverage"][0]["new"]) == (43, 43)


@pytest.mark.parametrize("state", ["in_place", "rolled_back"])
def test_trap_06_a_pass_longer_than_the_longest_wait_is_followed_by_another(rig: Rig, state: str) -> None:
    rig.fill(40)
    if state == "rolled_back":
        rig.run("in_place")
    rig.sql.execute("CREATE TABLE parked AS SELECT -id AS id, secret FROM creds WHERE id < 4")
    rig.sql.execute("""
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO creds SELECT * FROM parked; DELETE FROM parked; PERFORM pg_sleep(0.3); RETURN NULL; END $$""")
    rig.sql.execute("CREATE TRIGGER late AFTER UPDATE ON creds FOR EACH ROW WHEN (OLD.id = 40) EXECUTE FUNCTION late()")
    result = rig.run(state, max_wait_s=0.2)
    found = rig.info()["coverage"][0]
    assert (found["total"], found["new" if state == "in_place" else "old"]) == (43, 43)
    assert result["rows_written"] == 43


def test_trap_06_somebody_who_keeps_writing_under_the_old_key_is_not_waited_for_for_ever(rig: Rig) -> None:
    rig.fill(40)
    rig.sql.execute("CREATE TABLE kept AS SELECT * FROM creds WHERE id < 4")
    rig.sql.execute("""
        CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO creds SELECT -nextval('fresh'), secret FROM kept; RETURN NULL; END $$""")
    rig.sql.execute("CREATE SEQUENCE fresh")
    rig.sql.execute("CREATE TRIGGER again AFTER UPDATE ON creds FOR EACH STATEMENT EXECUTE FUNCTION again()")
    error = _refused(rig, "in_place", max_wait_s=0.5)
    assert (error.code, error.where) == ("rows-behind", "public.creds.secret")


def test_trap_07_a_second_run_recognises_finished_rows(rig: Rig) -> None:
    rig.fill(10)
    rig.insert([(number, seal("new", b"done").decode()) for number in range(11, 21)])
    done = {number: cell for number, cell in rig.cells().items() if number > 10}
    assert rig.run("in_place")["rows_written"] == 10
    assert {number: cell for number, cell in rig.cells().items() if number > 10} == done


def test_trap_08_a_forgotten_column_is_found(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE TABLE forgotten (id int PRIMARY KEY, note text, token bytea, doc jsonb)")
    rig.sql.execute(
        "INSERT INTO forgotten VALUES (1, 'a note that is not encrypted', %s, to_jsonb(%s::text))",
        (seal("new", b"t"), seal("old", b"d").decode()),
    )
    found = {(entry["table"], entry["column"], entry["key"]) for entry in rig.info(search=True)["found"]}
    assert found == {("public.forgotten", "doc", "old"), ("public.forgotten", "token", "new")}


def test_trap_12_the_tag_at_the_other_end_is_another_layout(rig: Rig) -> None:
    parts = ["salt:64", "nonce:16", "ciphertext", "tag:16"]
    look_alike = load_spec({"preset": "pbkdf2-aes256gcm-b64", "parts": parts})
    cell = Envelope(look_alike, KEYS["old"]).seal(b"not mine")
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text)")
    rig.insert([(1, seal("old", b"mine", "pbkdf2-aes256gcm-b64").decode()), (2, cell.decode())])
    rig.columns = [rig.column("creds", "secret", envelope="pbkdf2-aes256gcm-b64")]
    error = _refused(rig, "in_place")
    assert (error.code, "keys: 2)" in error.message) == ("rows-unknown", True)


def test_trap_21_lookups_are_cleared_once_and_again_on_the_way_back(rig: Rig) -> None:
    rig.fill()
    rig.sql.execute("CREATE TABLE tokens (lookup text, n int)")
    rig.sql.execute("INSERT INTO tokens SELECT 'old' || n, n FROM generate_series(1, 9) n")
    rig.defaults = {
        "clear": [{"table": "tokens", "column": "lookup"}],
        "indexes": [{"table": "tokens", "column": "lookup", "name": "tokens_lookup_idx"}],
    }
    rig.run("prepared")
    rig.run("cut_over")
    swept = rig.run("swept")
    assert swept["cleared"] == [{"table": "public.tokens", "column": "lookup", "rows": 9, "filled": 0}]
    assert swept["indexes"] == [{"name": "tokens_lookup_idx", "table": "public.tokens", "created": True}]
    rig.sql.execute("UPDATE tokens SET lookup = 'new' WHERE n = 1")
    again = rig.run("swept")
    assert (again["changed"], again["cleared"][0]["rows"], again["cleared"][0]["filled"]) == (False, 0, 1)
    rig.run("rolled_back")
    assert rig.run("swept")["cleared"][0]["rows"] == 1
    rig.run("cleaned")


def test_trap_21_an_index_build_that_was_interrupted_is_made_again(rig: Rig) -> None:
    rig.fill()
    rig.sql.execute("CREATE TABLE tokens (lookup text)")
    rig.sql.execute("INSERT INTO tokens VALUES ('x'), ('x')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        rig.sql.execute("CREATE UNIQUE INDEX CONCURRENTLY idx ON tokens (lookup)")
    rig.defaults = {"indexes": [{"table": "tokens", "column": "lookup", "name": "idx"}]}
    for state in ("prepared", "cut_over"):
        rig.run(state)
    assert rig.run("swept")["indexes"][0]["created"]
    assert rig.sql.execute(
        "SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = 'idx'::regclass"
    ).fetchone() == (
        True,
        False,
    )


def test_trap_40_swapping_back_keeps_what_was_written_since(rig: Rig) -> None:
    rig.fill(5)
    rig.run("prepared")
    rig.run("cut_over")
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 1", (seal("new", b"1:1").decode(),))
    rig.sql.execute("DELETE FROM creds WHERE id = 2")
    rig.insert([(6, seal("new", b"6:0").decode())])
    rig.run("rolled_back")
    assert rig.plaintexts("old") == {1: "1:1", 3: "3:0", 4: "4:0", 5: "5:0", 6: "6:0"}


def test_trap_41_what_an_old_process_writes_after_the_swap_is_swept(rig: Rig) -> None:
    rig.fill(5)
    rig.run("prepared")
    rig.run("cut_over")
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 1", (seal("old", b"1:1").decode(),))
    error = _refused(rig, "cleaned")
    assert (error.code, rig.shadows()) == ("rows-behind", ["prev"])
    assert rig.run("swept")["coverage"][0]["new"] == 5
    assert rig.plaintexts("new")[1] == "1:1"


def test_trap_45_no_plaintext_and_no_key_in_the_servers_log(rig: Rig, server: EmbeddedPostgres) -> None:
    canary = "canary-7f3a9c-plaintext"
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text)")
    with rig.sql.cursor().copy("COPY creds FROM STDIN") as copy:
        for number in range(1, 21):
            copy.write_row((number, json.dumps({"jwk": f"{canary} {number}"})))
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt")]
    rig.old = ""
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    later = seal("new", json.dumps({"jwk": f"{canary} later"}).encode()).decode()
    rig.insert([(21, later)])
    rig.run("rolled_back")
    rig.insert([(22, later)])
    rig.run("swept")
    rig.run("cleaned")
    rig.run("in_place", rotation_id="r2")
    rig.run("rolled_back", rotation_id="r2")
    assert all(canary in cell for cell in rig.cells().values())
    log = server.log_text()
    assert "keyturn_plain" in log
    assert later in log
    assert canary not in log
    assert not [name for name, key in KEYS.items() if key.decode() in log or key.hex() in log]


def test_trap_45_errors_never_repeat_the_servers_text(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("ALTER TABLE creds ADD CHECK (length(secret) < 60 OR ver = 0)")
    rig.sql.execute("""
        CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'row % holds %', OLD.id, OLD.secret; END $$""")
    rig.sql.execute("CREATE TRIGGER shout BEFORE UPDATE ON creds FOR EACH ROW EXECUTE FUNCTION shout()")
    cells = list(rig.cells().values())
    error = _refused(rig, "in_place")
    assert (error.code, error.where) == ("sql-failed", "public.creds.secret")
    assert not [cell for cell in cells if cell in str(error)]
    assert error.__cause__ is None


@pytest.mark.parametrize("forced", [False, True])
def test_trap_50_row_security_is_an_error(rig: Rig, forced: bool) -> None:
    rig.fill(3)
    rig.sql.execute("DROP ROLE IF EXISTS tenant")
    rig.sql.execute("CREATE ROLE tenant LOGIN")
    try:
        rig.sql.execute("GRANT ALL ON creds TO tenant")
        if forced:
            rig.sql.execute("ALTER TABLE creds OWNER TO tenant")
            rig.sql.execute("ALTER TABLE creds FORCE ROW LEVEL SECURITY")
        rig.sql.execute("ALTER TABLE creds ENABLE ROW LEVEL SECURITY")
        rig.sql.execute("CREATE POLICY mine ON creds USING (id = 1)")
        rig.dsn = rig.dsn.replace("user=postgres", "user=tenant")
        error = _refused(rig, "in_place")
        assert (error.code, error.where) == ("row-security", "public.creds")
    finally:
        rig.sql.execute("DROP TABLE creds")
        rig.sql.execute("DROP OWNED BY tenant")
        rig.sql.execute("DROP ROLE tenant")


def test_trap_50_policies_that_appear_later_are_an_error_too(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("DROP ROLE IF EXISTS tenant")
    rig.sql.execute("CREATE ROLE tenant LOGIN")
    try:
        rig.sql.execute("GRANT ALL ON creds TO tenant")
        link = connect(rig.dsn.replace("user=postgres", "user=tenant").encode(), "database app", Limits())
        rig.sql.execute("ALTER TABLE creds ENABLE ROW LEVEL SECURITY")
        with pytest.raises(KeyturnError) as refused, explained("public.creds"):
            link.execute("SELECT secret FROM creds")
        link.close()
        assert (refused.value.code, refused.value.where) == ("row-security", "public.creds")
    finally:
        rig.sql.execute("DROP TABLE creds")
        rig.sql.execute("DROP OWNED BY tenant")
        rig.sql.execute("DROP ROLE tenant")


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_trap_51_the_roles_default_isolation_does_not_matter(rig: Rig, level: str) -> None:
    rig.fill(20)
    rig.sql.execute("DROP ROLE IF EXISTS strict")
    rig.sql.execute("CREATE ROLE strict LOGIN SUPERUSER")
    try:
        rig.sql.execute(f"ALTER ROLE strict SET default_transaction_isolation = '{level}'")
        rig.sql.execute("ALTER ROLE strict SET default_transaction_read_only = on")
        rig.dsn = rig.dsn.replace("user=postgres", "user=strict")
        assert rig.info()["server"]["default_isolation"] == level
        for state in ("prepared", "cut_over", "swept", "rolled_back", "swept", "cleaned"):
            rig.run(state)
        assert rig.run("in_place", rotation_id="r2")["coverage"][0]["new"] == 20
    finally:
        rig.sql.execute("DROP OWNED BY strict CASCADE")
        rig.sql.execute("DROP ROLE strict")


def test_trap_52_a_pooler_is_refused(rig: Rig, server: EmbeddedPostgres) -> None:
    rig.fill(3)
    with RenamingProxy(server.port) as proxy:
        rig.dsn = rig.dsn.replace(f"port={server.port}", f"port={proxy.port}")
        error = _refused(rig, "in_place")
    assert error.code == "pooler-refused"


def test_trap_53_the_guard_is_the_whole_cell(rig: Rig) -> None:
    rig.fill(1)
    old = rig.cells()[1]
    edited = old[:-4] + ("AAA=" if not old.endswith("AAA=") else "BBB=")
    link, writer, source = _writer(rig)
    rows = source.some(link, 10)
    rig.sql.execute("UPDATE creds SET secret = %s", (edited,))
    assert writer.replace_cells(link, rows, [b"x"]) == 0
    assert rig.cells()[1] == edited
    link.close()


def test_trap_54_an_old_snapshot_reads_what_was(rig: Rig) -> None:
    rig.fill(5)
    with psycopg.connect(rig.dsn) as dump:
        dump.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        dump.execute("SELECT 1 FROM pg_class LIMIT 1")
        for state in ("prepared", "cut_over"):
            rig.run(state)
        seen = [opens("old", row[0]) for row in dump.execute("SELECT secret FROM creds ORDER BY id").fetchall()]
    assert seen == [f"{number}:0".encode() for number in range(1, 6)]


def test_trap_56_the_last_statement_of_a_killed_writer_is_waited_for(rig: Rig) -> None:
    rig.fill(5)
    rig.run("prepared")
    rig.run("cut_over")
    late = psycopg.connect(rig.dsn)
    late.execute("UPDATE creds SET secret = %s WHERE id = 1", (seal("old", b"1:late").decode(),))
    results: list[dict[str, Any]] = []
    sweeper = threading.Thread(target=lambda: results.append(rig.run("swept")))
    sweeper.start()
    waiting = """SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                 WHERE NOT l.granted AND l.mode = 'ShareRowExclusiveLock' AND a.application_name = 'keyturn'"""
    while rig.sql.execute(waiting).fetchone() != (1,):
        assert sweeper.is_alive()
    late.commit()
    late.close()
    sweeper.join()
    assert results[0]["coverage"][0]["new"] == 5
    assert rig.plaintexts("new")[1] == "1:late"


def _fence(rig: Rig, epoch: int = 1) -> tuple[Any, Fence, Pace]:
    link = connect(rig.dsn.encode(), "database app", Limits(lock_ms=50))
    pace = Pace("test", max_wait_s=10)
    ensure_schema(link, "keyturn", pace)
    return link, Fence("keyturn", "KEY", "r1", epoch), pace


def test_trap_57_a_zombie_cannot_write_after_the_take_over(rig: Rig) -> None:
    zombie_link, zombie, pace = _fence(rig)
    zombie.take(zombie_link, FORWARD, pace)
    later_link, later, pace = _fence(rig, epoch=2)
    later.take(later_link, SAME, pace)
    with pytest.raises(KeyturnError) as refused, zombie_link.transaction():
        zombie.hold(zombie_link)
    assert refused.value.code == "fenced"
    with pytest.raises(KeyturnError) as refused:
        zombie.take(zombie_link, SAME, pace)
    assert refused.value.code == "fenced"


@pytest.mark.parametrize("way", ["rows", "columns"])
def test_trap_57_a_run_that_wakes_up_after_the_end_cannot_begin_again(rig: Rig, way: str, tmp_path: Path) -> None:
    def elsewhere(number: int) -> None:
        rig.state_dir = tmp_path / str(number)

    rig.fill()
    rig.run("rolled_back", epoch=2)
    elsewhere(1)
    assert _refused(rig, "prepared", epoch=1, cut_over=way).code == "fenced"
    elsewhere(2)
    for state in ("prepared", "cut_over", "swept", "cleaned"):
        rig.run(state, rotation_id="r2", epoch=3, cut_over=way)
    elsewhere(3)
    rig.old, rig.new = "new", "third"
    error = _refused(rig, "prepared", rotation_id="r2", epoch=2, cut_over=way)
    assert (error.code, "is over" in error.message) == ("fenced", True)
    assert rig.shadows() == []


def test_trap_57_a_zombie_inside_its_transaction_is_ended(rig: Rig) -> None:
    rig.fill(3)
    zombie_link, zombie, pace = _fence(rig)
    zombie.take(zombie_link, FORWARD, pace)
    zombie_link.execute("BEGIN")
    zombie.hold(zombie_link)
    zombie_link.execute("UPDATE creds SET secret = 'zombie'")
    later_link, later, pace = _fence(rig, epoch=2)
    later.take(later_link, SAME, pace)
    with pytest.raises(psycopg.OperationalError):
        zombie_link.execute("COMMIT")
    assert "zombie" not in rig.cells().values()


def test_a_row_that_somebody_holds_is_visited_again(rig: Rig) -> None:
    rig.fill(20)
    holder = psycopg.connect(rig.dsn)
    holder.execute("SELECT 1 FROM creds WHERE id = 7 FOR UPDATE")
    results: list[dict[str, Any]] = []
    worker = threading.Thread(target=lambda: results.append(rig.run("in_place")))
    worker.start()
    behind = 30
    while behind > 1:
        assert worker.is_alive()
        behind = sum(1 for plaintext in rig.plaintexts("old").values() if plaintext)
    holder.rollback()
    holder.close()
    worker.join()
    assert results[0]["coverage"][0]["new"] == 20


def test_a_table_lock_that_never_comes_ends_with_a_clear_word(rig: Rig) -> None:
    rig.fill(3)
    rig.run("prepared")
    with psycopg.connect(rig.dsn) as holder:
        holder.execute("UPDATE creds SET ver = 1 WHERE id = 1")
        error = _refused(rig, "cut_over", max_wait_s=1)
        assert (error.code, error.where) == ("lock-unavailable", "public.creds")
    assert rig.shadows() == ["next"]


def test_the_connection_string_is_never_repeated(rig: Rig) -> None:
    for text in ("host=127.0.0.1 port=1 password=hunter2", "postgresql://u:hunter2@[bad", "hunter2"):
        rig.dsn = text
        error = _refused(rig, "in_place")
        assert error.code == "dsn-failed"
        assert "hunter2" not in str(error)
        assert error.__cause__ is None


def test_an_invalid_key_is_refused_before_anything(rig: Rig) -> None:
    rig.fill(3)
    before = rig.snapshot()
    error = _refused(rig, "in_place", keys={"old": {"value": KEYS["old"].decode()}, "new": {"value": "c2hvcnQ="}})
    assert error.code == "key-invalid"
    assert rig.snapshot() == before


def test_info_says_what_a_rotation_would_meet(rig: Rig) -> None:
    rig.fill(10)
    rig.sql.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    rig.sql.execute("CREATE TRIGGER stamp BEFORE UPDATE ON creds FOR EACH ROW EXECUTE FUNCTION f()")
    rig.run("prepared")
    told = rig.info()
    column = told["columns"][0]
    assert (column["rows"], column["triggers"], column["fact"]) == (10, ["stamp"], "next")
    assert column["primary_key"] == [{"name": "id", "type": "bigint"}]
    assert told["estimates"]["writer_wait_ms"] == 0.0
    assert told["server"]["may_make_side_tables"] is True
    assert told["coverage"][0]["old"] == 10
    assert rig.info(keys={"old": {"value": KEYS["old"].decode()}, "new": None})["coverage"][0]["old"] == 10


def test_without_psycopg_the_refusal_says_what_to_install(tmp_path: Path) -> None:
    params = Rig.arguments("host=127.0.0.1", tmp_path, "in_place")
    program = """
import json, sys
sys.modules["psycopg"] = None
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import info, job
for work in (job, info):
    try:
        work.run(json.loads(sys.argv[1]), False)
    except KeyturnError as error:
        print(error.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(params)],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["libraries-missing"] * 2


def test_a_rotation_that_was_overtaken_cannot_be_called_clean(rig: Rig) -> None:
    rig.fill()
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    rig.old, rig.new = "new", "third"
    for state in ("prepared", "cut_over", "swept", "cleaned"):
        rig.run(state, rotation_id="r2")
    rig.old, rig.new = "old", "new"
    assert _refused(rig, "cleaned").code == "rows-unknown"


def test_a_plaintext_that_a_text_column_cannot_hold_is_refused(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text)")
    rig.insert([(1, '{"a": 1}')])
    rig.columns = [rig.column("creds", "secret", plaintext="encrypt")]
    rig.old = ""
    rig.run("in_place")
    rig.insert([(2, seal("new", b"\xff\x00").decode())])
    error = _refused(rig, "rolled_back")
    assert (error.code, error.where) == ("cell-unsupported", "public.creds.secret")
