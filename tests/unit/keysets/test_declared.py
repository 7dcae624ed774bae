# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keysets in the catalog and in the plan: what is asked for, how long both keys stay, who is restarted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import gates
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.record import check_record
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import build
from ansible_collections.keyturn.rotation.plugins.plugin_utils import keysets

from tests.support.evidence import small_record

GROUPS = {"all": ["a1", "a2", "db"], "api": ["a1", "a2"]}
KINDS = {kind: {"role": f"keyturn.rotation.{kind}", "phases": ["verify"]} for kind in ("keyset", "env_secret")}
_PATH = "/etc/jwt-keyset.json"


def catalog() -> dict[str, Any]:
    """A right one."""
    return {
        "keyturn_state_host": "db",
        "keyturn_services": {"api": {"hosts": "api", "manager": "command", "start": ["a"], "stop": ["b"]}},
        "keyturn_secrets": {
            "K": {
                "kind": "keyset",
                "keyset": {},
                "window": {"token_lifetime": "15m", "reload": "1m"},
                "stores": [{"hosts": "api", "type": "file", "path": _PATH, "layout": "keyset"}],
                "consumers": ["api"],
                "probes": [{"type": "token", "url": "http://127.0.0.1/me", "name": "me"}],
            }
        },
    }


def _changed(path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(catalog())
    place: Any = made["keyturn_secrets"]["K"]
    *parents, last = path.split(".")
    for step in parents:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is ...:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return made


def _plan(variables: dict[str, Any], *names: str) -> dict[str, Any]:
    return build(load_catalog(variables, GROUPS), list(names or ["K"]), KINDS, {})


_ENV = {"hosts": "api", "type": "env_file", "path": "/srv/.env", "layout": "keyset"}
_COMMANDS = {"hosts": "api", "type": "keyset_command", "read": ["r"], "provision": ["p"], "promote": ["m"]}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("window", ..., ["'token_lifetime: 15m'"]),
        ("window.token_lifetime", ..., ["window", "'token_lifetime: 15m'"]),
        ("window.reload", ..., ["window", "'reload: 15m'"]),
        ("keyset.kid", "%Y/%m", ["kid"]),
        ("strategy", "replace", ["strategy", "overlap"]),
        ("stores.0.layout", "single", ["stores[0]", "no keyset"]),
        ("stores.0.path", ..., ["stores[0]", "'path'"]),
        ("stores.0", _ENV, ["active_variable"]),
        ("stores.0", _COMMANDS, ["'remove'"]),
        ("kind", "env_secret", ["keyset"]),
        ("probes", [], ["probes", "reload_proof: wait"]),
        ("probes.0.version", "new", ["probes[0]", "both keys"]),
        ("probes.0.url", ..., ["probes[0]", "'url'"]),
        ("probes.0.hosts", "db", ["probes[0]", "db"]),
        ("probes.0.hosts", "a1", ["probes", "a2"]),
        ("generate", {"type": "rsa"}, ["generate"]),
        ("derive", {"type": "jwt", "from": "K", "lifetime": "1y"}, ["derive"]),
    ],
)
def test_trap_46_what_is_missing_or_does_not_belong_is_one_clear_error(path: str, value: Any, words: list[str]) -> None:
    with pytest.raises(KeyturnError) as raised:
        load_catalog(_changed(path, value), GROUPS)
    text = str(raised.value)
    assert raised.value.code in ("catalog-invalid", "kid-invalid", "window-incomplete")
    assert all(word in text for word in words), text
    assert raised.value.hint


def test_probes_of_keysets_belong_to_keysets() -> None:
    made = catalog()
    store = {"hosts": "api", "type": "env_file", "path": "/srv/.env"}
    made["keyturn_secrets"]["T"] = {
        "kind": "env_secret",
        "stores": [store],
        "probes": [{"type": "active_kid", "url": "http://127.0.0.1/"}],
    }
    with pytest.raises(KeyturnError, match="active_kid is for keysets"):
        load_catalog(made, GROUPS)


def test_nothing_is_made_from_a_keyset() -> None:
    made = catalog()
    store = {"hosts": "api", "type": "env_file", "path": "/srv/.env"}
    derive = {"type": "jwt", "from": "K", "lifetime": "1y"}
    made["keyturn_secrets"]["T"] = {"kind": "env_secret", "strategy": "overlap", "stores": [store], "derive": derive}
    with pytest.raises(KeyturnError, match="K is a keyset"):
        load_catalog(made, GROUPS)


@pytest.mark.parametrize(
    ("fields", "least", "seconds"),
    [({}, None, 900 + 60 + 60), ({"skew": "5s"}, None, 965), ({}, "2h", 7200), ({}, "1m", 1020)],
)
def test_trap_18_how_long_both_keys_stay_is_computed(fields: dict[str, str], least: str | None, seconds: int) -> None:
    made = catalog()
    made["keyturn_secrets"]["K"]["window"].update(fields)
    if least:
        made["keyturn_secrets"]["K"]["overlap_min"] = least
    (summary,) = _plan(made)["secrets"]
    assert summary["retire_seconds"] == seconds
    assert summary["keyset"] == {"wait": 70, "proof": "probe", "readers": "reload"}


def test_one_probe_asks_with_both_keys_and_with_the_removed_one_at_the_end() -> None:
    made = catalog()
    made["keyturn_secrets"]["K"]["probes"] += [
        {"type": "active_kid", "url": "http://127.0.0.1/s"},
        {"type": "token", "url": "http://127.0.0.1/x", "expect": 204, "expect_body": "y"},
        {"type": "http", "url": "http://127.0.0.1/h"},
    ]
    work = _plan(made)["hosts"]["a1"]
    asked = {place: [(probe["type"], probe.get("version", "")) for probe in work[place]] for place in _PLACES}
    assert asked == {
        "probes": [("token", "new"), ("active_kid", "new"), ("token", "new"), ("http", "")],
        "overlap_probes": [("token", "old"), ("token", "old")],
        "late_probes": [("token", "old"), ("token", "old")],
    }
    assert all(probe["refused"] for probe in work["late_probes"])
    assert work["late_probes"][1]["accept"] == [204]
    assert not {"expect", "expect_body"} & set(work["late_probes"][1])
    assert all("late_probes" not in host for name, host in _plan(made)["hosts"].items() if name == "db")


_PLACES = ("probes", "overlap_probes", "late_probes")


def test_readers_reload_by_themselves_or_are_restarted() -> None:
    def reloads(variables: dict[str, Any], *names: str) -> list[bool]:
        return [service.get("reloads", False) for service in _plan(variables, *names)["hosts"]["a1"]["services"]]

    assert reloads(catalog()) == [True]
    assert reloads(_changed("keyset.readers", "restart")) == [False]
    assert reloads(_changed("stores.0", {**_ENV, "active_variable": "A"})) == [False]
    made = catalog()
    made["keyturn_secrets"]["T"] = {
        "kind": "env_secret",
        "strategy": "overlap",
        "stores": [{"hosts": "api", "type": "env_file", "path": "/srv/.env"}],
        "consumers": ["api"],
    }
    assert reloads(made, "K", "T") == [False]


def test_commands_have_a_name_in_place_of_a_path() -> None:
    plan = _plan(_changed("stores.0", {**_COMMANDS, "remove": ["x"], "read": ["kms", "read it"]}))
    (store,) = plan["hosts"]["a1"]["secrets"][0]["stores"]
    assert store["path"] == "command: kms 'read it'"


def test_hosts_that_may_reach_the_same_service_take_turns() -> None:
    shared = {**_COMMANDS, "remove": ["x"]}
    assert _plan(_changed("stores.0", shared))["at_once"] == 1
    apart = [{**shared, "hosts": "a1"}, {**shared, "hosts": "a2", "read": ["other"]}]
    assert _plan(_changed("stores", apart))["at_once"] == 0
    assert _plan(catalog())["at_once"] == 0


def _said(**marks: str) -> dict[str, Any]:
    return {host: {"keysets": {"K": {"fingerprint": mark}}, "problems": []} for host, mark in marks.items()}


def test_trap_24_hosts_hold_the_same_keyset_n_of_n() -> None:
    plan = _plan(catalog())
    assert gates.keysets(plan, _said(a1="f", a2="f")) == []
    assert len(gates.keysets(plan, _said(a1="f", a2="g"))) == 1
    (missing,) = gates.keysets(plan, _said(a1="f"))
    assert missing.startswith("a2: did not tell")
    broken = _said(a1="f", a2="f")
    broken["a2"]["problems"] = [{"msg": "is broken"}]
    assert gates.keysets(plan, broken) == ["a2: is broken"]


_MADE = "2026-11-21T12:30:15.000001+00:00"


def test_what_was_seen_goes_into_the_evidence_and_the_summary() -> None:
    keys = [{"kid": "k1", "state": "previous", "since": ""}, {"kid": "k2", "state": "primary", "since": _MADE}]
    seen = {"active_kid": "k2", "previous_active_kid": "k1", "source": "env_file", "keys": keys, "change": {}}
    probe = {"name": "n", "type": "token", "version": "old", "expected": "accepted", "result": "accepted"}
    kinds = [("a1", "verify", {"keysets": {"K": seen}, "probes": [probe]}), ("a1", "migrate", {"coverage": []})]
    (told,) = keysets.told(kinds)["keysets"]
    assert (told["active_kid"], told["previous_active_kid"], told["source_mode"]) == ("k2", "k1", "inline")
    assert [key["since"] for key in told["keys"]] == [None, "2026-11-21T12:30:15.000001Z"]
    check_record(small_record(**keysets.told(kinds), probes=keysets.probe_rows(kinds)))
    assert keysets.probe_rows(kinds) == [{**probe, "host": "a1"}]
    assert keysets.lines(kinds) == ["  keyset      K: kid k2 is active; k1 previous, k2 primary"]
    assert keysets.told([]) == {}
    plan = _plan(_changed("keyset.reload_proof", "wait"))
    assert "70 s were waited" in keysets.waited(plan)[0]
    assert keysets.waited(_plan(catalog())) == []
    assert keysets.no_gap(plan)
