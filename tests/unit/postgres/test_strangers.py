# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases in which others have rights, and logins that are not what they seem."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import postgres
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.strangers import FUNCTIONS

from tests.support.reencryption import Rig

#: Functions of PostgreSQL whose names only stand in our Python, or are built into its grammar.
_OF_PYTHON = {"age", "bool", "extract", "format", "left", "name", "random", "replace", "round", "strip", "time"}


@pytest.fixture
def web(rig: Rig) -> Iterator[str]:
    """A role that may make things in the schema that everybody searches."""
    rig.sql.execute("DROP ROLE IF EXISTS web")
    rig.sql.execute("CREATE ROLE web LOGIN")
    rig.sql.execute("GRANT CREATE, USAGE ON SCHEMA public TO web")
    try:
        yield rig.dsn.replace("user=postgres", "user=web")
    finally:
        rig.sql.execute("DROP OWNED BY web CASCADE")
        rig.sql.execute("DROP ROLE web")


_THEIRS = {
    "public.unnest": """
        CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.called VALUES (current_user);
            RETURN QUERY SELECT pg_catalog.unnest($1);
        END $$""",
    "public.=": """
        CREATE FUNCTION public.same(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.called VALUES (current_user);
            RETURN true;
        END $$;
        CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.same)""",
}


@pytest.mark.parametrize("name", list(_THEIRS))
def test_a_function_of_a_stranger_is_refused_and_never_called(rig: Rig, web: str, name: str) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE TABLE public.called (role text); GRANT ALL ON public.called TO PUBLIC")
    with psycopg.connect(web, autocommit=True) as link:
        link.execute(_THEIRS[name])
    for call in (rig.info, lambda: rig.run("in_place")):
        with pytest.raises(KeyturnError) as caught:
            call()
        assert caught.value.code == "search-path-unsafe"
        assert f"{name} of role web" in caught.value.message
    assert rig.sql.execute("SELECT * FROM public.called").fetchall() == []
    rig.dsn += " options='-c search_path=pg_catalog'"
    rig.columns = [rig.column("public.creds", "secret")]
    assert rig.run("in_place")["coverage"][0]["new"] == 3
    assert rig.sql.execute("SELECT * FROM public.called").fetchall() == []


def test_functions_of_the_databases_own_people_are_no_strangers(rig: Rig) -> None:
    rig.fill(3)
    rig.sql.execute("CREATE FUNCTION public.sum(text[]) RETURNS text LANGUAGE sql AS 'SELECT $1[1]'")
    assert rig.run("in_place")["coverage"][0]["new"] == 3


def test_operators_of_their_own_names_are_no_strangers(rig: Rig, web: str) -> None:
    rig.fill(3)
    with psycopg.connect(web, autocommit=True) as link:
        link.execute("CREATE OPERATOR public.<~~~> (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.texteq)")
    assert rig.run("in_place")["coverage"][0]["new"] == 3


def test_every_function_that_is_called_is_looked_for(rig: Rig) -> None:
    folder = Path(str(postgres.__path__[0]))
    words = {word for path in folder.glob("*.py") for word in re.findall(r"\b([a-z_][a-z_0-9]*)\(", path.read_text())}
    query = "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(%s)"
    called = {name for (name,) in rig.sql.execute(query, (sorted(words),)).fetchall()}
    assert called - _OF_PYTHON - {"current_schemas"} == set(FUNCTIONS)


def test_what_is_kept_of_the_rows_is_for_nobody_else_whatever_the_default_privileges(rig: Rig, web: str) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL)")
    rig.insert([(1, '{"k": "v"}')])
    rig.old, rig.columns = "", [rig.column("creds", "secret", plaintext="encrypt")]
    rig.sql.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC, web")
    rig.sql.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, web")
    rig.run("prepared")
    tables = rig.sql.execute("SELECT relname FROM pg_class WHERE relnamespace = 'keyturn'::regnamespace").fetchall()
    assert len(tables) >= 2
    with psycopg.connect(web, autocommit=True) as link:
        for (table,) in tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                link.execute(psycopg.sql.SQL("SELECT * FROM keyturn.{}").format(psycopg.sql.Identifier(table)))
    rights = "SELECT has_table_privilege('web', oid, 'SELECT') FROM pg_class WHERE relkind = 'r' AND relnamespace = %s"
    schema = rig.sql.execute("SELECT 'keyturn'::regnamespace::oid").fetchone()
    assert set(rig.sql.execute(rights, schema).fetchall()) == {(False,)}


@pytest.mark.parametrize("states", [("in_place",), ("prepared", "cut_over")])
def test_a_login_that_switches_its_role_can_rotate(rig: Rig, web: str, states: tuple[str, ...]) -> None:
    rig.fill(5)
    rig.sql.execute("DROP ROLE IF EXISTS changer")
    rig.sql.execute("CREATE ROLE changer")
    try:
        rig.sql.execute("GRANT changer TO web; ALTER ROLE web SET role = changer")
        rig.sql.execute("GRANT SELECT, UPDATE ON creds TO changer")
        rig.sql.execute(f"GRANT CREATE, TEMPORARY ON DATABASE {rig.sql.info.dbname} TO changer")
        rig.dsn = web
        for state in (*states, "swept", "rolled_back", "swept", "cleaned"):
            rig.run(state)
        assert rig.plaintexts("old") == {number: f"{number}:0" for number in range(1, 6)}
    finally:
        rig.sql.execute("DROP OWNED BY changer CASCADE")
        rig.sql.execute("DROP ROLE changer")


@pytest.mark.parametrize("setting", ["extra_float_digits = 0", "enable_tidscan = off"])
@pytest.mark.parametrize("states", [("in_place",), ("prepared", "cut_over")])
def test_settings_of_the_database_change_nothing(rig: Rig, setting: str, states: tuple[str, ...]) -> None:
    rig.fill(4)
    rig.sql.execute("ALTER TABLE creds ALTER id TYPE float8 USING 0.1::float8 + 0.2 * id")
    rig.sql.execute(f"ALTER DATABASE {rig.sql.info.dbname} SET {setting}")
    try:
        for state in (*states, "swept"):
            result = rig.run(state)
        assert result["coverage"][0]["new"] == 4
    finally:
        rig.sql.execute(f"ALTER DATABASE {rig.sql.info.dbname} RESET ALL")
