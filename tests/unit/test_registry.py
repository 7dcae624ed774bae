# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The register: one open rotation per secret, one run per rotation, and no way back for a run that was taken over."""

from __future__ import annotations

import copy
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import registry
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

NOW = 1_800_000_000.0
STAMP = "2027-01-15T08:00:00.000Z"


def a_run(name: str, **alive: bool) -> dict[str, Any]:
    return {"run_id": name, "user": "ann", "controller": "c1", "place": "p", "sees_alive": alive}


def acquire(content: dict[str, Any], run: str = "run1", now: float = NOW, **options: Any) -> tuple[str, dict[str, Any]]:
    alive = options.pop("alive", {})
    arguments: dict[str, Any] = {
        "mode": "rotate",
        "names": ["KEY"],
        "new_id": f"id-{run}",
        "details": {"reason": "why"},
    }
    arguments.update(options)
    return registry.acquire(content, run=a_run(run, **alive), stamp=STAMP, now=now, **arguments)


def test_a_new_rotation_begins_and_ends() -> None:
    content = registry.empty()
    rotation_id, rotation = acquire(content)
    assert (rotation_id, rotation["epoch"], rotation["status"]) == ("id-run1", 1, "open")
    registry.advance(content, rotation_id, 1, "stage", NOW)
    registry.finish(content, rotation_id, 1, "overlap", STAMP)
    assert content["secrets"]["KEY"] == {"open": None, "current": rotation_id, "primary_since": STAMP}


@pytest.mark.parametrize("mode", ["rotate", "rollback", "retire"])
@pytest.mark.parametrize("left", [{}, {"KEY": {"app": 1, "other": 1}}, {"KEY": {"app": 2}}])
def test_a_rotation_does_not_go_on_or_back_without_data_that_it_began_with(mode: str, left: dict[str, Any]) -> None:
    content = registry.empty()
    rotation_id, _rotation = acquire(content, details={"data": {"KEY": {"app": 2, "other": 1}}})
    if mode != "rotate":
        registry.finish(content, rotation_id, 1, "overlap", STAMP)
    again: dict[str, Any] = {"mode": mode, "alive": {"run1": False}}
    with pytest.raises(
        KeyturnError, match=rf"columns in \w+: the catalog names \d, and rotation {rotation_id} began with"
    ) as raised:
        acquire(copy.deepcopy(content), "run2", details={"data": left}, **again)
    assert raised.value.code == "data-gone"
    assert "keyturn_secrets.KEY.data" in raised.value.where
    gone = ["KEY/app", "KEY/other"]
    assert acquire(copy.deepcopy(content), "run2", details={"data": left}, gone=gone, **again)[0] == rotation_id
    more = {"KEY": {"app": 2, "other": 1, "more": 5}}
    assert acquire(content, "run2", details={"data": more}, **again)[0] == rotation_id


def test_a_part_that_goes_back_needs_its_own_data_only_and_a_host_that_catches_up_none() -> None:
    data = {"KEY": {"app": 1}, "OTHER": {"app": 1}}
    waived = [{"host": "api2", "reason": "down", "until": "2999-01-01"}]
    content = registry.empty()
    begun = {"data": data, "waived": waived}
    rotation_id, _rotation = acquire(content, names=["KEY", "OTHER"], details=begun)
    registry.finish(content, rotation_id, 1, "overlap", STAMP, waived=waived)
    caught_up, rotation = acquire(copy.deepcopy(content), "run2", names=["KEY", "OTHER"], details={"data": {}})
    assert (caught_up, rotation["status"]) == (rotation_id, "open")
    with pytest.raises(KeyturnError, match=r"keyturn_secrets\.OTHER"):
        acquire(content, "run2", mode="rollback", names=["KEY", "OTHER"], details={"data": {"KEY": {"app": 1}}})


def test_columns_that_turned_the_last_time_and_do_not_now_are_named() -> None:
    content = registry.empty()
    data = {"KEY": {"app": 2, "other": 1}}
    assert registry.left_out(content, ["KEY"], data) == []
    rotation_id, _rotation = acquire(content, details={"data": data})
    registry.finish(content, rotation_id, 1, "overlap", STAMP)
    assert registry.left_out(content, ["KEY"], data) == []
    lines = registry.left_out(content, ["KEY"], {"KEY": {"app": 1}})
    assert [line.split(" turned")[0] for line in lines] == ["KEY: 2 columns in app", "KEY: 1 columns in other"]


def test_the_same_command_goes_on_when_its_run_is_dead() -> None:
    content = registry.empty()
    first, _rotation = acquire(content)
    again, rotation = acquire(content, "run2", alive={"run1": False})
    assert again == first
    assert rotation["epoch"] == 2
    assert [run["interrupted"] for run in rotation["runs"]] == [True, False]


def test_trap_23_a_run_that_lives_is_not_disturbed() -> None:
    content = registry.empty()
    acquire(content)
    with pytest.raises(KeyturnError, match=r"ann on c1 at .*, and is running \(phase none\)") as raised:
        acquire(content, "run2", alive={"run1": True})
    assert raised.value.code == "rotation-busy"
    assert raised.value.hint.startswith("It is running on this controller: wait until it ends")
    assert "keyturn_take_over" not in raised.value.hint
    assert "rollback" in raised.value.hint


def test_a_run_that_lives_is_named_by_its_process() -> None:
    content = registry.empty()
    acquire(content, "p.4711.99")
    with pytest.raises(KeyturnError, match=r"on this controller \(process 4711\): wait"):
        acquire(content, "run2", alive={"p.4711.99": True})


def test_a_run_elsewhere_is_dead_only_after_its_lease() -> None:
    content = registry.empty()
    acquire(content)
    with pytest.raises(KeyturnError, match=r"may still be running.*wait 120 s") as raised:
        acquire(content, "run2")
    assert all(way in raised.value.hint for way in ("keyturn_take_over", "rollback"))
    assert acquire(content, "run2", now=NOW + 121)[1]["epoch"] == 2
    assert acquire(content, "run3", now=NOW + 122, take_over=True)[1]["epoch"] == 3


def test_who_began_and_who_runs_are_named() -> None:
    content = registry.empty()
    acquire(content)
    with pytest.raises(KeyturnError, match=r"ann on c1 at [^,]+, and may still be running \(phase"):
        acquire(content, "run2")
    run = {**a_run("run2", run1=False), "user": "ben", "controller": "c2"}
    arguments: dict[str, Any] = {"mode": "rotate", "names": ["KEY"], "new_id": "no", "details": {}, "now": NOW}
    registry.acquire(content, run=run, stamp="later", **arguments)
    with pytest.raises(KeyturnError, match=r"ann on c1 at .* running by ben on c2 since later \(phase"):
        acquire(content, "run3")
    registry.release(content, "id-run1", 2)
    with pytest.raises(KeyturnError, match="open, started by ann on c1 at"):
        acquire(content, "run3", rotation_id="mine")


@pytest.mark.parametrize(
    ("phase", "seconds"),
    [("backup", 120), ("stage", 120), ("migrate", 900), ("promote", 900), ("restart", 900), ("verify", 900)],
)
def test_a_phase_that_may_last_has_a_longer_lease(phase: str, seconds: int) -> None:
    content = registry.empty()
    rotation_id, rotation = acquire(content)
    registry.advance(content, rotation_id, rotation["epoch"], phase, NOW)
    with pytest.raises(KeyturnError, match=f"wait {seconds} s"):
        acquire(content, "run2")
    assert acquire(content, "run2", now=NOW + seconds + 1)[1]["epoch"] == 2


def test_a_run_that_was_taken_over_changes_nothing() -> None:
    content = registry.empty()
    rotation_id, _rotation = acquire(content)
    acquire(content, "run2", take_over=True)
    before = json.dumps(content)
    for call in (
        lambda: registry.advance(content, rotation_id, 1, "promote", NOW),
        lambda: registry.turn_back(content, rotation_id, 1, NOW),
        lambda: registry.release(content, rotation_id, 1),
        lambda: registry.finish(content, rotation_id, 1, "overlap", STAMP),
    ):
        with pytest.raises(KeyturnError) as raised:
            call()
        assert raised.value.code == "fenced"
    assert json.dumps(content) == before


def test_going_back_fences_what_the_way_forward_left_behind() -> None:
    content = registry.empty()
    rotation_id, _rotation = acquire(content)
    assert registry.turn_back(content, rotation_id, 1, NOW, "no")["epoch"] == 2
    with pytest.raises(KeyturnError, match="taken over"):
        registry.advance(content, rotation_id, 1, "promote", NOW)


def test_the_cause_of_a_way_back_is_what_failed_first_or_that_it_was_asked_for() -> None:
    content = registry.empty()
    rotation_id, _rotation = acquire(content)
    epoch = registry.turn_back(content, rotation_id, 1, NOW)["epoch"]
    assert content["rotations"][rotation_id]["cause"] == registry.ASKED
    epoch = registry.turn_back(content, rotation_id, epoch, NOW, "no")["epoch"]
    assert registry.turn_back(content, rotation_id, epoch, NOW)["cause"] == "no"


def test_another_id_is_refused_while_one_is_open() -> None:
    content = registry.empty()
    acquire(content)
    with pytest.raises(KeyturnError, match="id-run1") as raised:
        acquire(content, "run2", rotation_id="mine", alive={"run1": False})
    assert raised.value.code == "rotation-other"


@pytest.mark.parametrize(
    ("status", "way"),
    [
        ("open", "the rotate playbook to go on with it, or rollback, with keyturn_only=KEY"),
        ("stuck", "the rollback playbook, with keyturn_only=KEY"),
        ("retiring", "the retire playbook, with keyturn_only=KEY"),
    ],
)
def test_what_is_not_part_of_the_open_one_is_refused_with_the_way_to_end_that(status: str, way: str) -> None:
    content = registry.empty()
    _first, rotation = acquire(content)
    rotation["status"] = status
    with pytest.raises(KeyturnError, match="MORE, OTHER are not part of it") as raised:
        acquire(content, "run2", names=["KEY", "MORE", "OTHER"], mode="retire" if status == "retiring" else "rollback")
    assert (raised.value.code, raised.value.hint) == ("rotation-other", f"Finish it first: {way}")


@pytest.mark.parametrize("status", ["open", "rolling_back", "rollback_pending", "stuck"])
def test_what_is_open_is_not_retired(status: str) -> None:
    content = registry.empty()
    _first, rotation = acquire(content)
    rotation["status"] = status
    before = json.dumps(content)
    with pytest.raises(KeyturnError, match="is still needed") as raised:
        acquire(content, "run2", mode="retire", take_over=True)
    assert (raised.value.code, json.dumps(content)) == ("rotation-other", before)


def test_trap_43_a_pending_rollback_keeps_the_lock() -> None:
    content = registry.empty()
    rotation_id, _rotation = acquire(content)
    registry.finish(content, rotation_id, 1, "rollback_pending", STAMP, lost=["api2"])
    assert content["secrets"]["KEY"]["open"] == rotation_id
    again, rotation = acquire(content, "run2")
    assert (again, rotation["status"], rotation["lost"]) == (rotation_id, "rollback_pending", ["api2"])


def test_what_has_turned_can_be_opened_to_go_back() -> None:
    content = registry.empty()
    rotation_id, _rotation = acquire(content)
    registry.finish(content, rotation_id, 1, "overlap", STAMP)
    found, rotation = acquire(content, "run2", mode="rollback")
    assert (found, rotation["status"]) == (rotation_id, "rolling_back")
    registry.finish(content, rotation_id, 2, "rolled_back", STAMP)
    with pytest.raises(KeyturnError) as raised:
        acquire(content, "run3", mode="rollback")
    assert raised.value.code == "nothing-to-undo"


def test_a_third_version_supersedes_the_first_rotation() -> None:
    content = registry.empty()
    first, _rotation = acquire(content)
    registry.finish(content, first, 1, "overlap", STAMP)
    second, rotation = acquire(content, "run2")
    assert second != first
    registry.finish(content, second, rotation["epoch"], "overlap", STAMP)
    assert content["rotations"][first]["status"] == "superseded"


# -- a part of a rotation turns again --------------------------------------------------------------------------------


def _group(content: dict[str, Any], names: list[str], run: str, stamp: str = STAMP, **facts: Any) -> str:
    rotation_id, rotation = acquire(content, run, names=names)
    registry.finish(content, rotation_id, rotation["epoch"], "overlap", stamp, **facts)
    return rotation_id


@pytest.mark.parametrize(("mode", "ended"), [("rollback", "rolled_back"), ("retire", "retired")])
def test_what_is_left_of_a_group_goes_back_and_is_retired_by_itself(mode: str, ended: str) -> None:
    content = registry.empty()
    first = _group(content, ["CHILD", "KEY", "PARENT"], "run1", tied=[["PARENT", "CHILD"]])
    assert registry.losing(content, ["KEY"]) == []
    second = _group(content, ["KEY"], "run2", tied=[])
    assert registry.undoable(content) == [first, second]
    found, rotation = acquire(content, "run3", mode=mode, names=["CHILD", "PARENT"])
    assert (found, rotation["secrets"], rotation["followed"]) == (first, ["CHILD", "PARENT"], {"KEY": second})
    registry.finish(content, first, rotation["epoch"], ended, STAMP)
    assert content["secrets"]["KEY"] == {"open": None, "current": second, "primary_since": STAMP}
    assert acquire(content, "run4", mode="rollback")[0] == second
    assert registry.turned_in(rotation) == ["CHILD", "KEY", "PARENT"]


def test_a_rotation_of_which_nothing_is_left_is_superseded() -> None:
    content = registry.empty()
    first = _group(content, ["KEY", "OTHER"], "run1", tied=[])
    _group(content, ["KEY"], "run2", tied=[])
    _group(content, ["OTHER"], "run3", tied=[])
    assert content["rotations"][first]["status"] == "superseded"
    assert content["rotations"][first]["followed"] == {"KEY": "id-run2", "OTHER": "id-run3"}


@pytest.mark.parametrize("facts", [{}, {"tied": [["PARENT", "CHILD"]]}], ids=["not-known", "tied"])
def test_what_is_tied_to_what_turns_again_loses_its_way_back_and_that_is_said(facts: dict[str, Any]) -> None:
    content = registry.empty()
    first = _group(content, ["CHILD", "PARENT"], "run1", **facts)
    assert registry.losing(content, ["CHILD"]) == [
        f"PARENT can no longer be brought back to the version before: it turned together with CHILD in rotation {first}"
    ]
    assert registry.losing(content, ["CHILD", "PARENT"]) == []
    _group(content, ["CHILD"], "run2", tied=[])
    assert (content["rotations"][first]["status"], registry.losing(content, ["PARENT"])) == ("superseded", [])
    for mode, way in (("rollback", "cannot be brought back any more"), ("retire", "then the retire playbook")):
        with pytest.raises(KeyturnError, match="superseded: CHILD turned again in id-run2") as raised:
            acquire(content, "run3", mode=mode, names=["PARENT"])
        assert way in raised.value.hint
        assert "the rotate playbook with keyturn_only=PARENT" in raised.value.hint


def test_names_of_several_rotations_are_told_apart() -> None:
    content = registry.empty()
    first = _group(content, ["KEY", "OTHER", "THIRD"], "run1", tied=[])
    second = _group(content, ["KEY"], "run2", tied=[])
    with pytest.raises(KeyturnError) as raised:
        acquire(content, "run3", mode="rollback", names=["KEY", "NEVER", "OTHER", "THIRD"])
    where = f"KEY in {second}; NEVER in none; OTHER, THIRD in {first}"
    assert raised.value.message.endswith(f"they turned last in different rotations ({where})")
    assert raised.value.hint == "Name those of one: keyturn_only=KEY"
    with pytest.raises(KeyturnError, match="NEVER: never turned, or brought back already"):
        acquire(content, "run3", mode="rollback", names=["NEVER"])


def test_what_left_a_rotation_is_as_old_as_that_after_its_way_back() -> None:
    for ended in ("", "rollback"):
        content = registry.empty()
        _group(content, ["KEY", "OTHER"], "run1", "2026-01-01T00:00:00.000Z", tied=[])
        _group(content, ["KEY"], "run2", "2026-03-01T00:00:00.000Z", tied=[])
        if ended:
            rotation_id, rotation = acquire(content, "run3", mode=ended, names=["OTHER"])
            registry.finish(content, rotation_id, rotation["epoch"], "rolled_back", STAMP)
        _gone_back(content, "run4")
        assert content["secrets"]["KEY"]["primary_since"] == "2026-01-01T00:00:00.000Z"


# -- since when a version is primary ---------------------------------------------------------------------------------


def _turned(content: dict[str, Any], run: str, stamp: str) -> str:
    rotation_id, rotation = acquire(content, run)
    registry.finish(content, rotation_id, rotation["epoch"], "overlap", stamp)
    return rotation_id


def _gone_back(content: dict[str, Any], run: str) -> None:
    rotation_id, rotation = acquire(content, run, mode="rollback")
    registry.finish(content, rotation_id, rotation["epoch"], "rolled_back", STAMP)


def test_after_a_way_back_the_version_before_is_as_old_as_it_was() -> None:
    content = registry.empty()
    _turned(content, "run1", "2026-01-01T00:00:00.000Z")
    _turned(content, "run2", "2026-03-01T00:00:00.000Z")
    _gone_back(content, "run3")
    assert content["secrets"]["KEY"]["primary_since"] == "2026-01-01T00:00:00.000Z"
    _turned(content, "run4", "2026-04-01T00:00:00.000Z")
    _gone_back(content, "run5")
    assert content["secrets"]["KEY"]["primary_since"] == "2026-01-01T00:00:00.000Z", "not that of the rolled back one"


def test_after_a_way_back_to_a_version_from_before_all_rotations_its_age_is_not_known() -> None:
    content = registry.empty()
    _turned(content, "run1", "2026-01-01T00:00:00.000Z")
    _gone_back(content, "run2")
    assert "primary_since" not in content["secrets"]["KEY"]


def test_a_way_back_before_the_end_changes_no_age() -> None:
    content = registry.empty()
    _turned(content, "run1", "2026-01-01T00:00:00.000Z")
    rotation_id, rotation = acquire(content, "run2")
    registry.finish(content, rotation_id, rotation["epoch"], "rolled_back", STAMP)
    assert content["secrets"]["KEY"]["primary_since"] == "2026-01-01T00:00:00.000Z"


# -- retire asks first -----------------------------------------------------------------------------------------------


def test_a_retire_that_is_refused_before_it_removes_anything_leaves_the_way_back_open() -> None:
    content = registry.empty()
    rotation_id = _turned(content, "run1", STAMP)
    found, rotation = acquire(content, "run2", mode="retire")
    assert (found, rotation["status"]) == (rotation_id, "overlap")
    registry.finish(content, rotation_id, rotation["epoch"], "overlap", STAMP)
    assert content["secrets"]["KEY"]["open"] is None
    assert acquire(content, "run3", mode="rollback")[1]["status"] == "rolling_back"


@pytest.mark.parametrize("status", ["overlap", "open"])
def test_a_way_back_that_is_refused_before_it_changes_anything_leaves_all_as_it_was(status: str) -> None:
    content = registry.empty()
    rotation_id, rotation = acquire(content)
    registry.advance(content, rotation_id, 1, "promote", NOW, restarted=["a"])
    if status == "overlap":
        registry.finish(content, rotation_id, 1, "overlap", STAMP)
    else:
        registry.release(content, rotation_id, 1)
    before = json.loads(json.dumps(content))
    acquire(content, "run2", mode="rollback", alive={"run1": False})
    epoch = registry.turn_back(content, rotation_id, 2, NOW)["epoch"]
    assert (rotation["status"], rotation["cause"]) == ("rolling_back", registry.ASKED)
    registry.stay(content, rotation_id, epoch)
    assert content["secrets"] == before["secrets"]
    changing = ("epoch", "runs")
    assert {key: value for key, value in rotation.items() if key not in changing} == {
        key: value for key, value in before["rotations"][rotation_id].items() if key not in changing
    }
    _found, again = acquire(content, "run3", mode="rollback")
    assert again["status"] == "rolling_back"


def test_a_way_back_that_has_begun_or_is_resumed_is_gone_to_its_end() -> None:
    content = registry.empty()
    rotation_id, rotation = acquire(content)
    registry.finish(content, rotation_id, 1, "overlap", STAMP)
    acquire(content, "run2", mode="rollback")
    epoch = registry.turn_back(content, rotation_id, 2, NOW)["epoch"]
    assert rotation["was"]["status"] == "overlap"
    registry.begin_back(content, rotation_id, epoch, NOW)
    assert "was" not in rotation
    registry.finish(content, rotation_id, epoch, "stuck", STAMP)
    _found, again = acquire(content, "run3", mode="rollback")
    assert "was" not in again
    _other, other = acquire(content, "run4", names=["OTHER"])
    registry.finish(content, "id-run4", other["epoch"], "overlap", STAMP)
    acquire(content, "run5", mode="rollback", names=["OTHER"])
    _found, resumed = acquire(content, "run6", names=["OTHER"], alive={"run5": False})
    assert (resumed["status"], "was" in resumed) == ("rolling_back", False)


def test_from_the_phase_retire_on_there_is_no_way_back() -> None:
    content = registry.empty()
    rotation_id = _turned(content, "run1", STAMP)
    _found, rotation = acquire(content, "run2", mode="retire")
    registry.advance(content, rotation_id, rotation["epoch"], "retire", NOW)
    with pytest.raises(KeyturnError) as raised:
        acquire(content, "run3", mode="rollback", alive={"run2": False})
    assert raised.value.code == "retire-unfinished"
    assert acquire(content, "run4", mode="retire", alive={"run2": False})[1]["status"] == "retiring"


@pytest.mark.parametrize(("mode", "status"), [("rollback", "rolling_back"), ("retire", "overlap"), ("rotate", "open")])
def test_a_retire_that_was_killed_while_it_asked_holds_nobody_up(mode: str, status: str) -> None:
    content = registry.empty()
    rotation_id = _turned(content, "run1", STAMP)
    acquire(content, "run2", mode="retire")
    assert registry.open_for(content, "KEY") is None
    with pytest.raises(KeyturnError) as raised:
        acquire(content, "run3", mode=mode, alive={"run2": True})
    assert raised.value.code == "rotation-busy"
    found, rotation = acquire(content, "run3", mode=mode, alive={"run2": False})
    assert (found == rotation_id, rotation["status"]) == (mode != "rotate", status)


@pytest.mark.parametrize(("mode", "ended"), [("rotate", "overlap"), ("emergency", "replaced")])
@pytest.mark.parametrize("over", [True, False])
def test_a_retire_that_outlived_its_lease_changes_nothing_any_more(mode: str, ended: str, over: bool) -> None:
    content = registry.empty()
    first = _turned(content, "run1", STAMP)
    epoch = acquire(content, "run2", mode="retire")[1]["epoch"]
    later, rotation = acquire(content, "run3", mode=mode, now=NOW + registry.LEASE_SECONDS + 1)
    if over:
        registry.finish(content, later, rotation["epoch"], ended, STAMP)
    before = json.dumps(content)
    for call in (
        lambda: registry.advance(content, first, epoch, "retire", NOW),
        lambda: registry.finish(content, first, epoch, "overlap", STAMP),
    ):
        with pytest.raises(KeyturnError) as raised:
            call()
        assert raised.value.code == "fenced"
    assert json.dumps(content) == before


# -- emergency -------------------------------------------------------------------------------------------------------


def test_trap_44_an_emergency_goes_forward_only() -> None:
    content = registry.empty()
    rotation_id, rotation = acquire(content, mode="emergency")
    assert rotation["status"] == "replacing"
    registry.finish(content, rotation_id, 1, "replacing", STAMP)
    for mode in ("rotate", "rollback", "retire"):
        with pytest.raises(KeyturnError, match="goes forward only") as raised:
            acquire(content, "run2", mode=mode)
        assert raised.value.code == "forward-only"
    again, rotation = acquire(content, "run2", mode="emergency")
    assert (again, rotation["epoch"]) == (rotation_id, 2)
    registry.finish(content, rotation_id, 2, "replaced", STAMP, exposed_until="later")
    assert content["secrets"]["KEY"] == {"open": None, "current": rotation_id, "primary_since": STAMP}
    assert rotation_id not in registry.undoable(content)
    for mode, code in (("rollback", "forward-only"), ("retire", "nothing-to-retire")):
        with pytest.raises(KeyturnError, match="has replaced a compromised version of KEY") as raised:
            acquire(content, "run3", mode=mode)
        assert raised.value.code == code
    later, rotation = acquire(content, "run4")
    registry.finish(content, later, rotation["epoch"], "overlap", STAMP)
    assert content["rotations"][rotation_id]["status"] == "replaced"
    assert acquire(content, "run5", mode="rollback")[1]["status"] == "rolling_back"


@pytest.mark.parametrize("status", ["open", "rolling_back", "stuck", "retiring"])
def test_an_emergency_takes_a_secret_out_of_whatever_is_open_and_fences_it(status: str) -> None:
    content = registry.empty()
    first, rotation = acquire(content, names=["KEY", "OTHER"])
    rotation["status"] = status
    with pytest.raises(KeyturnError) as raised:
        acquire(content, "run2", mode="emergency", alive={"run1": True})
    assert raised.value.code == "rotation-busy"
    found, emergency = acquire(content, "run2", mode="emergency", alive={"run1": False})
    assert found != first
    assert (content["secrets"]["KEY"]["open"], content["secrets"]["OTHER"]["open"]) == (found, first)
    assert (rotation["secrets"], rotation["status"], rotation["seized"]) == (["OTHER"], status, ["KEY"])
    with pytest.raises(KeyturnError, match="taken over"):
        registry.advance(content, first, 1, "promote", NOW)
    assert emergency["epoch"] > rotation["epoch"] > 1


def test_a_rotation_of_nothing_but_a_compromised_secret_is_over() -> None:
    content = registry.empty()
    first, rotation = acquire(content)
    acquire(content, "run2", mode="emergency", alive={"run1": False})
    assert (rotation["status"], rotation["secrets"]) == ("superseded", ["KEY"])
    assert first not in registry.undoable(content)


@pytest.mark.parametrize("names", [["KEY"], ["KEY", "OTHER"]])
@pytest.mark.parametrize("status", ["open", "rolling_back", "retiring"])
def test_an_emergency_that_was_refused_gives_back_what_it_took(names: list[str], status: str) -> None:
    content = registry.empty()
    first, rotation = acquire(content, names=names)
    rotation["status"] = status
    found, emergency = acquire(content, "run2", mode="emergency", alive={"run1": False})
    registry.finish(content, found, emergency["epoch"], "rolled_back", STAMP)
    assert {content["secrets"][name]["open"] for name in names} == {first}
    assert (rotation["status"], rotation["secrets"], rotation["seized"]) == (status, names, [])
    with pytest.raises(KeyturnError, match="taken over"):
        registry.advance(content, first, 1, "promote", NOW)
    registry.one_way(content, ["KEY"], "rotate")
    assert acquire(content, "run3", mode="emergency")[1]["took"]["KEY"]["rotation"] == first


def test_what_went_on_without_a_secret_does_not_get_it_back() -> None:
    content = registry.empty()
    first, rotation = acquire(content, names=["KEY", "OTHER"])
    found, emergency = acquire(content, "run2", mode="emergency", alive={"run1": False})
    _first, again = acquire(content, "run3", names=["OTHER"])
    registry.finish(content, first, again["epoch"], "overlap", STAMP)
    registry.finish(content, found, emergency["epoch"], "rolled_back", STAMP)
    assert (rotation["status"], rotation["secrets"], content["secrets"]["KEY"]["open"]) == ("overlap", ["OTHER"], None)
    assert acquire(content, "run4")[1]["status"] == "open"


def test_the_lease_of_a_watch_is_as_long_as_it_lasts() -> None:
    content = registry.empty()
    rotation_id, rotation = acquire(content, mode="emergency")
    registry.advance(content, rotation_id, 1, "watch", NOW, watch_s=3600)
    assert rotation["lease_until"] == NOW + 3600 + registry.LONG_LEASE_SECONDS


def _race(folder: str, number: int, queue: Any) -> None:
    register = registry.Register(folder)
    try:
        with register.changing() as content:
            acquire(content, f"run{number}")
        queue.put(number)
    except KeyturnError as error:
        queue.put(error.code)


def test_two_controllers_that_start_at_the_same_moment_have_one_winner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        queue = context.SimpleQueue()
        folder = str(tmp_path / str(attempt))
        racers = [context.Process(target=_race, args=(folder, number, queue)) for number in range(6)]
        for racer in racers:
            racer.start()
        said = [queue.get() for _racer in racers]
        for racer in racers:
            racer.join()
        assert said.count("rotation-busy") == 5
        assert registry.Register(folder).read()["rotations"].keys() == {
            f"id-run{next(s for s in said if isinstance(s, int))}"
        }


def test_a_register_of_a_later_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text('{"schema_version": 2}')
    with pytest.raises(KeyturnError, match="of version 2"):
        registry.Register(str(tmp_path)).read()


@pytest.mark.parametrize(
    "text",
    ['{"schema_version": 1, "epo', "", "[]", "{}", '{"schema_version": 1, "epoch": 1, "secrets": {}}', "\udcff"],
    ids=["cut", "empty", "list", "nothing", "part", "bytes"],
)
def test_a_damaged_register_is_named_with_what_to_do_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registry.json"
    content = text.encode("utf-8", "surrogateescape")
    path.touch(0o600)
    path.write_bytes(content)
    register = registry.Register(str(tmp_path))
    with pytest.raises(KeyturnError, match="Put back the newest copy of it") as raised, register.changing():
        pass
    assert (raised.value.code, raised.value.where) == ("register-damaged", str(path))
    assert path.read_bytes() == content


def test_a_failed_change_leaves_the_register_as_it_was(tmp_path: Path) -> None:
    register = registry.Register(str(tmp_path))
    with register.changing() as content:
        acquire(content)
    before = (tmp_path / "registry.json").read_bytes()
    with pytest.raises(KeyturnError), register.changing() as content:
        acquire(content, "run2")
    assert (tmp_path / "registry.json").read_bytes() == before
    assert (tmp_path / "registry.json").stat().st_mode & 0o777 == 0o600
