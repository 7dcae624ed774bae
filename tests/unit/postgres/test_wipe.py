# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What remains of old ciphertext in the files of a live table, and that it is gone where that was asked for."""

from __future__ import annotations

import secrets
from pathlib import Path

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from psycopg import sql

from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig, seal

_WAYS = {
    "rows": {"cut_over": "rows"},
    "columns": {"cut_over": "columns"},
    "in_place": {},
}
_SHORT, _WIDE = 200, 40
_HEAD = 100


@pytest.fixture(params=sorted(_WAYS))
def turned(request: pytest.FixtureRequest, rig: Rig) -> list[bytes]:
    """A table that has turned, short and wide cells; the beginnings of all its old cells."""
    rig.defaults.update(_WAYS[request.param])
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL)")
    rig.sql.execute("ALTER TABLE creds ALTER secret SET STORAGE EXTERNAL")
    sizes = [40] * _SHORT + [3000] * _WIDE
    cells = [seal("old", secrets.token_bytes(size)).decode() for size in sizes]
    rig.insert(list(enumerate(cells)))
    for state in ("in_place",) if request.param == "in_place" else ("prepared", "cut_over"):
        rig.run(state)
    rig.run("swept")
    return [cell[:_HEAD].encode() if len(cell) > _HEAD else cell.encode() for cell in cells]


def _files(rig: Rig, server: EmbeddedPostgres, table: str = "creds") -> list[Path]:
    """The files of a table, of its TOAST table, and of its partitions, as they are on the disk now."""
    rig.sql.execute("CHECKPOINT")
    query = """
        SELECT pg_relation_filepath(c.oid) FROM pg_class c
        WHERE c.relkind IN ('r', 't') AND (c.oid = %(table)s::regclass
              OR c.oid IN (SELECT relid FROM pg_partition_tree(%(table)s::regclass))
              OR c.oid IN (SELECT p.reltoastrelid FROM pg_class p WHERE p.oid = %(table)s::regclass
                           OR p.oid IN (SELECT relid FROM pg_partition_tree(%(table)s::regclass))))"""
    names = [str(row[0]) for row in rig.sql.execute(query, {"table": table}).fetchall()]
    return sorted(path for name in names for path in (server.data / name).parent.glob(f"{Path(name).name}*"))


def _left(rig: Rig, server: EmbeddedPostgres, needles: list[bytes]) -> int:
    content = b"\0".join(path.read_bytes() for path in _files(rig, server))
    return sum(needle in content for needle in needles)


def test_trap_58_old_ciphertext_stays_in_the_files_unless_it_is_to_go(
    rig: Rig, server: EmbeddedPostgres, turned: list[bytes]
) -> None:
    cells = dict(rig.cells())
    assert _left(rig, server, turned) > 0
    assert rig.run("cleaned")["sanitized"] == []
    rig.sql.execute("VACUUM creds")
    assert _left(rig, server, turned) > 0
    assert rig.run("cleaned", check=True, sanitize=True)["changed"]
    assert _left(rig, server, turned) > 0

    result = rig.run("cleaned", sanitize=True)
    assert result["changed"]
    (made,) = result["sanitized"]
    assert made["table"] == "public.creds"
    assert 0 < made["bytes_after"] <= made["bytes_before"]
    assert _left(rig, server, turned) == 0
    assert dict(rig.cells()) == cells
    assert _left(rig, server, [cell[:_HEAD].encode() for cell in cells.values()]) == len(cells)


def test_it_goes_with_what_was_kept(rig: Rig, server: EmbeddedPostgres, turned: list[bytes]) -> None:
    result = rig.run("cleaned", sanitize=True)
    assert [made["table"] for made in result["sanitized"]] == ["public.creds"]
    assert rig.shadows() == []
    assert _left(rig, server, turned) == 0
    samples = "SELECT coalesce(string_agg(most_common_vals::text || histogram_bounds::text, ''), '') FROM pg_stats"
    row = rig.sql.execute(f"{samples} WHERE tablename = 'creds'").fetchone()
    assert row is not None
    assert [needle for needle in turned if needle.decode() in row[0]] == []


def test_somebody_who_still_sees_the_old_rows_is_waited_for(
    rig: Rig, server: EmbeddedPostgres, turned: list[bytes]
) -> None:
    with psycopg.connect(rig.dsn) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1 FROM pg_class LIMIT 1")
        with pytest.raises(KeyturnError) as refused:
            rig.run("cleaned", sanitize=True, max_wait_s=0)
        assert refused.value.code == "snapshots-old"
        assert f"pid {reader.info.backend_pid}" in refused.value.message
    assert _left(rig, server, turned) > 0
    assert len(rig.run("cleaned", sanitize=True)["sanitized"]) == 1
    assert _left(rig, server, turned) == 0


def test_a_table_in_use_is_tried_for_as_long_as_was_said(rig: Rig) -> None:
    rig.fill()
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    rig.run("cleaned")
    with psycopg.connect(rig.dsn) as user:
        user.execute("LOCK TABLE creds IN ACCESS SHARE MODE")
        with pytest.raises(KeyturnError) as refused:
            rig.run("cleaned", sanitize=True, max_wait_s=0)
    assert refused.value.code == "lock-unavailable"


def test_the_way_back_leaves_the_files(rig: Rig) -> None:
    rig.fill()
    for state in ("prepared", "cut_over", "rolled_back", "swept"):
        rig.run(state)
    assert rig.run("cleaned", sanitize=True)["sanitized"] == []
    assert rig.run("cleaned", sanitize=True)["sanitized"] == []


def test_a_role_that_may_not_is_refused_before_anything_is_dropped(rig: Rig, dsn: str) -> None:
    rig.fill()
    rig.sql.execute("DROP ROLE IF EXISTS mere_writer")
    rig.sql.execute("CREATE ROLE mere_writer LOGIN")
    try:
        rig.sql.execute("GRANT SELECT, UPDATE ON creds TO mere_writer")
        query = sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {} TO mere_writer")
        rig.sql.execute(query.format(sql.Identifier(rig.sql.info.dbname)))
        rig.dsn = dsn.replace("user=postgres", "user=mere_writer")
        for state in ("prepared", "cut_over", "swept"):
            rig.run(state)
        for check in (True, False):
            with pytest.raises(KeyturnError) as refused:
                rig.run("cleaned", check=check, sanitize=True)
            assert (refused.value.code, refused.value.where) == ("privilege-missing", "public.creds")
            assert rig.shadows() == ["prev"]
        assert rig.run("cleaned")["changed"]
    finally:
        rig.sql.execute("DROP OWNED BY mere_writer CASCADE")
        rig.sql.execute("DROP ROLE mere_writer")


def test_each_partition_is_made_anew(rig: Rig, server: EmbeddedPostgres) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL) PARTITION BY RANGE (id)")
    rig.sql.execute("CREATE TABLE low PARTITION OF creds FOR VALUES FROM (0) TO (10)")
    rig.sql.execute("CREATE TABLE high PARTITION OF creds FOR VALUES FROM (10) TO (100)")
    cells = [seal("old", f"{number}:0".encode()).decode() for number in range(20)]
    rig.insert(list(enumerate(cells)))
    needles = [cell.encode() for cell in cells]
    for state in ("prepared", "cut_over", "swept"):
        rig.run(state)
    assert _left(rig, server, needles) > 0
    made = rig.run("cleaned", sanitize=True)["sanitized"]
    assert [entry["table"] for entry in made] == ["public.high", "public.low"]
    assert _left(rig, server, needles) == 0
