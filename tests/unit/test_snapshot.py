# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files with the health of services: those of another program are read as they are, and nothing unknown passes."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import health_report, snapshot
from ansible_collections.keyturn.rotation.plugins.module_utils.compose import state_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

_VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "vectors/002_health_state.json").read_text(encoding="utf-8")
)
_NOW = datetime(2026, 11, 21, 0, 49, 8, 849493)
#: What each word of the other program means here, by case; what is not named is healthy.
_STATUS = {
    "no_healthcheck_gives_empty_text": {"amber": "unknown"},
    "health_member_absent": {"amber": "unknown"},
    "one_starting": {"amber": "starting"},
    "one_unhealthy": {"amber": "unhealthy"},
    "one_exited": {"amber": "unhealthy"},
    "one_restarting": {"amber": "unhealthy"},
    "one_not_running": {"amber": "unhealthy"},
    "compose_fails_for_one": {"amber": "unhealthy"},
    "two_replicas_as_json_lines": {"amber": "unknown"},
    "not_json": {"amber": "unknown"},
}
#: Here these are worse too, where the other program is silent: not well yet, and (unless running is enough) not known.
_WORSE_HERE = {"healthy_before_then_one_starting"}
_WORSE_WITHOUT_A_CHECK = {
    "healthy_before_then_no_healthcheck_gives_empty_text",
    "healthy_before_then_health_member_absent",
}


def _cases(part: str) -> Any:
    return pytest.mark.parametrize("case", _VECTORS[part], ids=lambda case: case.get("name", case.get("why")))


def _loaded(content: Any) -> dict[str, dict[str, Any]]:
    return snapshot.load(json.dumps(content), "before.json")


# -- files of another program -----------------------------------------------------------------------------------------


@_cases("cases")
def test_a_file_of_the_older_program_is_read_as_it_meant_it(case: dict[str, Any]) -> None:
    if case["state_file"] is None:
        with pytest.raises(KeyturnError):
            _loaded(None)
        return
    entries = _loaded(case["state_file"])
    assert sorted(entries) == sorted(case["compose_ps_output"])
    found = {name: snapshot.outcome_of(entry).status for name, entry in entries.items()}
    assert found == {**dict.fromkeys(entries, "healthy"), **_STATUS.get(case["name"], {})}
    # Without a check it was content with running
    content = [snapshot.outcome_of(entry, running_is_enough=True).status for entry in entries.values()]
    assert (set(content) == {"healthy"}) is (case["original_exit_code"] == 0)


@_cases("cases")
def test_what_is_written_is_what_the_older_program_would_have_written(case: dict[str, Any]) -> None:
    for name, text in case["compose_ps_output"].items():
        try:
            part = json.loads(text or "{}")
        except ValueError:
            continue  # there the program failed
        if not isinstance(part, dict) or (part and "Health" not in part):
            continue  # a list was its crash; a member that is absent is its word for an empty one
        parts = [{"name": part["Name"], "state": part["State"], "health": part["Health"]}] if part else []
        status = state_of(parts[0]["state"], parts[0]["health"]).status if parts else "unknown"
        written = snapshot.snapshot({name: {"one": {"status": status, "containers": parts}}}, _NOW)
        entry = written["services"][name]
        assert entry.pop("hosts")["one"] == entry == case["state_file"]["services"][name]
        assert written["timestamp"] == "2026-11-21T00:49:08.849493"


@_cases("compare_cases")
def test_what_is_worse_than_in_a_file_of_the_older_program(case: dict[str, Any]) -> None:
    before, after = (_loaded(case[when]) for when in ("before", "after"))
    worse = snapshot.compare(before, after, running_is_enough=before)
    assert bool(worse) is (case["original_warns_degraded"] or case["name"] in _WORSE_HERE)
    strictly = snapshot.compare(before, after)
    assert bool(strictly) is (bool(worse) or case["name"] in _WORSE_WITHOUT_A_CHECK)
    vanished = case["name"] == "service_vanished"
    assert {(entry["name"], entry["before"]) for entry in strictly} <= {("delta" if vanished else "amber", "healthy")}


def test_every_case_of_the_vectors_is_judged() -> None:
    assert [len(_VECTORS[part]) for part in ("cases", "compare_cases", "negative_cases")] == [12, 10, 4]
    named = {case["name"] for part in ("cases", "compare_cases") for case in _VECTORS[part]}
    assert {*_STATUS, *_WORSE_HERE, *_WORSE_WITHOUT_A_CHECK} <= named


@_cases("negative_cases")
def test_trap_16_what_is_no_state_is_refused_and_an_error_is_never_healthy(case: dict[str, Any]) -> None:
    if "error entry" not in case["why"]:
        with pytest.raises(KeyturnError) as caught:
            snapshot.load(case["value"], "before.json")
        assert (caught.value.code, caught.value.where) == ("snapshot-invalid", "before.json")
        return
    (entry,) = snapshot.load(case["value"], "before.json").values()
    assert snapshot.outcome_of(entry, running_is_enough=True).status == "unknown"
    better = {"status": "running", "health": "healthy", "state": "running"}
    assert snapshot.outcome_of({**better, "error": "x"}, running_is_enough=True).status == "unknown"


@pytest.mark.parametrize(
    "content",
    [
        {"services": {}},
        *({"services": {"a": entry}} for entry in (1, {"hosts": [1]}, {"hosts": {"one": "x"}})),
        [],
        None,
    ],
)
def test_what_holds_no_service_or_no_entry_is_refused(content: Any) -> None:
    with pytest.raises(KeyturnError) as caught:
        _loaded(content)
    assert caught.value.code == "snapshot-invalid"


# -- before and now ---------------------------------------------------------------------------------------------------


def _seen(**services: dict[str, str]) -> dict[str, dict[str, dict[str, Any]]]:
    """By service and host, as the hosts say it."""
    return {
        name: {host: {"status": status, "detail": "d"} for host, status in hosts.items()}
        for name, hosts in services.items()
    }


def _contrast(
    before: dict[str, Any], now: dict[str, Any], whole: bool = True
) -> tuple[snapshot.Comparison, list[str], str]:
    entries = snapshot.snapshot(before, _NOW)["services"]
    compared = snapshot.contrast(entries, snapshot.snapshot(now, _NOW)["services"], whole=whole)
    text = "\n".join(health_report.report(now, compared, [], False))
    return compared, health_report.problems(now, compared, only_worse=True), text


def test_what_was_as_bad_before_is_shown_and_is_no_problem() -> None:
    sick = _seen(api={"one": "unhealthy"}, db={"one": "healthy"})
    _compared, problems, text = _contrast(sick, sick)
    assert problems == []
    assert "api on one: unhealthy (d), as before" in text
    assert "nothing is worse than before" in text
    _compared, problems, text = _contrast(sick, _seen(api={"one": "starting"}, db={"one": "healthy"}))
    assert (problems, "api on one: starting (d), unhealthy before" in text) == ([], True)


def test_what_got_worse_is_a_problem_host_by_host() -> None:
    before = _seen(api={"one": "healthy", "two": "unhealthy"})
    compared, problems, text = _contrast(before, _seen(api={"one": "unknown", "two": "unhealthy"}))
    assert [(entry["name"], entry["host"]) for entry in compared.worse] == [("api", "one")]
    assert problems == ["api was healthy and is unknown"]
    assert "api on one: healthy before, unknown now (d)" in text
    assert "api on two: unhealthy (d), as before" in text


def test_a_service_that_is_not_there_any_more_is_worse_where_it_was_well() -> None:
    before = _seen(api={"one": "healthy"}, gone={"one": "healthy"}, sick={"one": "unhealthy"})
    now = _seen(api={"one": "healthy"})
    compared, problems, text = _contrast(before, now)
    assert problems == ["gone was healthy and is unknown"]
    assert "gone on one" not in text
    assert "gone: healthy before, unknown now (it is not there any more)" in text
    assert compared.gone == ["sick"]
    assert "not in the catalog any more, and not well before: sick" in text


def test_where_a_part_was_looked_at_the_rest_is_named_only() -> None:
    before = _seen(api={"one": "healthy"}, other={"one": "healthy"})
    compared, problems, text = _contrast(before, _seen(api={"one": "healthy"}), whole=False)
    assert (problems, compared.gone, compared.left_out) == ([], [], ["other"])
    assert "not looked at this time: other" in text


def test_what_nothing_is_known_of_is_named_and_must_be_well() -> None:
    before = _seen(api={"one": "healthy"})
    now = _seen(api={"one": "healthy", "two": "unhealthy"}, new={"one": "healthy"}, sick={"one": "starting"})
    _compared, problems, text = _contrast(before, now)
    assert problems == [
        "api on two is unhealthy (d), not compared: nobody knows how it was",
        "sick on one is starting (d), not compared: nobody knows how it was",
    ]
    assert "not compared, nothing is known of before: api on two, new on one, sick on one" in text


def test_a_file_that_knows_no_hosts_says_it_for_all_of_them() -> None:
    entry = {"status": "running", "health": "unhealthy", "state": "running"}
    now = _seen(api={"one": "healthy", "two": "unhealthy"})
    after = snapshot.snapshot(now, _NOW)["services"]
    compared = snapshot.contrast({"api": entry}, after, whole=True)
    assert health_report.problems(now, compared, only_worse=True) == []
    assert compared.statuses["api", "two"] == ("unhealthy", "unhealthy")
    compared = snapshot.contrast({"api": {**entry, "health": "healthy"}}, after, whole=True)
    assert health_report.problems(now, compared, only_worse=True) == ["api was healthy and is unhealthy"]


@pytest.mark.parametrize(("health", "enough"), [("healthy", False), ("", True)])
def test_trap_16_a_container_that_is_well_does_not_hide_a_check_that_cannot_be_made(health: str, enough: bool) -> None:
    def seen(status: str) -> dict[str, Any]:
        part = {"name": "api-1", "state": "running", "health": health}
        return {"api": {"one": {"status": status, "detail": "d", "containers": [part]}}}

    well, not_seen = (
        snapshot.snapshot(seen(status), _NOW, {"api"} if enough else ()) for status in ("healthy", "unknown")
    )
    (entry,) = snapshot.compare(well["services"], not_seen["services"], {"api"} if enough else ())
    assert (entry["before"], entry["after"]) == ("healthy", "unknown")
