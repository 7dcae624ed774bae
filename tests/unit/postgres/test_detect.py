# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saying which envelope a column has, from samples of it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import PRESETS, Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import info
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import INFO_ARGUMENTS

from tests.support.reencryption import KEYS, Rig

_DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "envelopes.md"
_PLAIN = [b'{"token": "value number %d"}' % number for number in range(1, 7)]
_BYTES = base64.urlsafe_b64encode(b"k" * 32)
_HEX = b"ab" * 32
_CHARACTERS = b"0123456789abcdef0123456789ABCDEF"
_KEYS = {"langfuse": _HEX, "n8n-gcm": _HEX, "calcom": _CHARACTERS}
_COMPLETE = sorted(name for name, spec in PRESETS.items() if not spec.missing)


def _seal(envelope: Any, key: bytes) -> list[bytes]:
    return Envelope(load_spec(envelope), key).seal_many(_PLAIN)


def _make(rig: Rig, table: str, cells: list[Any], kind: str = "text") -> None:
    rig.sql.execute(f"CREATE TABLE {table} (id serial, secret {kind}, app int DEFAULT 1)")  # no primary key
    with rig.sql.cursor() as cursor:
        insert = f"COPY {table} (secret) FROM STDIN"
        with cursor.copy(insert) as copy:
            for cell in cells:
                copy.write_row((cell,))


def _detect(rig: Rig, columns: list[dict[str, Any]], **keys: bytes) -> list[dict[str, Any]]:
    given = {kind: {"value": value.decode()} for kind, value in keys.items()}
    result = rig.info(detect=True, columns=[{"column": "secret", **one} for one in columns], keys=given)
    assert set(result) == {"changed", "detected", "found", "unreadable"}
    detected: list[dict[str, Any]] = result["detected"]
    return detected


def _opened(one: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    return [(each["envelope"], each["key"], each["opened"], each["sampled"]) for each in one["envelopes"]]


@pytest.mark.parametrize("name", _COMPLETE)
def test_each_preset_is_named_with_what_it_proves(rig: Rig, name: str) -> None:
    key, kind = _KEYS.get(name, _BYTES), "bytea" if name == "aesgcm-raw" else "text"
    cells: list[Any] = _seal(name, key)
    _make(rig, "t", cells if kind == "bytea" else [cell.decode() for cell in cells], kind)
    (told,) = _detect(rig, [{"table": "t"}], old=key)
    sampled = 5 if PRESETS[name].derives_slowly else 6
    assert (told["table"], told["column"], told["path"], told["sampled"]) == ("public.t", "secret", "", 6)
    assert (name, "old", sampled, sampled) in _opened(told)
    proven = [each["envelope"] for each in told["envelopes"] if each["authenticated"]]
    assert proven == ([name] if PRESETS[name].authenticated else [])


def test_each_key_is_counted_by_itself_and_no_value_is_told(rig: Rig) -> None:
    old, new = _seal("fernet", KEYS["old"]), _seal("fernet", KEYS["new"])
    _make(rig, "t", [cell.decode() for cell in [*old[:2], *new[:4]]] + ["a value that is not encrypted"])
    (told,) = _detect(rig, [{"table": "t"}], old=KEYS["old"], new=KEYS["new"])
    assert sorted(_opened(told)) == [("fernet", "new", 4, 7), ("fernet", "old", 2, 7)]
    said = json.dumps(told)
    secrets = [*old, *new, *_PLAIN, KEYS["old"], KEYS["new"], b"not encrypted"]
    assert [secret for secret in secrets if secret.decode() in said] == []
    both = KEYS["new"] + b"," + KEYS["old"]  # of a new list only what encrypts
    (told,) = _detect(rig, [{"table": "t"}], new=both)
    assert _opened(told) == [("fernet", "new", 4, 7)]


def test_cells_inside_of_values_are_found(rig: Rig) -> None:
    cells = [cell.decode() for cell in _seal("superset-gcm", _BYTES)]
    _make(rig, "doc", [json.dumps({"a": {"token": cell}, "b": "x" * 30}) for cell in cells], "jsonb")
    _make(rig, "listed", [",".join(cells), "no cell at all in this text"])
    _make(rig, "several", [cells[:3], cells[3:]], "text[]")
    columns = [{"table": "doc"}, {"table": "listed"}, {"table": "listed", "list": ","}, {"table": "several"}]
    told = [(one["table"], one["path"], one["sampled"], _opened(one)) for one in _detect(rig, columns, old=_BYTES)]
    opened = [("superset-gcm", "old", 6, 6)]
    assert told == [
        ("public.doc", "$.a.token", 6, opened),
        ("public.listed", "", 2, []),
        ("public.listed", "", 7, [("superset-gcm", "old", 6, 7)]),
        ("public.several", "", 6, opened),
    ]


def test_a_declared_layout_and_a_condition_are_heeded(rig: Rig) -> None:
    rails = {"preset": "rails-json", "name": "ours", "derive": {"salt": "salt"}}
    _make(rig, "t", [cell.decode() for cell in _seal(rails, _BYTES)])
    rig.sql.execute("INSERT INTO t (secret, app) VALUES ('a text of another application', 2)")
    columns = [{"table": "t"}, {"table": "t", "where": {"column": "app", "is": 1}}]
    (everything, meant) = _detect(rig, columns, old=_BYTES)
    assert (everything["envelopes"], everything["sampled"], meant["envelopes"], meant["sampled"]) == ([], 7, [], 6)
    (told,) = _detect(rig, [{**columns[1], "envelope": rails}], old=_BYTES)
    assert _opened(told) == [("ours", "old", 6, 6)]


def test_what_is_missing_is_refused(rig: Rig) -> None:
    _make(rig, "t", [])
    assert _detect(rig, [{"table": "t"}], old=_BYTES)[0]["sampled"] == 0
    with pytest.raises(KeyturnError) as refused:
        _detect(rig, [{"table": "t"}])
    assert refused.value.code == "keys-missing"
    with pytest.raises(KeyturnError) as refused:
        rig.info(columns=[rig.column("t", "secret", envelope=None)])
    assert (refused.value.code, refused.value.where) == ("envelope-missing", "t.secret")
    assert "detect: true" in refused.value.hint


def test_nothing_is_written_and_a_search_may_go_with_it(rig: Rig) -> None:
    rig.fill(3)
    before = rig.snapshot()
    given = {"old": {"value": KEYS["old"].decode()}}
    result = rig.info(detect=True, search=True, columns=[{"table": "creds", "column": "secret"}], keys=given)
    assert _opened(result["detected"][0]) == [("aes256gcm-b64", "old", 3, 3)]
    assert [row["table"] for row in result["found"]] == ["public.creds"]
    assert rig.snapshot() == before


def test_the_example_of_the_document_works(rig: Rig) -> None:
    text = _DOCUMENT.read_text(encoding="utf-8").split("## Which preset is it")[1]
    (arguments,) = re.findall(r"reencrypt_info -a '(\{.*?\})'", text, re.DOTALL)
    (answer,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    example = json.loads(arguments)
    tables = [entry["table"] for entry in example["columns"]]
    for table, entry in zip(tables, example["columns"]):
        rig.sql.execute(f"CREATE TABLE {table} (id serial PRIMARY KEY, {entry['column']} text)")
    for cell in _seal("fernet", _BYTES)[:3]:
        rig.sql.execute("INSERT INTO connections (password) VALUES (%s)", (cell.decode(),))
    rig.sql.execute("INSERT INTO users (totp) VALUES ('a text that is none'), ('another text that is none')")
    example.update(dsn={"value": rig.dsn}, keys={"old": {"value": _BYTES.decode()}}, state_dir=str(rig.state_dir))
    checked = ArgumentSpecValidator(INFO_ARGUMENTS).validate(example)
    assert checked.error_messages == []
    assert info.run(checked.validated_parameters, False)["detected"] == json.loads(answer)["detected"]
