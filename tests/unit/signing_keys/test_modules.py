# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as Ansible runs them, and what the catalog and the plan make of a secret of this kind."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import gates, plan
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.record import check_record
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.job import ARGUMENTS, INFO_ARGUMENTS
from ansible_collections.keyturn.rotation.plugins.plugin_utils import logins, signing
from ansible_collections.keyturn.rotation.plugins.plugin_utils.signing_arguments import documents_told

from tests.support.evidence import small_record
from tests.support.modules import Ran, run_module_process
from tests.support.signing import KEY, Keys
from tests.unit.signing_keys.conftest import KeysMaker

_GROUPS = {"all": ["a1", "a2", "db1", "db2"], "api": ["a1", "a2"]}
_KINDS = {
    kind: {"role": f"keyturn.rotation.{kind}", "phases": ["promote"]} for kind in ("encryption_key", "signing_key")
}


def _call(name: str, keys: Keys, known: dict[str, Any], state: str, check: bool = False, **more: Any) -> Ran:
    given = {key: value for key, value in keys.params(state, **more).items() if key in known and value is not None}
    answer = run_module_process(name, given, check)
    assert KEY not in answer.printed
    return answer


def test_check_real_check_again_real_again(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.fill()
    before = keys.rows()
    assert _call("signing_key", keys, ARGUMENTS, "staged", check=True)["changed"]
    assert keys.rows() == before
    made = _call("signing_key", keys, ARGUMENTS, "staged")
    assert (made["changed"], made["made"], made["counts"]["keys"]) == (True, 1, 3)
    assert (made["diff"]["before"], made["diff"]["after"].splitlines()[1]) == (
        "tenants: 1\nkeys: 2\ncurrent: 1\nusable: 2\ndisabled: 0\n",
        "keys: 3",
    )
    for check in (True, False):
        assert not _call("signing_key", keys, ARGUMENTS, "staged", check=check)["changed"]
    told = _call("signing_key_info", keys, INFO_ARGUMENTS, "", expect="sound")
    assert (told["changed"], told["stages"], told["opened"]) == (False, {"staged": 1}, 3)
    (turn,) = told["turns"]
    assert [turn] == made["keys"]
    for which in ("new", "old"):  # the kid of this table is the beginning of the digest
        kid = base64.urlsafe_b64encode(bytes.fromhex(turn[f"{which}_sha256"]))[:16].decode()
        assert kid == turn[f"{which}_kid"]


def test_a_refusal_comes_with_its_code(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    told = _call("signing_key", keys, ARGUMENTS, "promoted")
    assert (told["failed"], told["code"]) == (True, "signing-not-staged")
    told = _call("signing_key_info", keys, INFO_ARGUMENTS, "", expect="sound", key=None)
    assert (told["failed"], told["code"]) == (True, "key-missing")


# -- the catalog and the plan --------------------------------------------------------------------------------------


def _variables(**more: Any) -> dict[str, Any]:
    table = {"database": "app", "shape": "newest", "under": "AES"}
    return {
        "keyturn_state_host": "a1",
        "keyturn_databases": {"app": {"hosts": ["db1", "db2"], "dsn": "service=app", "max_wait": "90s"}},
        "keyturn_secrets": {
            "AES": {
                "kind": "encryption_key",
                "strategy": "overlap",
                "stores": [{"hosts": "api", "type": "env_file", "path": "/srv/.env"}],
                "data": [{"database": "app", "table": "t", "column": "c", "envelope": "fernet"}],
            },
            "SIGN": {"kind": "signing_key", "key_table": table, "overlap_min": "2h", **more},
        },
    }


def _loaded(**more: Any) -> Catalog:
    return load_catalog(_variables(**more), _GROUPS)


def test_the_database_s_first_host_turns_keys_and_a_host_with_the_store_seals_to_it() -> None:
    catalog = _loaded()
    assert catalog.secrets["SIGN"]["strategy"] == "overlap"
    assert catalog.hosts_of("SIGN") == ["a1", "db1"]
    made = plan.build(catalog, ["SIGN"], _KINDS, {})
    (job,) = made["hosts"]["db1"]["signing"]
    assert (job["overlap_s"], job["max_wait"], job["generate"]["type"]) == (7200, 90, "rsa")
    assert job["key_table"] == {"shape": "newest"}
    (parent,) = made["hosts"]["a1"]["parents"]
    assert (parent["name"], parent["for"]) == ("AES", ["db1"])
    assert made["phases"] == list(plan.PHASES["overlap"])
    assert logins.no_gap(made)
    assert signing.planned(made["hosts"]["db1"]) == ["signing keys in jwks_keys of app"]


def test_another_host_seals_where_the_first_is_waived_and_the_database_s_host_cannot_be() -> None:
    waiver = {"host": "a1", "reason": "down", "until": "2099-01-01"}
    variables = {**_variables(), "keyturn_state_host": "db1"}
    made = plan.build(load_catalog(variables, _GROUPS), ["SIGN"], _KINDS, {"a1": waiver})
    assert "parents" in made["hosts"]["a2"]
    for host in ("db1",):
        with pytest.raises(KeyturnError, match="cannot be left out"):
            plan.build(_loaded(), ["SIGN"], _KINDS, {host: {**waiver, "host": host}})
    with pytest.raises(KeyturnError, match="every host that holds AES"):
        plan.build(load_catalog(variables, _GROUPS), ["SIGN"], _KINDS, {h: {**waiver, "host": h} for h in ("a1", "a2")})


_JWKS = {"name": "issuer", "url": "https://id.example/jwks.json"}
_FIGURES = dict.fromkeys(("token_lifetime", "refresh_lifetime", "gateway_cache", "reload", "skew"), "1m")
_DOCUMENTS = {"database": "app", "table": "notes", "document": "body", "signature": "jws"}


def _one_for_all(**more: Any) -> dict[str, Any]:
    """A secret whose table has one current key."""
    return {"key_table": {"database": "app", "shape": "flags", "under": "AES"}, **more}


def test_published_keys_are_waited_for_where_one_kid_stands_for_the_secret() -> None:
    made = plan.build(_loaded(**_one_for_all(window=_FIGURES, jwks=[_JWKS])), ["SIGN"], _KINDS, {})
    (asked,) = made["hosts"]["a1"]["jwks"]
    assert (asked["secret"], asked["endpoints"]) == ("SIGN", [_JWKS])
    with pytest.raises(KeyturnError, match="each tenant has keys of its own") as raised:
        _loaded(window=_FIGURES, jwks=[_JWKS])
    assert raised.value.where == "keyturn_secrets.SIGN.jwks"
    assert "columns: {tenant: ''}" in raised.value.hint


def test_an_overlap_that_nobody_declared_is_refused_with_the_line_to_add() -> None:
    variables = _variables()
    del variables["keyturn_secrets"]["SIGN"]["overlap_min"]
    with pytest.raises(KeyturnError) as raised:
        load_catalog(variables, _GROUPS)
    assert raised.value.where == "keyturn_secrets.SIGN"
    assert "'overlap_min: 24h'" in raised.value.hint


def test_documents_reach_the_host_that_has_the_keys() -> None:
    published = {**_JWKS, "hosts": "db1"}
    loaded = _loaded(**_one_for_all(window=_FIGURES, jwks=[published], documents=[{**_DOCUMENTS, "lifetime": "1y"}]))
    made = plan.build(loaded, ["SIGN"], _KINDS, {})
    (job,) = made["hosts"]["db1"]["signing"]
    assert job["documents"] == {
        "tables": [{"table": "notes", "document": "body", "signature": "jws", "lifetime": "1y"}],
        "key_table": {
            "table": "signing_keys",
            "kid": "kid",
            "private": "private_pem_enc",
            "envelope": "aesgcm-raw",
        },
        "jwks": {"url": _JWKS["url"]},
    }
    assert signing.planned(made["hosts"]["db1"]) == [
        "signing keys in signing_keys of app",
        "signed documents in notes of app",
    ]
    (job,) = plan.build(_loaded(documents=[{**_DOCUMENTS, "tenant": "owner"}]), ["SIGN"], _KINDS, {})["hosts"]["db1"][
        "signing"
    ]
    assert job["documents"]["key_table"]["tenant"] == "account_id"
    assert "jwks" not in job["documents"]


@pytest.mark.parametrize(
    ("documents", "why"),
    [
        (_DOCUMENTS, "no column says whose a document is"),
        ({**_DOCUMENTS, "tenant": "owner", "database": "other"}, "another database"),
    ],
)
def test_documents_whose_key_could_not_be_found_are_refused(documents: dict[str, Any], why: str) -> None:
    variables = _variables(documents=[documents])
    variables["keyturn_databases"]["other"] = {"hosts": "db2", "dsn": "service=other"}
    with pytest.raises(KeyturnError, match=why):
        load_catalog(variables, _GROUPS)


def test_coverage_of_documents_adds_up_as_evidence_has_it() -> None:
    counted = {"new": 4, "old": 1, "other": 1, "unsigned": 2, "broken": 1, "refused": 1}
    row = {"table": "public.notes", "column": "jws", "total": 13, **counted, "skipped": 3}
    job = {"secret": "SIGN", "database": "app"}
    told = documents_told({"coverage": [row]}, {"job": job})
    (shown,) = told["coverage"]
    assert (shown["total"], shown["null"], shown["unknown"]) == (10, 2, 3)
    assert shown["total"] == sum(shown[part] for part in ("new", "old", "plaintext", "null", "unknown"))
    assert told["documents"] == job


def test_keys_do_not_turn_together_with_what_they_are_encrypted_with() -> None:
    with pytest.raises(KeyturnError) as refused:
        plan.build(_loaded(), ["AES", "SIGN"], _KINDS, {})
    assert refused.value.code == "keys-together"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"key_table": {"database": "nowhere", "shape": "newest", "under": "AES"}}, "key_table"),
        ({"key_table": {"database": "app", "shape": "newest"}}, "key_table"),
        ({"key_table": {"database": "app", "shape": "newest", "under": "SIGN"}}, "under"),
        ({"key_table": {"database": "app", "shape": "newest", "under": "AES", "key_from": {"env": "K"}}}, "key_table"),
        ({"key_table": {"database": "app", "shape": "newest", "key_from": {}}}, "key_from"),
        ({"stores": [{"hosts": "api", "type": "file", "path": "/k"}]}, "stores"),
        ({"strategy": "replace"}, "strategy"),
        ({"kind": "env_secret", "stores": [{"hosts": "api", "type": "file", "path": "/k"}]}, "key_table"),
        ({"generate": {"type": "string", "length": 40}}, "generate"),
    ],
)
def test_a_catalog_that_cannot_be_meant_is_refused(change: dict[str, Any], place: str) -> None:
    with pytest.raises(KeyturnError) as refused:
        _loaded(**change)
    assert refused.value.code in ("catalog-invalid", "generate-invalid")
    assert place in refused.value.where


def test_a_secret_of_this_kind_needs_a_table_and_others_need_a_store() -> None:
    variables = _variables()
    del variables["keyturn_secrets"]["SIGN"]["key_table"]
    with pytest.raises(KeyturnError, match="'key_table' is missing"):
        load_catalog(variables, _GROUPS)
    variables = _variables()
    del variables["keyturn_secrets"]["AES"]["stores"]
    with pytest.raises(KeyturnError, match="'stores' is missing"):
        load_catalog(variables, _GROUPS)


def test_a_host_that_did_not_bring_its_keys_back_is_named() -> None:
    made = plan.build(_loaded(), ["SIGN"], _KINDS, {})
    done = {"signing": {"secret": "SIGN", "database": "app"}}
    assert gates.swapped_back(made, {"db1": [done]}) == []
    (problem,) = gates.swapped_back(made, {"db1": [{**done, "failed": True}]})
    assert "the former keys of SIGN" in problem


def test_one_key_is_named_by_its_kid_and_many_are_counted() -> None:
    result = {
        "signing": {"secret": "SIGN"},
        "made": 1,
        "promoted": 0,
        "keys": [{"tenant": "", "old_kid": "k1", "new_kid": "k2", "stage": "staged"}],
    }
    assert signing.notes([("db1", "stage", result)]) == ["signing keys of SIGN: 1 made (k1 -> k2)"]
    many = {**result, "made": 1200, "keys": result["keys"] * 2}
    assert signing.notes([("db1", "stage", many), ("db1", "verify", {"changed": False})]) == [
        "signing keys of SIGN: 1 200 made"
    ]


def _said(step: str, member: str, stage: str, **digests: str | None) -> tuple[str, str, dict[str, Any]]:
    turn = {"tenant": "", "new_kid": "k2", "old_kid": "k1", "stage": stage, "new_sha256": "b" * 64, **digests}
    return "db1", step, {"signing": {"secret": "SIGN"}, "stages": {stage: 1}, member: [turn]}


def test_the_evidence_names_both_keys_and_keeps_the_digest_of_one_that_is_not_published_any_more() -> None:
    looked = _said("verify", "turns", "promoted", old_sha256="a" * 64)
    (entry,) = signing.told([looked])["signing_keys"]
    assert [(key["kid"], key["state"]) for key in entry["keys"]] == [("k2", "primary"), ("k1", "previous")]
    ended = [looked, _said("retire", "keys", "disabled", old_sha256=None)]
    (entry,) = signing.told(ended)["signing_keys"]
    assert (entry["name"], entry["tenants"]) == ("SIGN", 1)
    assert [(key["state"], key["public_sha256"][:1]) for key in entry["keys"]] == [("primary", "b"), ("retired", "a")]
    check_record(small_record(**signing.told(ended)))
    (exposed,) = signing.told(ended, True)["signing_keys"]
    assert [key["state"] for key in exposed["keys"]] == ["primary", "compromised"]
    (back,) = signing.told([_said("verify", "turns", "withdrawn")])["signing_keys"]
    assert [key["state"] for key in back["keys"]] == ["previous", "primary"]
    assert signing.told([("db1", "verify", {"signing": {"secret": "SIGN"}, "turns": [], "stages": {}})]) == {}
