# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents signed again under another kid, counted, and brought back; what must stop a run, does."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jws import read, sign
from psycopg.types.json import Jsonb

from tests.support.documents import ACCOUNT, NEW, OLD, RUN, PolicyRig, keys, policy, published, signer
from tests.support.modules import run_module_process
from tests.support.postgres import EmbeddedPostgres

_STAMPED = ("version", "jws", "resigned_at", "resigned_count", "rotation_id", "signed_with_kid")
_AES = b"UXaAksVyUK_1-nreW0YRGj_of9GZw30hvVGQUOoaMho"


def _coverage(result: dict[str, Any]) -> dict[str, int]:
    (one,) = result["coverage"]
    return {name: count for name, count in one.items() if isinstance(count, int) and count and name != "total"}


def _refused(rig: PolicyRig, state: str = "resigned", **more: Any) -> KeyturnError:
    with pytest.raises(KeyturnError) as raised:
        rig.run(state, **more)
    return raised.value


def _insert(rig: PolicyRig, **values: Any) -> None:
    names = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, values))
    marks = psycopg.sql.SQL(", ").join([psycopg.sql.SQL("%s")] * len(values))
    query = psycopg.sql.SQL("INSERT INTO policies ({}) VALUES ({})").format(names, marks)
    rig.sql.execute(query, [Jsonb(value) if isinstance(value, dict) else value for value in values.values()])


def _fill_as_recorded(rig: PolicyRig) -> None:
    for row in RUN["rows_before"]:
        _insert(rig, **row)


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    compact = read(row["jws"].encode())
    assert compact is not None
    payload: dict[str, Any] = json.loads(compact.payload)
    return payload


# -- forward -----------------------------------------------------------------------------------------------------


def test_a_recorded_run_comes_out_as_the_other_program_left_it(rig: PolicyRig) -> None:
    _fill_as_recorded(rig)
    started = datetime.now(timezone.utc)
    result = rig.run("resigned", rotation_id=RUN["rotation_id"])
    assert result["changed"]
    assert result["rows_written"] == 2
    assert _coverage(result) == {"new": 2, "skipped": 3}
    rows = rig.rows()
    for wanted in RUN["rows_after"]:
        found = rows[wanted["id"]]
        for name in ("version", "resigned_count", "rotation_id", "signed_with_kid", "active", "is_draft", "bundle"):
            assert found[name] == wanted.get(name), (wanted["app_name"], name)
        if wanted["jws"] is None or wanted.get("resigned_at") is None:
            assert found["jws"] == wanted["jws"]
            assert found["resigned_at"] is None
            continue
        ours, theirs = read(found["jws"].encode()), read(wanted["jws"].encode())
        assert ours is not None
        assert theirs is not None
        assert ours.holds(signer(NEW).verifier)
        assert (ours.kid, ours.algorithm) == (theirs.kid, theirs.algorithm)
        payload, example = _payload(found), _payload(wanted)
        dates = ("iat", "exp")
        assert list(payload) == list(example)
        assert {n: v for n, v in payload.items() if n not in dates} == {
            n: v for n, v in example.items() if n not in dates
        }
        assert payload["exp"] - payload["iat"] in (365 * 86400, 366 * 86400)
        assert datetime.fromisoformat(found["resigned_at"]) >= started.replace(microsecond=0)


def test_the_example_of_the_documentation_signs(rig: PolicyRig) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "resigning.md").read_text()
    (task,) = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    example = task["keyturn.rotation.jws_resign"]
    rig.fill(2)
    arguments = _given(rig.params(example["state"], documents=example["documents"], turns=example["turns"]))
    assert set(example) <= set(arguments)
    ran = run_module_process("jws_resign", arguments)
    assert _coverage(ran) == {"new": 2}
    assert rig.kids() == {NEW: 2}


def test_check_real_check_again_real_again(rig: PolicyRig) -> None:
    rig.fill(20)
    before = rig.rows()
    checked = rig.run("resigned", check=True)
    assert checked["changed"]
    assert _coverage(checked) == {"old": 20}
    assert rig.rows() == before
    assert rig.sql.execute("SELECT to_regnamespace('keyturn')").fetchone() == (None,)
    real = rig.run("resigned")
    assert (real["changed"], real["rows_written"]) == (True, 20)
    assert real["diff"]["before"]["coverage"][0]["old"] == 20
    after = rig.rows()
    assert rig.kids() == {NEW: 20}
    assert not rig.run("resigned", check=True)["changed"]
    again = rig.run("resigned")
    assert (again["changed"], again["rows_written"]) == (False, 0)
    assert rig.rows() == after


def test_trap_36_a_call_by_the_same_rotation_signs_nothing_twice(rig: PolicyRig) -> None:
    rig.fill(5)
    rig.run("resigned")
    signatures = {row["jws"] for row in rig.rows().values()}
    rig.fill(1)
    rig.run("resigned")
    assert signatures < {row["jws"] for row in rig.rows().values()}
    assert rig.kids() == {NEW: 6}


def test_trap_04_no_document_at_all_is_a_failure_unless_it_is_allowed(rig: PolicyRig) -> None:
    _insert(rig, account_id=ACCOUNT, app_name="a", version=1, bundle={}, is_draft=True)
    error = _refused(rig)
    assert error.code == "no-documents"
    assert "none of 1 rows" in error.message
    rig.documents["may_be_empty"] = True
    assert not rig.run("resigned")["changed"]


def test_drafts_revoked_and_inactive_ones_are_left_alone_and_counted(rig: PolicyRig) -> None:
    rig.fill(3)
    for extra in ({"is_draft": True}, {"active": False}, {"revocation_time": "2026-01-01T00:00:00Z"}):
        _insert(rig, account_id=ACCOUNT, app_name="x", version=len(rig.rows()), bundle={}, jws="anything", **extra)
    before = {key: row for key, row in rig.rows().items() if row["app_name"] == "x"}
    assert _coverage(rig.run("resigned")) == {"new": 3, "skipped": 3}
    assert {key: row for key, row in rig.rows().items() if row["app_name"] == "x"} == before


def test_unsigned_documents_are_kept_or_signed_as_declared(rig: PolicyRig) -> None:
    rig.fill(2)
    _insert(rig, account_id=ACCOUNT, app_name="fresh", version=1, bundle={"a": 1})
    _insert(rig, account_id=ACCOUNT, app_name="empty", version=1, bundle={"a": 1}, jws="")
    assert _coverage(rig.run("resigned")) == {"new": 2, "unsigned": 2}
    rig.documents["unsigned"] = "sign"
    assert _coverage(rig.run("resigned")) == {"new": 4}
    rig.run("rolled_back")
    assert {row["app_name"]: row["jws"] for row in rig.rows().values() if row["version"] == 1 and not row["jws"]} == {
        "fresh": None,
        "empty": "",
    }


def test_versions_of_one_document_never_meet(rig: PolicyRig) -> None:
    for version in (3, 7, 8):
        _insert(rig, account_id=ACCOUNT, app_name="a", version=version, bundle={"v": version}, jws=policy(OLD, {}, "a"))
    _insert(rig, account_id=ACCOUNT, app_name="a", version=40, bundle={}, is_draft=True)
    rig.run("resigned")
    assert {row["bundle"].get("v"): row["version"] for row in rig.rows().values()} == {3: 41, 7: 42, 8: 43, None: 40}


def test_without_version_per_a_version_grows_by_one(rig: PolicyRig) -> None:
    rig.fill(3)
    rig.sql.execute("UPDATE policies SET version = 9")
    rig.documents.update(version_per=[], stamps=None, kid=None)
    rig.run("resigned")
    assert {(row["version"], row["resigned_count"], row["signed_with_kid"]) for row in rig.rows().values()} == {
        (10, None, OLD)
    }
    assert rig.kids() == {NEW: 3}


def test_several_workers_share_the_rows(rig: PolicyRig) -> None:
    rig.sql.execute("ALTER TABLE policies SET (fillfactor = 10)")
    rig.fill(60)
    result = rig.run("resigned", workers=3, batch_rows=1)
    assert (result["rows_written"], _coverage(result)) == (60, {"new": 60})
    assert rig.kids() == {NEW: 60}
    before = rig.run("rolled_back", workers=3)
    assert (before["rows_restored"], rig.kids()) == (60, {OLD: 60})


# -- what stops a run --------------------------------------------------------------------------------------------


def test_claims_that_a_document_brings_itself_are_refused_and_named(rig: PolicyRig) -> None:
    rig.fill(3)
    rig.sql.execute('UPDATE policies SET bundle = \'{"aud": "CANARY", "iss": "x"}\' WHERE app_name = \'app-1\'')
    (key,) = [key for key, row in rig.rows().items() if row["app_name"] == "app-1"]
    before = rig.rows()
    error = _refused(rig)
    assert error.code == "document-refused"
    assert f"{key} has claims of its own: aud, iss" in error.message
    assert "CANARY" not in str(error)
    assert rig.rows() == before
    assert rig.left_behind() == []
    rig.documents["allow_claims"] = ["aud", "iss"]
    rig.run("resigned")
    assert _payload(rig.rows()[key])["aud"] == "CANARY"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("bundle = '[1]'", "document-refused", "is no JSON object"),
        ("bundle = NULL", "document-refused", "is no JSON object"),
        ("app_name = NULL", "document-refused", "has nothing in the column app_name"),
        ("jws = 'nothing'", "signature-broken", "have no signature that holds"),
        ("jws = left(jws, -9)", "signature-broken", "have no signature that holds"),
    ],
)
def test_trap_02_a_row_that_is_not_understood_stops_the_run(rig: PolicyRig, change: str, code: str, said: str) -> None:
    rig.fill(2)
    query = psycopg.sql.SQL("UPDATE policies SET {} WHERE app_name = 'app-1'").format(psycopg.sql.SQL(change))
    rig.sql.execute(query)
    before = rig.rows()
    error = _refused(rig)
    assert error.code == code
    assert said in error.message
    assert "1 of 2 rows" in error.message
    assert rig.rows() == before


def test_a_payload_that_nobody_signed_is_not_signed_again(rig: PolicyRig) -> None:
    rig.fill(1)
    (row,) = rig.rows().values()
    head, _payload_of, tail = row["jws"].split(".")
    forged = sign(signer(NEW), b"", {"role": "admin"}).signed.split(b".")[1].decode()
    rig.sql.execute("UPDATE policies SET jws = %s", (f"{head}.{forged}.{tail}",))
    assert _refused(rig).code == "signature-broken"


def test_a_kid_that_nobody_named_stops_the_run(rig: PolicyRig) -> None:
    rig.fill(2)
    error = _refused(rig, turns=[{"tenant": None, "new": NEW, "old": [ACCOUNT]}])
    assert error.code == "kid-unknown"
    before = rig.rows()
    rig.documents["kid"] = None
    rig.run("resigned", turns=[{"tenant": None, "new": NEW, "old": [ACCOUNT, OLD]}])
    assert rig.kids() == {NEW: 2}
    assert {row["bundle"]["n"] for row in before.values()} == {0, 1}


def test_trap_17_a_key_that_is_not_published_does_not_sign(rig: PolicyRig) -> None:
    rig.fill(2)
    whole = json.loads(published())
    rig.jwks.write_text(json.dumps({"keys": [key for key in whole["keys"] if key["kid"] == OLD]}))
    assert _refused(rig).code == "kid-unpublished"
    wrong = [{**key, "kid": OLD if key["kid"] == NEW else NEW} for key in whole["keys"]]
    rig.jwks.write_text(json.dumps({"keys": wrong}))
    assert _refused(rig).code == "key-differs"
    assert rig.kids() == {OLD: 2}


def test_trap_38_published_keys_that_do_not_answer_stop_the_run(rig: PolicyRig) -> None:
    rig.fill(1)
    nobody = {"url": "http://127.0.0.1:1/jwks.json", "file": None, "headers": {}, "ca_file": None, "timeout": 1}
    assert _refused(rig, jwks=nobody).code == "jwks-unreachable"
    assert rig.kids() == {OLD: 1}


def test_without_published_keys_the_private_ones_check(rig: PolicyRig) -> None:
    rig.fill(2)
    rig.run("resigned", jwks=None)
    assert rig.kids() == {NEW: 2}


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"document": "nothing"}, "column-missing"),
        ({"signature": "bundle"}, "documents-invalid"),
        ({"document": "jws"}, "documents-invalid"),
        ({"document": "version"}, "documents-invalid"),
        ({"version": "app_name", "version_per": []}, "documents-invalid"),
        ({"version": None}, "documents-invalid"),
        ({"kid": "version", "version": None, "version_per": []}, "documents-invalid"),
        ({"version_per": ["nobody"]}, "column-missing"),
        ({"stamps": {"at": "id"}}, "documents-invalid"),
        ({"stamps": {"at": "app_name"}}, "documents-invalid"),
        ({"stamps": {"rotation_id": "signed_with_kid"}}, "documents-invalid"),
        ({"where": {"column": "jws", "is": "x"}}, "documents-invalid"),
        ({"where": {"column": "nobody", "is": "x"}}, "column-missing"),
        ({"claims": {"aud": "{nobody}"}}, "column-missing"),
        ({"table": "nobody"}, "table-missing"),
    ],
)
def test_a_wrong_declaration_is_refused_before_anything(rig: PolicyRig, entry: dict[str, Any], code: str) -> None:
    rig.fill(1)
    rig.documents.update(entry)
    assert _refused(rig).code == code
    assert rig.sql.execute("SELECT to_regnamespace('keyturn')").fetchone() == (None,)


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [{"new": "", "old": [OLD]}],
        [{"new": NEW, "old": []}],
        [{"new": NEW, "old": [NEW]}],
        [{"new": NEW, "old": [OLD]}, {"new": NEW, "old": ["x"]}],
        [{"new": NEW, "old": [OLD]}, {"tenant": ACCOUNT, "new": NEW, "old": ["x"]}],
    ],
)
def test_trap_33_wrong_kids_are_refused(rig: PolicyRig, turns: list[dict[str, Any]]) -> None:
    assert _refused(rig, turns=turns).code == "turns-invalid"


def test_a_trigger_that_changes_what_is_written_is_noticed(rig: PolicyRig) -> None:
    rig.fill(2)
    rig.sql.execute("""
        CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.jws := NEW.jws || 'x'; RETURN NEW; END $$;
        CREATE TRIGGER spoiler BEFORE UPDATE ON policies FOR EACH ROW EXECUTE FUNCTION spoil()""")
    before = rig.rows()
    error = _refused(rig)
    assert error.code == "trigger-rewrites"
    assert "spoiler" in error.message
    assert rig.rows() == before


# -- tenants and keys --------------------------------------------------------------------------------------------


def _key_rows(rig: PolicyRig) -> None:
    rig.sql.execute("CREATE TABLE jwks_keys (kid uuid PRIMARY KEY, account_id uuid, private_jwk text)")
    seal = Envelope(load_spec("aes256gcm-b64"), _AES).seal
    for kid, jwk in keys().items():
        cell = seal(jwk.encode()).decode()
        rig.sql.execute("INSERT INTO jwks_keys VALUES (%s, %s, %s)", (kid, ACCOUNT, cell))
    rig.defaults = {
        "keys": {},
        "key_table": {
            "table": "jwks_keys",
            "kid": "kid",
            "private": "private_jwk",
            "tenant": "account_id",
            "envelope": "aes256gcm-b64",
            "key": {"value": _AES.decode()},
        },
        "turns": [{"tenant": ACCOUNT, "new": NEW, "old": [OLD]}],
    }
    rig.documents["tenant"] = "account_id"


def test_each_tenant_has_its_own_key_from_the_table_of_keys(rig: PolicyRig) -> None:
    _key_rows(rig)
    rig.fill(4)
    other = "00000000-0000-4000-8000-000000000009"
    _insert(rig, account_id=other, app_name="theirs", version=1, bundle={}, jws="whatever they have")
    assert _coverage(rig.run("resigned")) == {"new": 4, "skipped": 1}
    assert [row["jws"] for row in rig.rows().values() if row["account_id"] == other] == ["whatever they have"]


def test_a_key_of_another_tenant_is_not_taken(rig: PolicyRig) -> None:
    _key_rows(rig)
    rig.fill(1)
    rig.sql.execute("UPDATE jwks_keys SET account_id = gen_random_uuid()")
    assert _refused(rig).code == "signing-key-missing"
    assert rig.kids() == {OLD: 1}


def test_a_key_that_does_not_open_is_said_without_its_cell(rig: PolicyRig) -> None:
    _key_rows(rig)
    rig.fill(1)
    rig.sql.execute("UPDATE jwks_keys SET private_jwk = 'CANARY'")
    error = _refused(rig)
    assert error.code == "signing-key-unreadable"
    assert "CANARY" not in str(error)


def test_a_key_in_clear_in_an_encrypted_column_signs_too(rig: PolicyRig) -> None:
    _key_rows(rig)
    rig.fill(2)
    rig.sql.execute("UPDATE jwks_keys SET private_jwk = %s WHERE kid = %s", (keys()[NEW], NEW))
    rig.run("resigned")
    assert rig.kids() == {NEW: 2}


def test_trap_25_no_key_is_in_the_server_log_or_in_what_is_printed(rig: PolicyRig, server: EmbeddedPostgres) -> None:
    _key_rows(rig)
    rig.fill(3)
    start = len(server.log_text())
    ran = run_module_process("jws_resign", _given(rig.params("resigned")))
    assert ran["changed"], ran
    secret = json.loads(keys()[NEW])
    everything = server.log_text()[start:] + ran.printed
    assert [name for name in ("d", "p", "q", "dp", "dq", "qi") if secret[name][:40] in everything] == []
    assert _AES.decode() not in ran.printed


def test_trap_28_a_module_that_fails_shows_no_key(rig: PolicyRig) -> None:
    rig.fill(1)
    ran = run_module_process("jws_resign", _given(rig.params("resigned", keys={"new": {"value": keys()[OLD]}})))
    assert ran["failed"]
    assert ran["code"] == "key-differs"
    assert json.loads(keys()[OLD])["d"][:40] not in ran.printed


def _given(value: Any) -> Any:
    """Arguments without those that nobody gave."""
    if isinstance(value, dict):
        return {name: _given(part) for name, part in value.items() if part is not None or name == "is"}
    return [_given(part) for part in value] if isinstance(value, list) else value
