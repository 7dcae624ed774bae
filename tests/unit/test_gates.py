# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates: nobody goes on unless all may."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import gates

PLAN: dict[str, Any] = {
    "origins": {"KEY": "api1"},
    "hosts": {
        "api1": {"secrets": [{"name": "KEY"}], "jobs": []},
        "api2": {"secrets": [{"name": "KEY"}], "jobs": []},
        "db": {"secrets": [], "jobs": [{"secret": "KEY", "database": "app"}]},
    },
}
WELL = {"missing": [], "disk_free": 1 << 30, "clock": 1000.0}


def answers(**changes: Any) -> dict[str, Any]:
    sessions = {host: dict(WELL) for host in PLAN["hosts"]}
    for host, change in changes.items():
        if change is None:
            del sessions[host]
        else:
            sessions[host].update(change)
    return {"session": sessions, "found": {}, "baseline": {}}


def test_all_is_well() -> None:
    assert gates.preflight(PLAN, answers(), True) == []


def test_trap_24_a_host_that_cannot_be_reached_is_named() -> None:
    (problem,) = gates.preflight(PLAN, answers(api2=None), True)
    assert "api2" in problem
    assert "keyturn_waive" in problem
    (problem,) = gates.preflight(PLAN, answers(db=None), True)
    assert problem == "db: cannot be reached. Bring it back: nothing goes on without it."


def test_a_host_without_docker_compose_is_named() -> None:
    (problem,) = gates.preflight(PLAN, answers(db={"compose": False}), True)
    assert problem == "db: docker compose is missing. Install Docker Compose v2."
    assert gates.preflight(PLAN, answers(db={"compose": True}), True) == []


def test_missing_libraries_are_named_with_their_packages() -> None:
    missing = [{"library": "psycopg", "package": "python3-psycopg"}]
    (problem,) = gates.preflight(PLAN, answers(db={"missing": missing}), True)
    assert problem == "db: the Python libraries psycopg are missing. Install python3-psycopg."


def test_a_clock_that_is_off_and_a_full_disk_are_named() -> None:
    problems = gates.preflight(PLAN, answers(api1={"clock": 1100.0}, db={"disk_free": 1}), True)
    assert [problem.split(":")[0] for problem in problems] == ["db", "api1"]


@pytest.mark.parametrize(
    ("clock", "asked", "named"),
    [
        (1200.0, [1199.0, 1201.0], []),
        (1200.0, [1000.0, 1200.0], []),
        (1200.0, [1120.0, 1130.0], ["db"]),
        (1200.0, [1261.5, 1263.0], ["db"]),
    ],
    ids=["asked later", "slow to answer", "ahead", "behind"],
)
def test_hosts_that_are_not_asked_at_the_same_time_have_no_wrong_clock(
    clock: float, asked: list[float], named: list[str]
) -> None:
    others = {host: {"clock": 1000.0, "asked": [999.0, 1001.0]} for host in ("api1", "api2")}
    said = answers(**others, db={"clock": clock, "asked": asked})
    assert [problem.split(":")[0] for problem in gates.preflight(PLAN, said, True)] == named
    assert gates.preflight(PLAN, said, True, check_clocks=False) == []


def test_a_state_folder_that_others_may_write_to_stops_a_new_rotation() -> None:
    loose = answers(db={"loose": "/srv/state"})
    (problem,) = gates.preflight(PLAN, loose, True)
    assert problem == "db: others may write to /srv/state, where the state lies. Set its mode to 0700."
    assert gates.preflight(PLAN, loose, False) == []


def test_what_two_stores_of_one_file_have_in_common_is_said_once_with_its_host() -> None:
    said = answers()
    gone = {"code": "env-file-missing", "where": "/srv/.env", "msg": "/srv/.env: does not exist."}
    said["found"] = {"api1": {"problems": [gone, dict(gone)]}, "api2": {"problems": [gone]}}
    assert gates.preflight(PLAN, said, True) == [f"{host}: /srv/.env: does not exist." for host in ("api1", "api2")]


def test_hosts_that_hold_different_values_are_told_apart_and_one_host_is_named_by_itself() -> None:
    def holds(*stores: tuple[str, str]) -> dict[str, Any]:
        entries = [{"present": True, "path": path, "fingerprint": mark} for path, mark in stores]
        return {"secrets": {"KEY": {"stores": entries}}}

    said = answers()
    said["found"] = {"api1": {**holds(("/a", "1"), ("/b", "2")), "problems": [{"msg": "the stores of KEY differ."}]}}
    assert gates.preflight(PLAN, said, True) == ["api1: the stores of KEY differ."]
    said["found"] = {"api1": holds(("/a", "1"), ("/b", "1")), "api2": holds(("/a", "2"))}
    assert "(api1 against api2)" in gates.preflight(PLAN, said, True)[0]
    said["found"] = {"api1": holds(("/a", "1"), ("/b", "2")), "api2": holds(("/a", "2"))}
    assert "(api1 in /a against api1 in /b, api2)" in gates.preflight(PLAN, said, True)[0]
    assert "(api1 in /a against api1 in /b)" in gates.same_in_backups({"api1": said["found"]["api1"]})[0]


def test_a_sick_service_stops_a_new_rotation_but_not_one_that_goes_on() -> None:
    said = answers()
    said["baseline"] = {"api1": {"services": {"api": {"status": "unknown", "detail": "no check"}}}}
    (problem,) = gates.preflight(PLAN, said, True)
    assert "api is unknown" in problem
    assert "leave api1 out with keyturn_waive" in problem
    assert gates.preflight(PLAN, said, False) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"api2": {"secrets": [], "jobs": []}},
        {"api1": {"secrets": [{"name": "KEY"}], "jobs": [{"secret": "KEY", "database": "app"}]}},
        {"api1": {"secrets": [], "jobs": []}},
        {"api1": {"secrets": [{"name": "KEY"}], "jobs": [], "signing": [{"secret": "KEY"}]}},
    ],
    ids=["nobody else has it", "reaches the rows", "has no store", "reaches the issuer"],
)
def test_a_host_that_a_rotation_cannot_do_without_is_not_said_to_be_one_to_leave_out(changes: dict[str, Any]) -> None:
    plan = {**PLAN, "hosts": {**PLAN["hosts"], **changes}}
    said = answers()
    said["baseline"] = {"api1": {"services": {"api": {"status": "unhealthy", "detail": "HTTP 503"}}}}
    assert gates.preflight(plan, said, True) == ["api1: api is unhealthy (HTTP 503). Mend it before a key turns."]


def secret(state: str = "staged", fingerprint: str = "aa") -> dict[str, Any]:
    return {"secrets": {"KEY": {"state": state, "fingerprints": {"new": fingerprint}}}}


def test_n_of_n_hosts_hold_the_same_version() -> None:
    assert gates.agreement(PLAN, {"api1": secret(), "api2": secret()}, ("staged",)) == []
    assert "different" in gates.agreement(PLAN, {"api1": secret(), "api2": secret("staged", "bb")}, ("staged",))[0]
    assert "api2: did not answer" in gates.agreement(PLAN, {"api1": secret()}, ("staged",))[0]
    assert (
        "api2: KEY is staged" in gates.agreement(PLAN, {"api1": secret("promoted"), "api2": secret()}, ("promoted",))[0]
    )


def found(mark: str, *, staged: bool) -> dict[str, Any]:
    versions = {"r1": {"fingerprints": {"new": "n", "old": "o"}}} if staged else {}
    return {"secrets": {"KEY": {"stores": [{"present": True, "fingerprint": mark}], "versions": versions}}}


@pytest.mark.parametrize(
    ("mark", "staged", "back", "retire"),
    [("n", True, False, False), ("n", False, True, True), ("o", False, False, True), ("x", False, False, True)],
    ids=["turned", "new", "old", "another"],
)
def test_a_host_that_joined_after_the_turn_is_named(mark: str, staged: bool, back: bool, retire: bool) -> None:
    plan = {**PLAN, "secrets": [{"name": "KEY"}]}
    said = {"api1": found("n", staged=True), "api2": found(mark, staged=staged), "db": found("n", staged=False)}
    later = gates.joined_later(plan, said, "r1", retiring=False)
    assert list(later) == (["api2"] if back else [])
    assert all("secrets/KEY/r1/old in the state folder of api1" in text for text in later.values())
    assert list(gates.joined_later(plan, said, "r1", retiring=True)) == (["api2"] if retire else [])
    assert gates.joined_later(plan, said, "r2", retiring=True) == {}


def test_a_retire_that_goes_on_knows_what_hosts_have_forgotten() -> None:
    def kept(state: str) -> dict[str, Any]:
        return {"secrets": {"KEY": {"versions": {"r1": {"state": state}}}}}

    nothing: dict[str, Any] = {"secrets": {"KEY": {"versions": {}}}}
    all_keep = {"api1": kept("promoted"), "api2": kept("promoted")}
    given = {"db": {"KEY": {"new": "sealed"}}}
    here = {host: {"here": [], "data": []} for host in ("api1", "api2")}
    assert gates.forgotten(PLAN, all_keep, given, "r1") == {**here, "db": {"here": [], "data": []}}
    one_forgot = {"api1": kept("promoted"), "api2": kept("retired")}
    said = gates.forgotten(PLAN, one_forgot, given, "r1")
    assert (said["api1"]["here"], said["api2"]["here"], said["db"]["data"]) == ([], ["KEY"], [])
    all_forgot = {"api1": kept("retired"), "api2": kept("retired")}
    said = gates.forgotten(PLAN, all_forgot, {}, "r1")
    assert (said["api1"]["here"], said["db"]) == (["KEY"], {"here": [], "data": ["KEY"]})
    lost = gates.forgotten(PLAN, {"api1": nothing, "api2": nothing}, {}, "r1")  # not forgotten: its data is asked for
    assert (lost["api1"]["here"], lost["db"]["data"]) == (["KEY"], [])


def test_no_data_goes_back_in_part_where_a_database_does_not_answer() -> None:
    silent = {"failed": True, "code": "dsn-failed", "msg": "database app: does not answer."}
    refused = {"failed": True, "code": "not-cut-over", "msg": "there is nothing to bring back."}
    well = {"job": {"database": "app"}, "changed": True}
    assert gates.unanswered(PLAN, {"db": [well, refused], "api1": []}) == []
    first, last = gates.unanswered(PLAN, {"db": [well, silent]})
    assert first == "db: database app: does not answer."
    assert "services go on with the new version" in last
    assert gates.unanswered(PLAN, {"api1": [well]})[0] == "db: cannot be reached, and data is brought back there."


def test_no_store_goes_back_where_the_data_is_not_known_to_be_back() -> None:
    done = {"db": [{"job": {"database": "app"}}]}
    assert gates.swapped_back(PLAN, done) == []
    assert gates.swapped_back(PLAN, {}) == ["db: the data in app was not brought back."]
    assert gates.swapped_back(PLAN, {"db": [{"job": {"database": "app"}, "failed": True}]})


def test_a_connection_whose_password_turns_in_the_same_rotation_is_refused() -> None:
    turning = {"secret": "APP_PASSWORD", "type": "postgres", "role": "app", "database": "admin"}
    cache = {"secret": "CACHE_PASSWORD", "type": "redis", "address": "127.0.0.1:6379"}
    beside = {"hosts": {"db": {"servers": [turning, cache]}, "api": {}}}
    counted = {"job": {"secret": "KEY", "database": "app"}, "server": {"role": "app"}}
    (problem,) = gates.locked_out(beside, [("db", "preflight", counted), ("db", "preflight", counted)])
    assert problem.startswith("db: the connection of app, which KEY needs, logs in as app, whose password APP_PASSWORD")
    assert problem.endswith("Turn APP_PASSWORD in a run of its own.")
    owner = {**counted, "server": {"role": "owner"}}
    assert gates.locked_out(beside, [("db", "preflight", owner), ("db", "verify", counted)]) == []
    assert gates.locked_out(PLAN, [("db", "preflight", counted)]) == []


def test_a_backup_whose_key_does_not_open_the_data_is_refused() -> None:
    row = {"table": "t", "column": "c", "total": 5, "old": 3, "null": 1, "plaintext": 0}
    (problem,) = gates.readable([("db", "preflight", {"coverage": [row]})])
    assert "1 rows of t.c" in problem
    assert gates.readable([("db", "preflight", {"coverage": [{**row, "old": 4}]})]) == []
