# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing secrets, building a plan, waiving hosts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import plan, registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.unit.test_catalog import GROUPS, catalog

NOW = plan.parse_stamp("2026-06-01T00:00:00.000Z")
KINDS = {"encryption_key": {"role": "keyturn.rotation.encryption_key", "phases": ["migrate"]}}


def loaded(**secrets: dict[str, Any]) -> Catalog:
    variables = catalog()
    for name, changes in secrets.items():
        variables["keyturn_secrets"][name] = {**variables["keyturn_secrets"]["KEY"], **changes}
    return load_catalog(variables, GROUPS)


def turned(stamp: str, status: str = "overlap", is_open: bool = False) -> dict[str, Any]:
    content = registry.empty()
    content["secrets"]["KEY"] = {"open": "r1" if is_open else None, "current": "r1", "primary_since": stamp}
    content["rotations"]["r1"] = {"secrets": ["KEY"], "status": status}
    return content


@pytest.mark.parametrize(
    ("since", "answer"),
    [("2026-03-03T00:00:00.000Z", "due"), ("2026-03-04T00:00:00.001Z", "fresh"), (None, "due")],
)
def test_due_is_computed_from_the_cryptoperiod(since: str | None, answer: str) -> None:
    assert plan.due({"cryptoperiod": "90d"}, {"primary_since": since}, NOW) == answer
    assert plan.due({}, {"primary_since": since}, NOW) == "no period"


def test_trap_35_a_leap_day_is_a_day() -> None:
    start = plan.parse_stamp("2028-02-29T12:00:00.000Z")
    record = {"primary_since": "2028-02-29T12:00:00.000Z"}
    assert plan.due({"cryptoperiod": "365d"}, record, start + 365 * 86400 - 1) == "fresh"
    assert plan.due({"cryptoperiod": "365d"}, record, start + 365 * 86400) == "due"


def test_trap_36_nothing_turns_that_is_not_due() -> None:
    fresh = turned("2026-05-31T00:00:00.000Z")
    assert plan.choose(loaded(), fresh, [], "rotate", NOW) == []
    assert plan.choose(loaded(), fresh, ["KEY"], "rotate", NOW) == ["KEY"]
    assert plan.choose(loaded(), turned("2026-01-01T00:00:00.000Z"), [], "rotate", NOW) == ["KEY"]


def test_what_is_open_comes_first() -> None:
    content = turned("2026-05-31T00:00:00.000Z", "open", is_open=True)
    assert plan.choose(loaded(OTHER={}), content, [], "rotate", NOW) == ["KEY"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(KeyturnError, match="Did you mean 'KEY'"):
        plan.choose(loaded(), registry.empty(), ["KEYS"], "rotate", NOW)


def test_rollback_finds_what_has_turned() -> None:
    assert plan.choose(loaded(), turned("2026-05-31T00:00:00.000Z"), [], "rollback", NOW) == ["KEY"]
    assert plan.choose(loaded(), turned("2026-05-31T00:00:00.000Z", "retired"), [], "rollback", NOW) == []


def _one_of_a_group(status: str) -> dict[str, Any]:
    """KEY and OTHER turned together in r1; KEY is open in r2 now, and THIRD turned by itself."""
    content = registry.empty()
    content["secrets"] = {
        "KEY": {"open": "r2", "current": "r1"},
        "OTHER": {"open": None, "current": "r1"},
        "THIRD": {"open": None, "current": "r3"},
    }
    content["rotations"] = {
        "r1": {"secrets": ["KEY", "OTHER"], "status": "overlap", "waived": [{"host": "api2"}]},
        "r2": {"secrets": ["KEY"], "status": status},
        "r3": {"secrets": ["THIRD"], "status": "overlap"},
    }
    return content


@pytest.mark.parametrize("mode", ["rollback", "rotate"])
@pytest.mark.parametrize("status", ["open", "stuck", "rolling_back", "rollback_pending"])
def test_what_is_open_goes_on_and_back_without_those_with_which_it_turned_last(status: str, mode: str) -> None:
    content = _one_of_a_group(status)
    catalog = loaded(OTHER={}, THIRD={})
    assert plan.choose(catalog, content, ["KEY"], mode, NOW) == ["KEY"]
    assert registry.open_rotation(content, plan.choose(catalog, content, ["OTHER"], mode, NOW)) == "r2"


def test_a_retire_goes_on_without_those_with_which_it_turned_last() -> None:
    content = _one_of_a_group("retiring")
    catalog = loaded(OTHER={}, THIRD={})
    assert plan.choose(catalog, content, ["KEY"], "retire", NOW) == ["KEY"]
    assert plan.choose(catalog, content, [], "retire", NOW) == ["KEY"]


def test_without_a_name_what_is_open_goes_back_before_those_with_which_it_turned_last() -> None:
    content = _one_of_a_group("stuck")
    assert plan.choose(loaded(OTHER={}), content, [], "rollback", NOW) == ["KEY"]
    with pytest.raises(KeyturnError, match="could be meant: KEY, THIRD") as raised:
        plan.choose(loaded(OTHER={}, THIRD={}), content, [], "rollback", NOW)
    assert raised.value.code == "rotations-several"
    content["secrets"]["THIRD"]["open"] = "r3"
    content["rotations"]["r3"]["status"] = "open"
    with pytest.raises(KeyturnError, match="could be meant: KEY, THIRD"):
        plan.choose(loaded(OTHER={}, THIRD={}), content, [], "rollback", NOW)


def test_a_retire_that_was_killed_while_it_asked_keeps_nobody_from_restoring() -> None:
    content = turned("2026-05-31T00:00:00.000Z", is_open=True)
    content["rotations"]["r1"].update(holder={"run_id": "run2"}, lease_until=NOW + 100)
    with pytest.raises(KeyturnError, match="r1 of KEY is open") as raised:
        plan.choose(loaded(), content, ["KEY"], "restore", NOW)
    assert (raised.value.code, "retire asks" in raised.value.hint) == ("rotation-busy", True)
    assert plan.choose(loaded(), content, ["KEY"], "restore", NOW + 100) == ["KEY"]
    content["rotations"]["r1"]["status"] = "retiring"
    with pytest.raises(KeyturnError, match="r1 of KEY is open"):
        plan.choose(loaded(), content, ["KEY"], "restore", NOW + 100)


def _behind() -> dict[str, Any]:
    """KEY turned in r1 and OTHER in r2 without api2, which is back; THIRD is due."""
    content = registry.empty()
    since = "2026-05-31T00:00:00.000Z"
    for name, rotation, started in (("KEY", "r1", "2026-05-30"), ("OTHER", "r2", "2026-05-31")):
        content["secrets"][name] = {"open": None, "current": rotation, "primary_since": since}
        waived = [{"host": "api2"}]
        content["rotations"][rotation] = {
            "secrets": [name], "status": "overlap", "waived": waived, "started_at": started
        }  # fmt: skip
    return content


def test_trap_47_hosts_catch_up_with_one_rotation_after_the_other_and_nothing_new_begins_before() -> None:
    catalog, content = loaded(OTHER={}, THIRD={}), _behind()
    assert plan.choose(catalog, content, [], "rotate", NOW) == ["KEY"]
    assert plan.choose(catalog, content, [plan.ALL], "rotate", NOW) == ["KEY"]
    assert plan.choose(catalog, content, [], "rotate", NOW, ["api2"]) == ["THIRD"]
    for only in (["KEY", "OTHER"], ["KEY", "THIRD"]):
        with pytest.raises(KeyturnError, match="api2 first has to catch up with rotation r1 of KEY") as raised:
            plan.choose(catalog, content, only, "rotate", NOW)
        assert (raised.value.code, "keyturn_only=KEY," in str(raised.value.hint)) == ("rotations-several", True)
        assert plan.choose(catalog, content, only, "rotate", NOW, ["api2"]) == only
    del content["rotations"]["r1"]["waived"]
    assert plan.choose(catalog, content, [], "rotate", NOW) == ["OTHER"]
    del content["rotations"]["r2"]["waived"]
    assert plan.choose(catalog, content, [], "rotate", NOW) == ["THIRD"]


def test_a_plan_says_what_each_host_does() -> None:
    built = plan.build(loaded(), ["KEY"], KINDS, {})
    assert built["phases"] == ["preflight", "backup", "stage", "migrate", "promote", "restart", "verify"]
    assert [job["database"] for job in built["hosts"]["db"]["jobs"]] == ["app"]
    job = built["hosts"]["db"]["jobs"][0]
    assert (job["cut_over"], job["max_writer_wait"], job["quiesce"]) == ("auto", 1, "none")
    assert [service["name"] for service in built["hosts"]["api1"]["services"]] == ["api"]
    assert built["origins"] == {"KEY": "api1"}
    json.dumps(built)


_CALM = {"workers": 1, "lock_timeout_ms": 50}


@pytest.mark.parametrize(
    ("said", "pace"),
    [
        ({}, {"workers": 0, "batch_rows": 500, "lock_timeout_ms": 100, "rate": 0, "max_lag": 0}),
        ({"calm": True}, {**_CALM, "batch_rows": 200, "rate": 0, "max_lag": 0}),
        (
            {"workers": 3},
            {"workers": 3, "batch_rows": 500, "lock_timeout_ms": 100, "rate": 0, "max_lag": 0},
        ),
        (
            {"calm": True, "batch_rows": 50, "rate": 900, "max_lag": 16},
            {**_CALM, "batch_rows": 50, "rate": 900, "max_lag": 16 * 1024 * 1024},
        ),
    ],
    ids=["default", "calm", "workers", "calm-and-more"],
)
def test_a_database_says_how_it_is_to_be_treated(said: dict[str, Any], pace: dict[str, int]) -> None:
    variables = catalog()
    variables["keyturn_databases"]["app"].update(said)
    built = plan.build(load_catalog(variables, GROUPS), ["KEY"], KINDS, {})
    assert built["hosts"]["db"]["jobs"][0]["pace"] == pace


def _shared(waivers: dict[str, dict[str, str]] | None = None, **secret: Any) -> dict[str, Any]:
    variables = catalog()
    variables["keyturn_databases"]["app"]["hosts"] = ["db", "more", "api1"]
    variables["keyturn_secrets"]["KEY"].update(secret)
    groups = {**GROUPS, "all": [*GROUPS["all"], "more"]}
    return plan.build(load_catalog(variables, groups), ["KEY"], KINDS, waivers or {})


def test_one_host_leads_and_the_others_help() -> None:
    built = _shared()
    (job,) = built["hosts"]["db"]["jobs"]
    assert job["hosts"] == 3
    assert built["helpers"] == {"api1": [job], "more": [job]}
    assert sorted(built["hosts"]) == ["api1", "api2", "db"]
    assert built["hosts"]["api1"]["jobs"] == []
    assert built["digest"] != plan.build(loaded(), ["KEY"], KINDS, {})["digest"]


def test_a_host_that_helps_can_be_waived_and_has_nothing_to_catch_up() -> None:
    built = _shared(plan.waived([{"host": "more", "reason": "disk", "until": "2026-06-02"}], "2026-06-01"))
    assert (list(built["helpers"]), built["waived"]) == (["api1"], [])
    assert built["hosts"]["db"]["jobs"][0]["hosts"] == 2


@pytest.mark.parametrize("sanitize", [False, True])
def test_a_secret_says_whether_its_tables_are_made_anew(sanitize: bool) -> None:
    built = plan.build(loaded(KEY={"sanitize": sanitize}), ["KEY"], KINDS, {})
    assert built["hosts"]["db"]["jobs"][0]["sanitize"] is sanitize


def test_the_digest_changes_with_the_plan_only() -> None:
    one = plan.build(loaded(), ["KEY"], KINDS, {})["digest"]
    assert plan.build(loaded(), ["KEY"], KINDS, {})["digest"] == one
    other = loaded(KEY={"stores": [{"hosts": "api1", "type": "env_file", "path": "/srv/.env"}]})
    assert plan.build(other, ["KEY"], KINDS, {})["digest"] != one


def test_trap_47_a_waived_host_is_left_out_by_name_and_until_a_day() -> None:
    waivers = plan.waived([{"host": "api2", "reason": "disk", "until": "2026-06-02"}], "2026-06-01")
    built = plan.build(loaded(), ["KEY"], KINDS, waivers)
    assert sorted(built["hosts"]) == ["api1", "db"]
    assert built["waived"] == [{"host": "api2", "reason": "disk", "until": "2026-06-02"}]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"host": "api2", "reason": "disk", "until": "2026-05-31"}, "waiver-ended"),
        ({"host": "api2", "reason": "", "until": "2026-07-01"}, "waiver-invalid"),
        ({"host": "api2", "reason": "disk", "until": "soon"}, "waiver-invalid"),
    ],
)
def test_a_waiver_without_reason_or_end_is_refused(entry: dict[str, str], code: str) -> None:
    with pytest.raises(KeyturnError) as raised:
        plan.waived([entry], "2026-06-01")
    assert raised.value.code == code


def test_the_database_host_cannot_be_waived() -> None:
    waivers = plan.waived([{"host": "db", "reason": "disk", "until": "2026-07-01"}], "2026-06-01")
    with pytest.raises(KeyturnError, match="talks to a database"):
        plan.build(loaded(), ["KEY"], KINDS, waivers)


def test_strategies_are_not_mixed() -> None:
    with pytest.raises(KeyturnError, match="runs of their own"):
        plan.build(loaded(OTHER={"strategy": "overlap"}), ["KEY", "OTHER"], KINDS, {})


# -- which services ---------------------------------------------------------------------------------------------------


def _with_services() -> Catalog:
    """``api`` reads KEY and TOKEN, ``worker`` reads TOKEN, ``lonely`` reads nothing."""
    variables = catalog()
    api = variables["keyturn_services"]["api"]
    more = {"worker": {**api, "depends_on": ["api"], "restart_wait": 90}, "lonely": api}
    variables["keyturn_services"].update(more)
    token = {"kind": "env_secret", "stores": variables["keyturn_secrets"]["KEY"]["stores"]}
    variables["keyturn_secrets"]["TOKEN"] = {**token, "consumers": ["worker", "api"]}
    variables["keyturn_secrets"]["UNREAD"] = token
    return load_catalog(variables, GROUPS)


def _rotations(**started: tuple[str, list[str]]) -> dict[str, Any]:
    content = registry.empty()
    for rotation_id, (stamp, names) in started.items():
        content["rotations"][rotation_id] = {"started_at": stamp, "secrets": names, "status": "overlap"}
    return content


@pytest.mark.parametrize(
    ("only", "wanted", "services"),
    [
        ([], ["all"], ["api", "lonely", "worker"]),
        ([], ["worker", "api", "worker"], ["api", "worker"]),
        (["KEY"], [], ["api"]),
        (["KEY", "TOKEN"], [], ["api", "worker"]),
        (["KEY"], ["lonely"], ["lonely"]),
    ],
)
def test_services_are_meant_by_name_or_by_the_secrets_that_they_read(
    only: list[str], wanted: list[str], services: list[str]
) -> None:
    latest = _rotations(r1=("2026-05-01T00:00:00.000Z", ["TOKEN"]))
    assert plan.choose_services(_with_services(), latest, only, wanted) == services


def test_without_a_name_the_services_of_the_last_rotation_are_meant() -> None:
    """Also where that one was rolled back: its services were restarted, and what they have is asked for."""
    register = _rotations(
        r1=("2026-05-02T00:00:00.000Z", ["KEY"]),
        r2=("2026-05-01T00:00:00.000Z", ["TOKEN"]),
        r3=("2026-04-01T00:00:00.000Z", ["UNREAD"]),
    )
    assert plan.choose_services(_with_services(), register, [], []) == ["api"]
    register["rotations"]["r2"]["started_at"] = "2026-05-03T00:00:00.000Z"
    register["rotations"]["r2"]["status"] = "rolled_back"
    assert plan.choose_services(_with_services(), register, [], []) == ["api", "worker"]
    register["rotations"]["r2"]["secrets"] = ["TOKEN", "no-longer-in-the-catalog"]
    assert plan.choose_services(_with_services(), register, [], []) == ["api", "worker"]


@pytest.mark.parametrize(
    ("register", "only", "wanted", "code", "words"),
    [
        (None, [], ["wroker"], "service-unknown", "worker"),
        (None, ["TOKNE"], [], "secret-unknown", "TOKEN"),
        (None, ["UNREAD"], [], "services-none", "no service reads UNREAD"),
        (None, [], [], "services-none", "nothing has been turned yet"),
        (registry.empty(), [], [], "services-none", "nothing has been turned yet"),
        (_rotations(r1=("2026-05-01", ["UNREAD"])), [], [], "services-none", "no service reads UNREAD"),
        (None, [], ["all", "api"], "service-unknown", "'all'"),
    ],
)
def test_services_that_are_none_are_refused(
    register: dict[str, Any] | None, only: list[str], wanted: list[str], code: str, words: str
) -> None:
    with pytest.raises(KeyturnError) as caught:
        plan.choose_services(_with_services(), register, only, wanted)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_service_keeps_its_own_time_in_the_plan() -> None:
    planned = plan.service_plan(_with_services(), ["worker", "api"])
    assert (planned["waves"], planned["services"]) == ([["api"], ["worker"]], ["api", "worker"])
    (api, worker) = planned["hosts"]["api1"]
    assert ([api["name"], worker["name"]], worker["restart_wait"], "restart_wait" in api) == (
        ["api", "worker"],
        90,
        False,
    )


def test_what_goes_back_only_together_is_a_value_with_its_parent_and_keys_of_one_table() -> None:
    def job(secret: str, table: str, clear: str = "") -> dict[str, Any]:
        entries = [{"table": clear}] if clear else []
        return {"secret": secret, "database": "app", "columns": [{"table": table}], "clear": entries}

    secrets = [{"name": name} for name in ("A", "B", "C", "D", "PARENT")]
    child = {"name": "CHILD", "derive": {"from": "PARENT"}}
    alone = {"name": "ALONE", "derive": {"from": "ELSEWHERE"}}
    jobs = [job("A", "t"), job("B", "u", "t"), job("C", "t"), job("D", "other")]
    built = {"secrets": [*secrets, child, alone], "hosts": {"db": {"jobs": jobs}, "api": {"jobs": []}}}
    assert plan.tied(built) == [["A", "B"], ["B", "C"], ["PARENT", "CHILD"]]
