# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an emergency plans, asks and says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import plan
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.emergency import split_probes
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.record import check_record
from ansible_collections.keyturn.rotation.plugins.plugin_utils import account, emergencies, standing

_STAMP = "2026-11-21T10:00:0{}.000Z"
_KINDS = {
    "signing_key": {"role": "keyturn.rotation.signing_key", "phases": ["preflight", "replace"]},
    "env_secret": {"role": "keyturn.rotation.env_secret", "phases": ["promote"]},
}
_TOKEN = {"type": "token", "url": "https://edge/api", "secret": "SIGN", "token": {"claims": {"iss": "i"}}}
_FIGURES = {"token_lifetime": "15m", "refresh_lifetime": "0s", "gateway_cache": "10m", "reload": "0s", "skew": "60s"}


def _variables(**more: Any) -> dict[str, Any]:
    secret = {
        "kind": "signing_key",
        "key_table": {"database": "app", "shape": "flags", "key_from": {"env": "KEK"}},
        "window": {**_FIGURES, "jwks_max_age": "5m"},
        "jwks": [{"name": "edge", "url": "https://edge/jwks.json", "refresh": "purge"}],
        "probes": [
            {**{key: value for key, value in _TOKEN.items() if key != "secret"}, "version": "new", "hosts": "web"}
        ],
        **more,
    }
    plain = {
        "kind": "env_secret",
        "generate": {"type": "string", "length": 32},
        "stores": [{"hosts": "web", "type": "env_file", "path": "/srv/.env"}],
    }
    return {
        "keyturn_state_host": "db",
        "keyturn_databases": {"app": {"hosts": "db", "dsn": "service=app"}},
        "keyturn_secrets": {"SIGN": secret, "PLAIN": plain},
    }


_GROUPS = {"all": ["db", "web"]}


def _planned(**more: Any) -> dict[str, Any]:
    return plan.build(load_catalog(_variables(**more), _GROUPS), ["SIGN"], _KINDS, {}, emergency=True)


def test_an_emergency_has_an_order_of_its_own_and_names_who_needs_the_keys() -> None:
    made = _planned(watch="5m")
    assert made["phases"] == list(plan.EMERGENCY)
    assert made["emergency"]["SIGN"]["watch_s"] == 300
    assert (made["emergency"]["SIGN"]["emptied"], made["emergency"]["SIGN"]["restarted"]) == (True, False)
    assert made["hosts"]["db"]["signing"][0]["probed_on"] == ["web"]
    assert [probe["version"] for probe in made["hosts"]["web"]["refusals"]] == ["old"]
    assert _planned()["emergency"]["SIGN"]["watch_s"] == 60


def test_a_kind_without_emergency_mode_says_what_to_do_instead() -> None:
    catalog = load_catalog(_variables(), _GROUPS)
    with pytest.raises(KeyturnError, match="no emergency mode") as raised:
        plan.build(catalog, ["PLAIN"], _KINDS, {}, emergency=True)
    assert (raised.value.code, "keyturn_confirm=PLAIN" in raised.value.hint) == ("emergency-kind", True)


@pytest.mark.parametrize("only", [[], ["SIGN", "PLAIN"], ["all"]])
def test_an_emergency_guesses_no_name(only: list[str]) -> None:
    catalog = load_catalog(_variables(), _GROUPS)
    with pytest.raises(KeyturnError) as raised:
        plan.choose(catalog, {"secrets": {}, "rotations": {}}, only, "emergency", 0.0)
    assert raised.value.code in ("emergency-name", "secret-unknown")


def test_a_table_of_tenants_has_no_key_that_a_probe_could_use() -> None:
    table = {"database": "app", "shape": "newest", "key_from": {"env": "KEK"}}
    with pytest.raises(KeyturnError, match="no key to ask with"):
        load_catalog(_variables(key_table=table, jwks=[]), _GROUPS)


# -- probes ----------------------------------------------------------------------------------------------------------


def test_trap_46_every_address_that_takes_tokens_must_refuse_the_old_key() -> None:
    found = split_probes([{**_TOKEN, "name": "edge", "version": "new", "expect": 204}])
    assert [(probe["version"], probe["name"]) for probe in found["probes"]] == [("new", "edge")]
    (refused,) = found["refusals"]
    assert (refused["version"], refused["refused"], refused["accept"]) == ("old", True, [204])
    assert refused["name"] == "edge, refused for the old version"
    assert "expect" not in refused


def test_what_the_overlap_accepts_is_refused_in_an_emergency_and_asked_once() -> None:
    probes = [
        {**_TOKEN, "version": "new"},
        {**_TOKEN, "version": "old"},
        {**_TOKEN, "version": "old", "refused": True, "expect": [403]},
        {**_TOKEN, "url": "https://other/api", "version": "old"},
    ]
    found = split_probes(probes)
    assert [(probe["url"], probe.get("expect")) for probe in found["refusals"]] == [
        ("https://edge/api", [403]),
        ("https://other/api", None),
    ]


def test_logs_with_a_limit_are_watched_and_what_asks_for_the_old_version_is_not_asked() -> None:
    log = {"type": "log", "secret": "SIGN", "path": ["/var/log/edge"]}
    found = split_probes(
        [
            {**log, "pattern": "401", "at_most": 5},
            {**log, "pattern": "hit", "at_least": 1},
            {**log, "pattern": "kid={kid}", "version": "old", "refused": True, "since": "1h"},
            {"type": "http", "secret": "SIGN", "url": "https://edge/up"},
        ]
    )
    assert [probe["pattern"] for probe in found["watched"]] == ["401"]
    assert [probe.get("pattern") or probe["type"] for probe in found["probes"]] == ["hit", "http"]
    assert found["refusals"] == []


# -- the account -----------------------------------------------------------------------------------------------------


def _run(status: str = "replacing", **answers: Any) -> account.Run:
    return account.Run(
        plan=_planned(),
        mode="emergency",
        rotation_id="r1",
        rotation={
            "status": status,
            "secrets": ["KEY"],
            "started_at": _STAMP.format(0),
            "disabled_at": _STAMP.format(3),
            "entered": ["preflight", "replace", "refresh"],
            "runs": [{"run_id": "r", "epoch": 1, "user": "ann", "started_at": _STAMP.format(0), "interrupted": False}],
        },
        answers={"closed": {"db": {}, "web": {}}, **answers},
        who={"user": "ann"},
    )


def test_the_evidence_says_what_is_compromised_and_until_when_it_may_be_accepted() -> None:
    record = account.evidence_record(_run(), "replaced", [], [], _STAMP.format(5))
    check_record(record)
    assert [entry["state"] for entry in record["secrets"][0]["versions"]] == ["primary", "compromised"]
    assert [(one["seconds"], one["until"]) for one in record["exposed"]] == [(360, "2026-11-21T10:06:03.000Z")]
    assert "no logs were watched for failed authentications" in record["messages"]
    text = "\n".join(account.summary_lines(_run(), "replaced", [], record, {}))
    assert "SIGN: the compromised version is replaced and disabled" in text
    assert "way back    none" in text


def test_an_emergency_that_fails_is_not_over_and_says_what_holds() -> None:
    failed = _run(cause={"web": {"task": "Probe", "msg": "the old version is still accepted"}})
    assert account.outcome(failed) == ("replacing", [])
    assert account.outcome(_run()) == ("replaced", [])
    assert account.outcome(replace(failed, answers={"closed": {"db": {}}})) == ("replacing", ["web"])
    record = account.evidence_record(failed, "replacing", [], [], _STAMP.format(5))
    check_record(record)
    assert record["event"] == "failed"
    assert [entry["state"] for entry in record["secrets"][0]["versions"]] == ["primary", "compromised"]
    text = "\n".join(account.summary_lines(failed, "replacing", [], record, {}))
    assert "keyturn.rotation.emergency -e keyturn_only=SIGN -e keyturn_confirm=SIGN" in text
    assert "web: Probe: the old version is still accepted" in text


def test_an_emergency_that_is_refused_before_it_replaces_leaves_the_lock_free() -> None:
    failed = _run(cause={"db": {"task": "Look whether the keys could be replaced", "msg": "no row opens"}})
    refused = replace(failed, rotation={**failed.rotation, "entered": ["preflight"]})
    assert account.outcome(refused) == ("refused", [])
    record = account.evidence_record(refused, "refused", [], [], _STAMP.format(5))
    check_record(record)
    assert (record["event"], "exposed" in record) == ("failed", False)
    assert [entry["state"] for entry in record["secrets"][0]["versions"]] == ["dropped", "primary"]
    text = "\n".join(account.summary_lines(refused, "refused", [], record, {}))
    assert "nothing was replaced" in text
    assert "no row opens" in text
    assert "in use as before. no row opens" in emergencies.verdict(refused, [])


def test_the_plan_announces_the_end_of_the_present_key_and_how_long_it_may_be_accepted() -> None:
    text = "\n".join(account.plan_lines(_run(), []))
    assert "the present key is disabled at once, without an overlap; there is no way back" in text
    assert "for 6 min = 5 min jwks_max_age (catalog) + 0.0 s reload (catalog) + 60.0 s skew (catalog)" in text
    assert "overlap     " not in text


def test_a_retire_that_only_asked_ends_as_it_began() -> None:
    refused = replace(_run("overlap", cause={"web": {"task": "Ask every probe", "msg": "used"}}), mode="retire")
    refused = replace(refused, register={"rotations": {"r1": refused.rotation}})
    assert account.outcome(refused) == ("kept", [])
    record = account.evidence_record(refused, "kept", [], [], _STAMP.format(5))
    check_record(record)
    assert record["event"] == "failed"
    assert account.outcome(replace(refused, rotation={**refused.rotation, "status": "retiring"})) == ("retiring", [])


@pytest.mark.parametrize(
    ("status", "words"),
    [("replaced", "caches may accept it until 2026"), ("replacing", "nothing goes back")],
)
def test_status_shows_it(status: str, words: str) -> None:
    row = {
        "name": "SIGN", "kind": "signing_key", "due": "fresh", "primary_since": _STAMP.format(0), "rotation_id": "r1",
        "status": status, "phase": "prove", "retire_after": "", "waived": [], "lost": [],
        "exposed_until": _STAMP.format(9),
    }  # fmt: skip
    assert words in "\n".join(standing.status_lines({"secrets": [row]}, {}))
