# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the way back or a later step needs is asked for before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from psycopg import sql

from tests.support.reencryption import Rig, opens, seal

_STATES = {"in_place": ("in_place",), "rows": ("prepared", "cut_over"), "columns": ("prepared", "cut_over")}
_WAYS = pytest.mark.parametrize("way", list(_STATES))
_HINT = "GRANT TEMPORARY ON DATABASE ... TO ..."


@pytest.fixture
def limited(rig: Rig) -> Iterator[Rig]:
    """A database in which the rotator owns its table and may make no temporary tables."""
    name = sql.Identifier(rig.sql.info.dbname)

    def of_database(statement: str) -> None:
        rig.sql.execute(sql.SQL(statement).format(name))

    rig.sql.execute("DROP ROLE IF EXISTS turner")
    rig.sql.execute("CREATE ROLE turner LOGIN")
    of_database("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC")
    of_database("GRANT CREATE ON DATABASE {} TO turner")
    dsn, rig.dsn = rig.dsn, rig.dsn.replace("user=postgres", "user=turner")
    yield rig
    rig.dsn = dsn
    of_database("GRANT TEMPORARY ON DATABASE {} TO PUBLIC")
    rig.sql.execute("DROP OWNED BY turner CASCADE")
    rig.sql.execute("DROP ROLE turner")


def _may_stage(rig: Rig) -> None:
    rig.sql.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO turner").format(sql.Identifier(rig.sql.info.dbname)))


def _in_clear(rig: Rig) -> None:
    """Rows before their first encryption."""
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL)")
    rig.sql.execute("ALTER TABLE creds OWNER TO turner; GRANT CREATE ON SCHEMA public TO turner")
    rig.insert([(number, f'{{"n": {number}}}') for number in range(1, 6)])
    rig.columns, rig.old = [rig.column("creds", "secret", plaintext="encrypt")], ""


def _in_documents(rig: Rig) -> None:
    """Cells with text around them."""
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL)")
    rig.sql.execute("ALTER TABLE creds OWNER TO turner")
    cells = {number: seal("old", f"{number}:0".encode()).decode() for number in range(1, 6)}
    rig.insert([(number, f'{{"name": "in clear", "key": "{cell}"}}') for number, cell in cells.items()])
    rig.columns = [rig.column("creds", "secret", paths=["$.key"])]


_CASES = [
    (_in_clear, "in_place"),
    (_in_clear, "rows"),
    (_in_clear, "columns"),
    (_in_documents, "in_place"),
    (_in_documents, "rows"),
]


def _is_refused(rig: Rig, way: str) -> None:
    before = rig.snapshot()
    for call in (rig.info, lambda: rig.run(_STATES[way][0], check=True), lambda: rig.run(_STATES[way][0])):
        with pytest.raises(KeyturnError) as refused:
            call()
        error = refused.value
        assert (error.code, error.where, error.hint) == ("privilege-missing", "public.creds.secret", _HINT)
        assert "temporary" in error.message
    assert rig.snapshot() == before
    assert rig.sql.execute("SELECT to_regnamespace('keyturn')").fetchone() == (None,)


@pytest.mark.parametrize(("make", "way"), _CASES, ids=lambda one: getattr(one, "__name__", one))
def test_temporary_is_asked_for_where_the_way_forward_or_back_needs_it(
    limited: Rig, make: Callable[[Rig], None], way: str
) -> None:
    make(limited)
    limited.defaults = {"cut_over": "rows" if way == "in_place" else way}
    _is_refused(limited, way)
    before = limited.cells()
    _may_stage(limited)
    limited.info()
    for state in _STATES[way]:
        limited.run(state)
    assert not [cell for cell in limited.cells().values() if cell in before.values()]
    if make is _in_clear:
        limited.insert([(6, seal("new", b'{"n": 6}').decode())])
        before[6] = '{"n": 6}'
    limited.run("rolled_back", step="all")
    told = limited.info()["coverage"][0]
    assert (told["old"], told["plaintext"]) == ((0, 6) if make is _in_clear else (5, 0))
    if make is _in_clear:
        assert limited.cells() == before


@_WAYS
def test_temporary_is_not_asked_for_where_nothing_needs_it(limited: Rig, way: str) -> None:
    """Also where rows in clear are encrypted besides, under a key that others are under already."""
    limited.fill(5)
    limited.sql.execute("ALTER TABLE creds OWNER TO turner; GRANT CREATE ON SCHEMA public TO turner")
    limited.insert([(6, '{"n": 6}')])
    limited.columns = [limited.column("creds", "secret", plaintext="encrypt")]
    limited.defaults = {"cut_over": "rows" if way == "in_place" else way}
    limited.info()
    for state in _STATES[way]:
        limited.run(state)
    assert None not in limited.plaintexts("new").values()
    limited.insert([(7, seal("new", b"7:0").decode())])
    limited.run("rolled_back", step="all")
    assert limited.plaintexts("old")[7] == "7:0"
    assert None in limited.plaintexts("new").values()


def test_a_right_that_is_taken_away_meanwhile_is_named(limited: Rig) -> None:
    _in_clear(limited)
    _may_stage(limited)
    limited.run("in_place")
    limited.sql.execute(
        sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM turner").format(sql.Identifier(limited.sql.info.dbname))
    )
    with pytest.raises(KeyturnError) as refused:
        limited.run("rolled_back")
    assert (refused.value.code, refused.value.where, refused.value.hint) == (
        "privilege-missing",
        "public.creds.secret",
        _HINT,
    )
    _may_stage(limited)
    limited.run("rolled_back")
    assert limited.cells()[1] == '{"n": 1}'


@pytest.mark.parametrize(
    ("way", "plaintext", "is_refused"),
    [("in_place", "refuse", False), ("in_place", "encrypt", True), ("rows", "refuse", True)],
)
def test_large_objects_need_temporary_where_the_row_guards_nothing(
    limited: Rig, way: str, plaintext: str, is_refused: bool
) -> None:
    limited.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret oid)")
    limited.sql.execute("ALTER TABLE creds OWNER TO turner")
    made = "INSERT INTO creds SELECT 1, lo_from_bytea(0, %s) RETURNING secret"
    row = limited.sql.execute(made, (seal("old", b"1:0", "aesgcm-raw"),)).fetchone()
    assert row is not None
    limited.sql.execute(sql.SQL("ALTER LARGE OBJECT {} OWNER TO turner").format(sql.Literal(row[0])))
    limited.columns = [limited.column("creds", "secret", envelope="aesgcm-raw", plaintext=plaintext)]
    if is_refused:
        with pytest.raises(KeyturnError) as refused:
            limited.run(_STATES[way][0])
        assert (refused.value.code, refused.value.hint) == ("privilege-missing", _HINT)
    else:
        limited.run(_STATES[way][0])
        content = limited.sql.execute("SELECT lo_get(secret) FROM creds").fetchone()
        assert content is not None
        assert opens("new", bytes(content[0]), "aesgcm-raw") == b"1:0"


# -- logical replication -----------------------------------------------------------------------------------------------

_PUBLISHED = {
    "table": "CREATE PUBLICATION p FOR TABLE creds",
    "all tables": "CREATE PUBLICATION p FOR ALL TABLES",
    "schema": "CREATE PUBLICATION p FOR TABLES IN SCHEMA public",
}


@pytest.fixture
def sending(rig: Rig) -> Iterator[Rig]:
    """A database with five rows, and a publication that goes at the end: it belongs to no schema."""
    rig.fill(5)
    yield rig
    rig.sql.execute("DROP PUBLICATION IF EXISTS p")


@pytest.mark.parametrize("published", _PUBLISHED)
@pytest.mark.parametrize("way", ["in_place", "rows"])
def test_a_table_whose_updates_cannot_be_sent_is_refused(sending: Rig, way: str, published: str) -> None:
    sending.sql.execute(_PUBLISHED[published])
    sending.sql.execute("ALTER TABLE creds REPLICA IDENTITY NOTHING")
    before = sending.snapshot()
    for call in (sending.info, lambda: sending.run(_STATES[way][0], check=True), lambda: sending.run(_STATES[way][0])):
        with pytest.raises(KeyturnError) as refused:
            call()
        assert (refused.value.code, refused.value.where) == ("replica-identity-missing", "public.creds")
        assert "publication p" in refused.value.message
    assert sending.snapshot() == before
    sending.sql.execute("ALTER TABLE creds REPLICA IDENTITY FULL")
    for state in _STATES[way]:
        sending.run(state)
    assert None not in sending.plaintexts("new").values()


@pytest.mark.parametrize("root", ["true", "false"])
def test_a_partition_whose_updates_cannot_be_sent_is_refused(sending: Rig, root: str) -> None:
    sending.sql.execute("DROP TABLE creds")
    sending.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL) PARTITION BY RANGE (id)")
    sending.sql.execute("CREATE TABLE low PARTITION OF creds FOR VALUES FROM (0) TO (3)")
    sending.sql.execute("CREATE TABLE high PARTITION OF creds DEFAULT")
    sending.insert([(number, seal("old", f"{number}:0".encode()).decode()) for number in range(5)])
    sending.sql.execute(f"CREATE PUBLICATION p FOR TABLE creds WITH (publish_via_partition_root = {root})")
    sending.info()
    sending.sql.execute("ALTER TABLE high REPLICA IDENTITY NOTHING")
    with pytest.raises(KeyturnError) as refused:
        sending.run("prepared")
    assert (refused.value.code, refused.value.where) == ("replica-identity-missing", "public.high")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE PUBLICATION p FOR TABLE creds WITH (publish = 'insert, delete')",
        "CREATE TABLE other (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE other",
        "SELECT 1",
    ],
    ids=["no updates", "another table", "none"],
)
def test_a_table_whose_updates_nobody_is_sent_is_turned(sending: Rig, statement: str) -> None:
    sending.sql.execute(statement)
    sending.sql.execute("ALTER TABLE creds REPLICA IDENTITY NOTHING")
    for state in ("prepared", "cut_over"):
        sending.run(state)
    assert None not in sending.plaintexts("new").values()


@pytest.mark.parametrize("identity", ["index", "dropped index", "deferrable key"])
def test_what_the_server_takes_for_an_identity(sending: Rig, identity: str) -> None:
    """Each refusal is one of the server as well, and each table that goes on takes an UPDATE."""
    sending.sql.execute("CREATE PUBLICATION p FOR TABLE creds")
    if identity == "deferrable key":
        sending.sql.execute("ALTER TABLE creds DROP CONSTRAINT creds_pkey, ADD PRIMARY KEY (id) DEFERRABLE")
    else:
        sending.sql.execute("CREATE UNIQUE INDEX other ON creds (id)")
        sending.sql.execute("ALTER TABLE creds REPLICA IDENTITY USING INDEX other")
        if identity == "dropped index":
            sending.sql.execute("DROP INDEX other")
    taken = []
    for call in (lambda: sending.sql.execute("UPDATE creds SET ver = 1"), sending.info):
        try:
            call()
        except (KeyturnError, psycopg.errors.ObjectNotInPrerequisiteState):
            taken.append(False)
        else:
            taken.append(True)
    assert taken == [identity == "index"] * 2
