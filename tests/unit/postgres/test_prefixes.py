# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counting what is left under the old key by how cells begin."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.prefixes import count_by_prefix, left_by_prefix
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import (
    Column,
    Table,
    find_column,
    find_table,
)
from psycopg import sql

from tests.support.reencryption import KEYS, Rig

_DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "envelopes.md"
_SQL = re.findall(r"```sql\n(.*?)```", _DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
_STORED = {
    "preset": "aesgcm-raw",
    "text": "base64",
    "prefix": "v\\{key_id}_%.",
    "key": {"encoding": "base64", "lengths": [32], "list": "first", "id": {"source": "stored"}},
}


def _named(name: str, key: str) -> bytes:
    return name.encode() + b":" + KEYS[key]


def _left(rig: Rig, envelope: Any, old: bytes, new: bytes | None = None, **entry: Any) -> Any:
    keys = {kind: {"value": value.decode()} for kind, value in (("old", old), ("new", new)) if value is not None}
    rig.columns = [rig.column("creds", "secret", envelope=envelope, **entry)]
    (column,) = rig.info(keys=keys)["columns"]
    return column["left_by_prefix"]


def _cells(rig: Rig, envelope: Any, *counts: tuple[bytes, int], kind: str = "text") -> None:
    cells = [cell for key, count in counts for cell in Envelope(load_spec(envelope), key).seal_many([b"x"] * count)]
    rig.sql.execute(f"CREATE TABLE creds (id bigint PRIMARY KEY, secret {kind}, app int DEFAULT 1)")
    rig.insert([(number, cell.decode()) for number, cell in enumerate(cells)])
    rig.sql.execute("CREATE INDEX by_beginning ON creds (secret text_pattern_ops)")


@pytest.mark.parametrize("kind", ["text", "varchar(200)"])
def test_what_begins_with_the_old_keys_id_is_counted(rig: Rig, kind: str) -> None:
    _cells(rig, "twenty-v2", (KEYS["old"], 7), (KEYS["new"], 4), kind=kind)
    assert _left(rig, "twenty-v2", KEYS["old"], KEYS["new"]) == 7
    assert _left(rig, "twenty-v2", KEYS["old"]) == 7
    rig.sql.execute("UPDATE creds SET app = 2 WHERE id < 3")
    assert _left(rig, "twenty-v2", KEYS["old"], KEYS["new"], where={"column": "app", "is": 1}) == 4


def test_a_whole_table_is_not_read_for_a_hint_nor_a_lock_waited_for(rig: Rig) -> None:
    _cells(rig, "twenty-v2", (KEYS["old"], 7))
    assert _left(rig, "twenty-v2", KEYS["old"], KEYS["new"]) == 7
    column = find_column(rig.sql, find_table(rig.sql, "creds"), "secret")
    target = Target(column, load_spec("twenty-v2"), KEYS["new"], KEYS["old"])
    with psycopg.connect(rig.dsn) as other, psycopg.connect(rig.dsn, autocommit=True) as link:
        link.execute("SET enable_seqscan = off")
        link.execute("SET lock_timeout = '20ms'")
        assert left_by_prefix(link, target) == 7
        other.execute("LOCK TABLE creds IN ACCESS EXCLUSIVE MODE")
        assert left_by_prefix(link, target) is None
    rig.sql.execute("DROP INDEX by_beginning")
    assert _left(rig, "twenty-v2", KEYS["old"], KEYS["new"]) is None


def test_each_key_of_an_old_list_is_old_and_odd_letters_mean_themselves(rig: Rig) -> None:
    older, old, new = _named("a", "third"), _named("b", "old"), _named("c", "new")
    _cells(rig, _STORED, (older, 2), (old, 3), (new, 4))
    rig.insert([(99, "v\\bxx.AAAA")])
    assert _left(rig, _STORED, old + b"," + older, new) == 5
    assert _left(rig, _STORED, old, new) == 3


def test_nothing_is_said_where_the_beginning_does_not_tell(rig: Rig) -> None:
    same = _named("b", "old"), _named("b", "new")
    _cells(rig, _STORED, (same[0], 2))
    assert _left(rig, _STORED, *same) is None
    assert _left(rig, _STORED, same[0], None, list=",") is None
    assert _left(rig, {**_STORED, "prefix": "v{key_id}"}, _named("b", "old"), _named("b2", "new")) is None
    rig.sql.execute("DROP INDEX by_beginning")
    rig.sql.execute("ALTER TABLE creds ALTER secret TYPE bytea USING convert_to(secret, 'UTF8')")
    assert _left(rig, _STORED, same[0]) is None
    rig.sql.execute("DROP TABLE creds")
    _cells(rig, "fernet", (base64.urlsafe_b64encode(bytes(32)), 1))
    assert _left(rig, "fernet", base64.urlsafe_b64encode(bytes(32))) is None


_INDEXES = {
    "document": _SQL[1],
    "pattern": "CREATE INDEX ON connected_account (token text_pattern_ops)",
    "collation": 'CREATE INDEX ON connected_account (token COLLATE "C")',
}


@pytest.mark.parametrize("kind", ["text", "varchar(300)"])
@pytest.mark.parametrize("index", _INDEXES)
def test_an_index_answers(rig: Rig, index: str, kind: str) -> None:
    """The column has a collation of its own: no index serves just because the cluster's is C."""
    rig.sql.execute("CREATE COLLATION own (locale = 'C.UTF-8')")
    rig.sql.execute(f"CREATE TABLE connected_account (id int PRIMARY KEY, token {kind} COLLATE own)")
    rig.sql.execute(
        "INSERT INTO connected_account SELECT n, CASE WHEN n % 500 = 0 THEN 'enc:v2:1a2b3c4d:' "
        "ELSE 'enc:v2:5e6f7a8b:' END || repeat(md5(n::text), 6) FROM generate_series(1, 20000) n"
    )
    column = Column(Table(0, "public", "connected_account", ()), "token", "text", kind)
    query, values = count_by_prefix(column, ["enc:v2:1a2b3c4d:"])
    assert _planned(rig, query, values) == ([], 40)
    rig.sql.execute(_INDEXES[index])
    rig.sql.execute("VACUUM ANALYZE connected_account")
    (condition,), count = _planned(rig, query, values)
    assert ("enc:v2:1a2b3c4d:" in condition, count) == (True, 40)
    assert _planned(rig, sql.SQL(_SQL[0].replace("%", "%%")), []) == ([condition], 40)


def _planned(rig: Rig, query: sql.Composed | sql.SQL, values: list[str]) -> tuple[list[str], int]:
    """What of the statement an index answers, and the statement's count."""
    plan = [str(row[0]).strip() for row in rig.sql.execute(sql.SQL("EXPLAIN {}").format(query), values).fetchall()]
    row = rig.sql.execute(query, values).fetchone()
    return [line for line in plan if line.startswith("Index Cond")], int(row[0]) if row else 0
