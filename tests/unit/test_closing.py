# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a retired version is closed: never while a backup, or a copy elsewhere, may still hold it (trap 49)."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import closing, registry
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

_STARTED, _TURNED, _RETIRED = (f"2026-11-21T{hour}:00:00.000Z" for hour in ("10", "11", "18"))
_ENV = "/srv/app/.env"
HOSTS: dict[str, Any] = {
    host: {"secrets": [{"name": "KEY", "stores": [{"path": _ENV}]}]} if host != "state" else {"secrets": []}
    for host in ("one", "two", "state")
}


def _register(status: str = "retired", **rotation: Any) -> dict[str, Any]:
    content = registry.empty()
    content["secrets"]["KEY"] = {"open": None, "current": "r1", "primary_since": _TURNED}
    content["rotations"]["r1"] = {
        "secrets": ["KEY"],
        "status": status,
        "started_at": _STARTED,
        "turned_at": _TURNED,
        "ended_at": _RETIRED,
        **rotation,
    }
    return content


def _backup(hour: str, **more: Any) -> dict[str, Any]:
    time = f"2026-11-21T{hour}+00:00"
    known = {"complete": True, "foreign": False, "reason": "", "rotation_id": "", "files": [_ENV]}
    return {"name": hour, "time": time, **known, **more}


def _named(
    content: dict[str, Any], hosts: dict[str, Any], answers: dict[str, list[dict[str, Any]]]
) -> list[str] | None:
    found = closing.held_by(content, "r1", _RETIRED, hosts, answers)
    return None if found is None else [f"{host}: {backup['name']}" for host, backup in found]


def _held(*backups: dict[str, Any], hosts: dict[str, Any] | None = None, **rotation: Any) -> list[str] | None:
    answers = {"one": list(backups), "two": []}
    return _named(_register(**rotation), hosts or HOSTS, answers)


def test_a_backup_from_before_the_change_holds_the_version() -> None:
    assert _held() == []
    assert _held(_backup("10:00:30")) == ["one: 10:00:30"]
    assert _held(_backup("12:00:00")) == []


def test_clocks_may_differ_as_much_as_a_rotation_allows() -> None:
    assert _held(_backup("11:00:59")) == ["one: 11:00:59"]
    assert _held(_backup("11:01:01")) == []
    assert _held(_backup("13:00:00", rotation_id="r1")) == ["one: 13:00:00"], "its own backup, whatever a clock says"


def test_what_an_earlier_rotation_kept_was_kept_before_whatever_the_clock_said_then() -> None:
    """Another secret of the same file turned while the clock was a year ahead; it was set right since."""
    content = _register(runs=[{"epoch": 4}, {"epoch": 6}])
    ahead = {"started_at": "2027-11-21T10:00:00.000Z", "runs": [{"epoch": 3}], "secrets": ["OTHER"]}
    content["rotations"]["r0"] = {"status": "retired", **ahead}
    content["rotations"]["r2"] = {"status": "retired", **ahead, "runs": [{"epoch": 5}]}
    backups = [
        {**_backup("12:00:00", rotation_id=found), "name": found, "time": "2027-11-21T10:00:00+00:00"}
        for found in ("r0", "r2")
    ]
    answers = {"one": backups, "two": []}
    assert _named(content, HOSTS, answers) == ["one: r0"]
    escrow = {"hosts": ["box"], "secrets": ["KEY"]}
    assert closing.held_in_escrow(content, "r1", escrow, {"box": {"KEY": ["r0", "r1", "r2"]}}) == ["box: KEY/r0"]


def test_what_cannot_be_told_is_taken_to_hold_it() -> None:
    for more in ({"complete": False}, {"foreign": True}, {"reason": "before restoring x"}):
        assert _held(_backup("17:00:00", **more)) == ["one: 17:00:00"]
    assert _held(_backup("10:00:30", files=["/srv/other"])) == []


def test_a_store_of_several_versions_has_it_until_it_is_retired() -> None:
    stores = [{"path": _ENV, "layout": "pair"}]
    hosts = {**HOSTS, "one": {"secrets": [{"name": "KEY", "stores": stores}]}}
    assert _held(_backup("17:00:00"), hosts=hosts) == ["one: 17:00:00"]
    assert _held(_backup("19:00:00"), hosts=hosts) == []


def test_a_host_that_did_not_answer_or_a_secret_that_is_not_planned_leaves_it_open() -> None:
    assert closing.held_by(_register(), "r1", _RETIRED, HOSTS, {"one": []}) is None
    assert closing.held_by(_register(), "r1", _RETIRED, {"one": {"secrets": []}}, {"one": []}) is None


def test_what_is_retired_by_the_one_after_it_counts_from_there() -> None:
    content = _register("superseded")
    content["secrets"]["KEY"]["current"] = "r2"
    content["rotations"]["r2"] = {"secrets": ["KEY"], "status": "overlap", "ended_at": _RETIRED}
    assert closing.over(content) == {}
    content["rotations"]["r2"].update(status="retired", ended_at="2026-11-22T18:00:00.000Z")
    assert closing.over(content) == {"r1": "2026-11-22T18:00:00.000Z", "r2": "2026-11-22T18:00:00.000Z"}
    assert closing.over(_register("overlap")) == {}


def test_what_left_a_rotation_counts_until_it_is_retired_with_the_one_after_it() -> None:
    content = _register(secrets=["OTHER"], followed={"KEY": "r2"})
    content["secrets"]["KEY"]["current"] = "r2"
    content["secrets"]["OTHER"] = {"open": None, "current": "r1", "primary_since": _TURNED}
    content["rotations"]["r2"] = {"secrets": ["KEY"], "status": "overlap", "ended_at": _RETIRED}
    assert closing.over(content) == {}
    content["rotations"]["r2"].update(status="retired", ended_at="2026-11-22T18:00:00.000Z")
    assert closing.over(content)["r1"] == "2026-11-22T18:00:00.000Z"
    answers = {"one": [_backup("10:00:30")], "two": []}
    assert closing.held_by(content, "r1", _RETIRED, HOSTS, answers) is None  # OTHER is not in the plan
    entry = {"name": "OTHER", "stores": [{"path": "/srv/other/.env"}]}
    hosts = {**HOSTS, "two": {"secrets": [*HOSTS["two"]["secrets"], entry]}}
    assert _named(content, hosts, answers) == ["one: 10:00:30"]


def test_a_copy_elsewhere_of_an_earlier_rotation_holds_it() -> None:
    content = _register()
    content["rotations"]["r0"] = {"secrets": ["KEY"], "status": "superseded", "started_at": "2026-01-01T00:00:00.000Z"}
    escrow = {"hosts": ["box"], "secrets": ["KEY"]}
    left = {"box": {"KEY": ["r0", "r1"]}}
    assert closing.held_in_escrow(content, "r1", escrow, left) == ["box: KEY/r0"]
    assert closing.held_in_escrow(content, "r1", escrow, {"box": {"KEY": ["r1"]}}) == []
    assert closing.held_in_escrow(content, "r1", escrow, {}) is None
    assert closing.held_in_escrow(content, "r1", {"hosts": [], "secrets": []}, {}) == []


def test_the_register_closes_only_what_is_over() -> None:
    content = _register()
    assert registry.close(content, "r1", _RETIRED, ["one: x"])["status"] == "retired"
    assert registry.close(content, "r1", _RETIRED, [])["status"] == "closed"
    later = registry.close(content, "r1", "2027-01-01T00:00:00.000Z", [])
    assert (later["status"], later["closed_at"]) == ("closed", _RETIRED)
    for status in ("open", "overlap", "rolled_back", "retiring"):
        with pytest.raises(KeyturnError) as caught:
            registry.close(_register(status), "r1", _RETIRED, [])
        assert caught.value.code == "rotation-open"


@pytest.mark.parametrize("status", ["open", "overlap", "rolling_back", "rollback_pending", "stuck", "retiring"])
def test_what_is_open_or_may_be_undone_needs_its_backup(status: str) -> None:
    assert registry.undoable(_register(status)) == ["r1"]
    assert registry.undoable(_register("retired")) == []
