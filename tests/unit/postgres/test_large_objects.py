# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells in large objects: every way there and back, while others write, and nothing is left over or missing."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from psycopg import sql

from tests.support.killable import Killable
from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig, opens, seal

_VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "001_mfa_secret_enc.json").read_text())
_KEYS = {"old": {"value": _VECTORS["key"]["value"]}, "new": {"value": _VECTORS["new_key"]["value"]}}
_RAW = "aesgcm-raw"
_TO = {"in_place": ("in_place", "swept"), "rows": ("prepared", "cut_over", "swept")}


class Mfa:
    """The table of a service whose role owns it, and nothing else of the database."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.dsn = rig.dsn.replace("user=postgres", "user=mfa")
        self.app = psycopg.connect(self.dsn, autocommit=True)
        self.app.execute(
            "CREATE TABLE mfa_secrets (id bigint PRIMARY KEY, secret_enc oid, kek_version int NOT NULL DEFAULT 1)"
        )
        rig.columns = [
            rig.column("mfa_secrets", "secret_enc", envelope=_RAW, set={"kek_version": {"new": 2, "old": 1}})
        ]

    def put(self, number: int, content: bytes) -> int:
        """A row with an object of its own."""
        query = "INSERT INTO mfa_secrets (id, secret_enc) VALUES (%s, lo_from_bytea(0, %s)) RETURNING secret_enc"
        row = self.app.execute(query, (number, content)).fetchone()
        assert row is not None
        return int(row[0])

    def fill(self, count: int = 20) -> None:
        """Rows whose plaintext is ``<id>:0``."""
        for number in range(count):
            self.put(number, seal("old", b"%d:0" % number, _RAW))

    def empty(self) -> None:
        """No rows, no objects."""
        self.app.execute("SELECT lo_unlink(secret_enc) FROM mfa_secrets")
        self.app.execute("DELETE FROM mfa_secrets")

    def cells(self) -> dict[int, bytes]:
        """What the service reads."""
        query = "SELECT id, lo_get(secret_enc) FROM mfa_secrets WHERE secret_enc IS NOT NULL ORDER BY id"
        return {int(row[0]): bytes(row[1]) for row in self.app.execute(query).fetchall()}

    def plaintexts(self, key: str) -> dict[int, bytes | None]:
        """What opens under a key."""
        return {number: opens(key, cell, _RAW) for number, cell in self.cells().items()}

    def versions(self) -> set[int]:
        """What stands beside the cells."""
        return {int(row[0]) for row in self.app.execute("SELECT kek_version FROM mfa_secrets").fetchall()}

    def objects(self) -> list[Any]:
        """All objects of the database, whose they are and who may use them; and which row names which."""
        known = "SELECT oid::bigint, lomowner::regrole::text, lomacl::text FROM pg_largeobject_metadata ORDER BY oid"
        named = "SELECT id, secret_enc::bigint FROM mfa_secrets ORDER BY id"
        return [self.rig.sql.execute(known).fetchall(), self.rig.sql.execute(named).fetchall()]

    def turn(self, way: str, **more: Any) -> None:
        """Forward, and swept."""
        for state in _TO[way]:
            self.rig.run(state, **more)


@pytest.fixture(params=["mfa", "postgres"])
def role(request: pytest.FixtureRequest) -> str:
    """Who turns the key: the service's own role, or another one that may do everything."""
    return str(request.param)


@pytest.fixture
def mfa(rig: Rig) -> Iterator[Mfa]:
    """The service's table, empty; the rotator is the service's role."""
    rig.sql.execute("CREATE ROLE mfa LOGIN")
    rig.sql.execute(
        sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {} TO mfa").format(sql.Identifier(rig.sql.info.dbname))
    )
    rig.sql.execute("GRANT CREATE ON SCHEMA public TO mfa")
    made = Mfa(rig)
    rig.dsn = made.dsn
    yield made
    made.app.close()
    rig.sql.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    rig.sql.execute("DROP OWNED BY mfa CASCADE")
    rig.sql.execute("DROP ROLE mfa")


@pytest.fixture(params=sorted(_TO))
def way(request: pytest.FixtureRequest) -> str:
    """In place, or cut over."""
    return str(request.param)


def _bytes(case: dict[str, str], name: str) -> bytes:
    return base64.b64decode(case[name])


def test_what_the_service_wrote_is_turned_and_goes_back(mfa: Mfa, way: str, role: str) -> None:
    mfa.rig.defaults["keys"] = _KEYS
    mfa.rig.dsn = mfa.dsn.replace("user=mfa", f"user={role}")
    wanted = {number: _bytes(case, "plaintext") for number, case in enumerate(_VECTORS["cases"])}
    for number, case in enumerate(_VECTORS["cases"]):
        mfa.put(number, _bytes(case, "ciphertext"))
    mfa.app.execute("INSERT INTO mfa_secrets (id) VALUES (100)")
    query = "SELECT secret_enc::bigint FROM mfa_secrets WHERE id = 0"
    (first,) = mfa.app.execute(query).fetchone() or (0,)
    mfa.app.execute(sql.SQL("GRANT SELECT ON LARGE OBJECT {} TO PUBLIC").format(sql.Literal(first)))
    before, cells = mfa.objects(), mfa.cells()
    new = Envelope(load_spec(_RAW), _KEYS["new"]["value"].encode())

    assert mfa.rig.run(_TO[way][0], check=True)["changed"]
    assert (mfa.objects(), mfa.cells()) == (before, cells)
    mfa.turn(way)
    assert {number: new.open(cell) for number, cell in mfa.cells().items()} == wanted
    assert mfa.objects() == before
    rows = mfa.app.execute("SELECT kek_version, count(*) FROM mfa_secrets GROUP BY 1 ORDER BY 1").fetchall()
    assert rows == [(1, 1), (2, len(wanted))]
    (counted,) = mfa.rig.run("swept")["coverage"]
    assert (counted["new"], counted["null"], counted["total"]) == (len(wanted), 1, len(wanted) + 1)
    assert not mfa.rig.run(_TO[way][0])["changed"]

    mfa.rig.run("rolled_back")
    mfa.rig.run("swept")
    old = Envelope(load_spec(_RAW), _KEYS["old"]["value"].encode())
    assert {number: old.open(cell) for number, cell in mfa.cells().items()} == wanted
    assert mfa.cells() == cells or way == "in_place"
    assert mfa.versions() == {1}
    mfa.rig.run("cleaned")
    assert mfa.objects() == before
    assert mfa.rig.shadows() == []


def test_what_it_leaves_is_what_it_found(mfa: Mfa, way: str) -> None:
    mfa.fill()
    before = mfa.objects()
    mfa.turn(way)
    assert mfa.rig.run("cleaned")["changed"]
    assert mfa.objects() == before
    assert mfa.plaintexts("new") == {number: b"%d:0" % number for number in range(20)}
    mfa.app.execute("SELECT lo_unlink(secret_enc) FROM mfa_secrets")
    assert mfa.objects()[0] == []


def test_an_object_that_is_gone_is_named_before_anything_is_written(mfa: Mfa, way: str) -> None:
    mfa.fill(5)
    mfa.app.execute("SELECT lo_unlink(secret_enc) FROM mfa_secrets WHERE id = 3")
    mfa.app.execute("INSERT INTO mfa_secrets (id, secret_enc) VALUES (7, 0)")
    before = mfa.objects()
    with pytest.raises(KeyturnError) as refused:
        mfa.rig.run(_TO[way][0])
    assert refused.value.code == "rows-unknown"
    assert "3 names no object; 7 names no object" in refused.value.message
    assert mfa.rig.info()["unknown"][0]["keys"] == ["3 names no object", "7 names no object"]
    assert mfa.objects() == before
    mfa.app.execute("DELETE FROM mfa_secrets WHERE id IN (3, 7)")
    mfa.turn(way)
    assert None not in mfa.plaintexts("new").values()


def test_an_object_that_goes_meanwhile_stops_neither_sweep_nor_way_back(mfa: Mfa) -> None:
    mfa.fill(5)
    mfa.rig.run("prepared")
    mfa.rig.run("cut_over")
    mfa.app.execute("SELECT lo_unlink(secret_enc) FROM mfa_secrets WHERE id = 3")
    mfa.rig.run("rolled_back")
    mfa.app.execute("DELETE FROM mfa_secrets WHERE id = 3")
    mfa.rig.run("swept")
    assert mfa.plaintexts("old") == {number: b"%d:0" % number for number in (0, 1, 2, 4)}


@pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 5000, 1_000_000])
def test_objects_of_any_size(mfa: Mfa, way: str, size: int) -> None:
    texts = {number: secrets.token_bytes(size - number % 2) for number in range(4)}
    for number, text in texts.items():
        mfa.put(number, seal("old", text, _RAW))
    mfa.turn(way)
    assert mfa.plaintexts("new") == texts
    mfa.rig.run("rolled_back")
    assert mfa.plaintexts("old") == texts


def test_an_object_that_becomes_shorter_and_longer(mfa: Mfa, way: str) -> None:
    mfa.rig.columns[0].update(envelope="pbkdf2-aes256gcm-b64", new_envelope=_RAW)
    texts = {number: secrets.token_hex(length).encode() for number, length in enumerate((8, 1500, 1024))}
    for number, text in texts.items():
        mfa.put(number, seal("old", text, "pbkdf2-aes256gcm-b64"))
    mfa.turn(way)
    assert mfa.plaintexts("new") == texts
    assert {len(cell) for cell in mfa.cells().values()} == {len(text) + 28 for text in texts.values()}
    mfa.rig.run("rolled_back")
    assert {number: opens("old", cell, "pbkdf2-aes256gcm-b64") for number, cell in mfa.cells().items()} == texts


def test_objects_in_clear_are_encrypted_and_never_logged(mfa: Mfa, way: str, server: EmbeddedPostgres) -> None:
    mfa.rig.old = ""
    spec = {"preset": _RAW, "plaintext": {"form": "json-object"}}
    mfa.rig.columns[0].update(envelope=spec, plaintext="encrypt", set={})
    canary = secrets.token_hex(8)
    texts = {number: b'{"%s": "%s"}' % (canary.encode(), b"x" * 30 * number) for number in range(6)}
    mark = len(server.log_text())
    mfa.app.execute("CREATE TEMPORARY TABLE t (id bigint, b bytea)")
    with mfa.app.cursor().copy("COPY pg_temp.t FROM STDIN") as copy:
        for number, text in texts.items():
            copy.write_row((number, text))
    mfa.app.execute("INSERT INTO mfa_secrets (id, secret_enc) SELECT id, lo_from_bytea(0, b) FROM pg_temp.t")
    before = mfa.objects()
    mfa.turn(way)
    assert mfa.plaintexts("new") == texts
    mfa.rig.run("rolled_back")
    mfa.rig.run("swept")
    assert mfa.cells() == texts
    assert mfa.objects() == before
    logged = server.log_text()[mark:]
    assert "rewrite_object" in logged
    assert canary not in logged
    assert canary.encode().hex() not in logged


# -- others write meanwhile ----------------------------------------------------------------------------------------


def _after(seconds: float, act: Any) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


@pytest.mark.parametrize("how", ["row", "content"])
def test_what_is_written_between_read_and_write_is_kept(mfa: Mfa, way: str, how: str) -> None:
    """The writer has not committed when the rotator reads, and has when it writes."""
    mfa.fill()
    cell = seal("old", b"3:1", _RAW)
    with psycopg.connect(mfa.dsn) as writer:
        if how == "row":
            writer.execute("UPDATE mfa_secrets SET secret_enc = lo_from_bytea(0, %s) WHERE id = 3", (cell,))
        else:
            writer.execute("SELECT lo_put(secret_enc, 0, %s) FROM mfa_secrets WHERE id = 3", (cell,))
        timer = _after(0.5, writer.commit)
        mfa.turn(way)
        timer.join()
    wanted = {number: b"%d:0" % number for number in range(20)} | {3: b"3:1"}
    assert mfa.plaintexts("new") == wanted
    assert mfa.versions() == {2}


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_is_written_after_it_was_prepared_goes_over(mfa: Mfa, at: int) -> None:
    mfa.fill()
    states = ("prepared", "cut_over", "swept")
    for number, state in enumerate(states):
        if number == at + 1:
            cells = [(seal("old", b"%d:1" % row, _RAW), row) for row in (3, 4)]
            mfa.app.execute("UPDATE mfa_secrets SET secret_enc = lo_from_bytea(0, %s) WHERE id = %s", cells[0])
            mfa.app.execute("SELECT lo_put(secret_enc, 0, %s) FROM mfa_secrets WHERE id = %s", cells[1])
            mfa.app.execute("DELETE FROM mfa_secrets WHERE id = 5")
            mfa.put(50, seal("old", b"50:0", _RAW))
        mfa.rig.run(state)
    wanted = {number: b"%d:0" % number for number in range(20)}
    if at < 2:
        wanted |= {3: b"3:1", 4: b"4:1", 50: b"50:0"}
        del wanted[5]
    assert mfa.plaintexts("new") == wanted
    mfa.rig.run("rolled_back")
    mfa.rig.run("swept")
    assert mfa.plaintexts("old") == wanted


def test_content_that_is_not_the_one_read_is_never_written_over(mfa: Mfa) -> None:
    mfa.fill(1)
    mfa.rig.run("prepared")
    (cell,) = mfa.cells().values()
    query = "SELECT keyturn.rewrite_object(secret_enc, %s, %s) FROM mfa_secrets"
    for was in (cell[:-1], cell + b"x", bytes([cell[0] ^ 1]) + cell[1:], b"x" * 5000):
        with pytest.raises(psycopg.errors.SerializationFailure):
            mfa.app.execute(query, (was, b"other"))
        assert list(mfa.cells().values()) == [cell]
    assert mfa.app.execute(query, (cell, b"other")).fetchone() == (True,)
    assert list(mfa.cells().values()) == [b"other"]


def test_a_sweep_waits_for_those_who_write_into_objects(mfa: Mfa, way: str) -> None:
    mfa.fill(5)
    for state in _TO[way][:-1]:
        mfa.rig.run(state)
    with psycopg.connect(mfa.dsn) as writer:
        row = mfa.app.execute("SELECT secret_enc::bigint FROM mfa_secrets WHERE id = 3").fetchone() or (0,)
        writer.execute("SELECT lo_put(%s::oid, 0, %s)", (row[0], seal("old", b"3:1", _RAW)))
        with pytest.raises(KeyturnError) as refused:
            mfa.rig.run("swept", max_wait_s=0)
        assert refused.value.code == "lock-unavailable"
        assert f"pid {writer.info.backend_pid}" in refused.value.message
        timer = _after(0.5, writer.commit)
        mfa.rig.run("swept")
        timer.join()
    assert mfa.plaintexts("new")[3] == b"3:1"


def test_content_that_changes_within_the_statement_is_not_written_over(mfa: Mfa) -> None:
    """The statement sees the content as it was when it began; the function looks again."""
    mfa.fill(1)
    mfa.rig.run("prepared")
    (cell,) = mfa.cells().values()
    query = """
        SELECT keyturn.rewrite_object(secret_enc, %s, %s) FROM mfa_secrets, pg_advisory_xact_lock(7)
        WHERE lo_get(secret_enc) = %s"""
    raised: list[str | None] = []

    def rewrite() -> None:
        with psycopg.connect(mfa.dsn) as link:
            try:
                link.execute(query, (cell, b"x" * len(cell), cell))
            except psycopg.Error as error:
                raised.append(error.sqlstate)

    with psycopg.connect(mfa.dsn) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7)")
        thread = threading.Thread(target=rewrite)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while mfa.app.execute(waiting).fetchone() == (0,):
            thread.join(0.01)
        mfa.app.execute("SELECT lo_put(secret_enc, 0, %s) FROM mfa_secrets", (cell[::-1],))
    thread.join()
    assert raised == ["40001"]
    assert list(mfa.cells().values()) == [cell[::-1]]


class _Service:
    """Writers of rows of their own that know what they wrote: some give a row another object, some write into it."""

    def __init__(self, mfa: Mfa, rows: int, locks_rows: bool) -> None:
        self._lock = sql.SQL("FOR UPDATE" if locks_rows else "")
        self.versions = dict.fromkeys(range(rows), 0)
        self.key = "old"
        self.problems: list[str] = []
        self._dsn = mfa.dsn
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._choose = secrets.SystemRandom()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> _Service:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def restart(self, key: str) -> None:
        """It has finished its transaction and comes up with another key."""
        with self._turn:
            self.key = key

    def _write(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as link:
            link.execute("SET lock_timeout = '5s'")
            while not self._stop.wait(0.003):
                with self._turn:
                    try:
                        self._one(link, self._choose.randrange(len(self.versions)))
                    except psycopg.Error as error:
                        self.problems.append(type(error).__name__)

    def _one(self, link: psycopg.Connection[Any], row: int) -> None:
        version = self.versions[row] + 1
        cell = seal(self.key, b"%d:%d" % (row, version), _RAW)
        with link.transaction():
            query = sql.SQL("SELECT secret_enc FROM mfa_secrets WHERE id = %s {}").format(self._lock)
            held = link.execute(query, (row,)).fetchone()
            former = held[0] if held else 0
            if row % 2:
                link.execute("SELECT lo_unlink(%s)", (former,))
                link.execute("UPDATE mfa_secrets SET secret_enc = lo_from_bytea(0, %s) WHERE id = %s", (cell, row))
            else:
                link.execute("SELECT lo_put(%s, 0, %s)", (former, cell))
        self.versions[row] = version


class _Runs:
    """One rotation, killed now and then."""

    def __init__(self, rig: Rig, killable: Killable, name: str) -> None:
        self._rig = rig
        self._killable = killable
        self._name = name
        self._epoch = 0
        self._choose = secrets.SystemRandom()
        self.kills = 0

    def reach(self, state: str) -> None:
        """Called until it succeeds, at most three times with a kill that may come too late."""
        answer = "killed"
        for may_be_killed in (True, True, True, False):
            self._epoch += 1
            after = self._choose.random() * 0.15 if may_be_killed else None
            more = {"rotation_id": self._name, "epoch": self._epoch, "batch_rows": 8, "max_wait_s": 30}
            answer = self._killable.run(self._rig.params(state, **more), after)
            if answer != "killed":
                break
            self.kills += 1
        assert answer == "ok", f"{state}: {answer}"

    def turn(self, way: str, goes_back: bool, restart: Callable[[str], None]) -> None:
        """Forward, and perhaps back."""
        if way == "in_place":
            restart("new")
        for state in _TO[way][:-1]:
            self.reach(state)
        restart("new")
        self.reach("swept")
        if goes_back:
            if way == "in_place":
                restart("old")
            self.reach("rolled_back")
            restart("old")
            self.reach("swept")
        self.reach("cleaned")


@pytest.mark.parametrize("locks_rows", [False, True])
@pytest.mark.parametrize("goes_back", [False, True])
def test_killed_at_any_moment_while_others_write(mfa: Mfa, way: str, goes_back: bool, locks_rows: bool) -> None:
    rows, final = 60, "old" if goes_back else "new"
    killable = Killable()
    kills = rounds = 0
    try:
        while kills < 2:  # how many of them come in time differs
            mfa.empty()
            mfa.fill(rows)
            one = _Runs(mfa.rig, killable, f"r{rounds}")
            with _Service(mfa, rows, locks_rows) as service:
                one.turn(way, goes_back, service.restart)
            kills += one.kills
            rounds += 1
            assert set(service.problems) <= (set() if locks_rows else {"InternalError_", "DeadlockDetected"})
            assert mfa.plaintexts(final) == {row: b"%d:%d" % pair for row, pair in enumerate(service.versions.items())}
            assert mfa.versions() <= {1, 2}
            known, named = mfa.objects()
            assert [row[0] for row in known] == sorted(row[1] for row in named), "objects left over, or missing"
            assert mfa.rig.shadows() == []
    finally:
        killable.close()


# -- what is refused, and what is cleared ----------------------------------------------------------------------------


def test_by_columns_is_refused_and_auto_takes_rows(mfa: Mfa) -> None:
    mfa.fill(3)
    mfa.rig.columns[0]["set"] = {}
    with pytest.raises(KeyturnError) as refused:
        mfa.rig.run("prepared", cut_over="columns")
    assert refused.value.code == "columns-refused"
    assert "large objects" in refused.value.message
    choice = mfa.rig.run("prepared", cut_over="auto", max_writer_wait_ms=0)["choice"]
    assert (choice["cut_over"], choice["refusals"]) == ("rows", ["public.mfa_secrets.secret_enc: large objects"])


def test_without_columns_beside_the_rows_stay_as_they_are(mfa: Mfa, way: str) -> None:
    mfa.rig.columns[0]["set"] = {}
    mfa.fill(5)
    query = "SELECT ctid::text, * FROM mfa_secrets ORDER BY id"
    before = mfa.app.execute(query).fetchall()
    mfa.turn(way)
    assert mfa.app.execute(query).fetchall() == before
    assert None not in mfa.plaintexts("new").values()


def test_a_role_that_may_not_use_the_objects_is_told_how_many(mfa: Mfa) -> None:
    mfa.fill(3)
    rig = mfa.rig
    rig.sql.execute("DROP ROLE IF EXISTS stranger")
    rig.sql.execute("CREATE ROLE stranger LOGIN")
    try:
        mfa.app.execute("GRANT SELECT, UPDATE ON mfa_secrets TO stranger")
        grant = sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {} TO stranger")
        rig.sql.execute(grant.format(sql.Identifier(rig.sql.info.dbname)))
        rig.dsn = mfa.dsn.replace("user=mfa", "user=stranger")
        for grants, message in (
            ("", "this role may not SELECT 3 of the large objects that it names"),
            ("SELECT", "this role may not UPDATE 3 of the large objects that it names"),
        ):
            _grant(mfa, grants)
            with pytest.raises(KeyturnError) as refused:
                rig.run("in_place")
            assert (refused.value.code, refused.value.message) == ("privilege-missing", message)
        assert rig.info()["coverage"][0]["old"] == 3
        _grant(mfa, "UPDATE")
        mfa.turn("in_place")
        assert None not in mfa.plaintexts("new").values()
    finally:
        rig.sql.execute("DROP OWNED BY stranger CASCADE")
        rig.sql.execute("DROP ROLE stranger")


def _grant(mfa: Mfa, privilege: str) -> None:
    for (number,) in mfa.app.execute("SELECT secret_enc::bigint FROM mfa_secrets").fetchall() if privilege else []:
        grant = sql.SQL("GRANT {} ON LARGE OBJECT {} TO stranger")
        mfa.app.execute(grant.format(sql.SQL(privilege), sql.Literal(number)))


def test_a_domain_over_oid_with_the_usual_trigger(mfa: Mfa, way: str) -> None:
    """Such as the extension ``lo`` has: a trigger unlinks the object that a row names no more."""
    mfa.fill(5)
    mfa.app.execute("CREATE DOMAIN lo AS oid")
    mfa.app.execute("ALTER TABLE mfa_secrets ALTER secret_enc TYPE lo")
    mfa.app.execute(
        """CREATE FUNCTION manage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.secret_enc IS DISTINCT FROM OLD.secret_enc THEN PERFORM lo_unlink(OLD.secret_enc); END IF;
           RETURN NEW; END $$"""
    )
    mfa.app.execute("CREATE TRIGGER m BEFORE UPDATE ON mfa_secrets FOR EACH ROW EXECUTE FUNCTION manage()")
    before = mfa.objects()
    mfa.turn(way)
    assert mfa.objects() == before
    assert None not in mfa.plaintexts("new").values()


def test_a_column_that_nobody_named_is_found(mfa: Mfa) -> None:
    mfa.fill(5)
    mfa.app.execute("CREATE TABLE forgotten (id int PRIMARY KEY, blob oid)")
    mfa.app.execute("INSERT INTO forgotten VALUES (1, 0), (2, lo_from_bytea(0, %s))", (seal("old", b"x", _RAW),))
    theirs = mfa.rig.sql.execute("SELECT lo_from_bytea(0, %s)", (seal("old", b"y", _RAW),)).fetchone()
    mfa.app.execute("INSERT INTO forgotten VALUES (3, %s)", theirs)
    (found,) = mfa.rig.info(search=True)["found"]
    assert (found["table"], found["column"]) == ("public.forgotten", "blob")
    assert (found["key"], found["opened"], found["sampled"]) == ("old", 1, 1)


def _left(rig: Rig, server: EmbeddedPostgres, needles: list[bytes]) -> int:
    rig.sql.execute("CHECKPOINT")
    row = rig.sql.execute("SELECT pg_relation_filepath('pg_largeobject')").fetchone()
    content = (server.data / str(row[0] if row else "")).read_bytes()
    return sum(needle in content for needle in needles)


def test_old_content_is_cleared_where_that_is_asked_for(mfa: Mfa, way: str, server: EmbeddedPostgres) -> None:
    mfa.fill(10)
    needles = list(mfa.cells().values())
    mfa.turn(way)
    assert _left(mfa.rig, server, needles) > 0
    with pytest.raises(KeyturnError) as refused:
        mfa.rig.run("cleaned", sanitize=True)
    assert (refused.value.code, refused.value.where) == ("privilege-missing", "pg_catalog.pg_largeobject")
    mfa.rig.dsn = mfa.dsn.replace("user=mfa", "user=postgres")
    made = mfa.rig.run("cleaned", sanitize=True)["sanitized"]
    assert [entry["table"] for entry in made] == ["public.mfa_secrets", "pg_catalog.pg_largeobject"]
    assert _left(mfa.rig, server, needles) == 0
    assert mfa.plaintexts("new") == {number: b"%d:0" % number for number in range(10)}
