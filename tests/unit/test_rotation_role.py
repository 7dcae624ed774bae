# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role makes of register and plan before it asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.unit.test_house import ROLES, ROOT

_TASKS = ROOT / "roles/rotation/tasks"
_PROBES = [
    {"name": "up", "type": "http"},
    {"name": "new", "type": "token", "secret": "SIGN", "version": "new"},
    {"name": "old", "type": "token", "secret": "SIGN", "version": "old"},
    {"name": "gone", "type": "token", "secret": "SIGN", "version": "old", "refused": True},
]


def _read(name: str, **variables: Any) -> Any:
    """A variable of the role, with these beside its own."""
    loader = DataLoader()
    own = loader.load_from_file(str(ROOT / "roles/rotation/vars/main.yml"), trusted_as_template=True)
    return Templar(loader=loader, variables={**own, **variables}).template(own[name])


def _argument(file: str, task: str, argument: str) -> str:
    """What a task gives to ``secret_probe``."""

    def found(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [each for entry in entries for each in (entry, *found(entry.get("block", [])))]

    (one,) = [entry for entry in found(yaml.safe_load((_TASKS / file).read_text("utf-8"))) if entry["name"] == task]
    return str(one["keyturn.rotation.secret_probe"][argument])


@pytest.mark.parametrize(
    ("entered", "here", "asked"),
    [
        (["verify"], [], ["up", "new", "old", "one", "in", "used", "single"]),
        (["retire"], [], ["up", "new", "one", "used", "single"]),
        (["retire"], ["SIGN", "LIST"], ["up", "single"]),
    ],
)
def test_a_retire_that_goes_on_asks_for_no_acceptance_of_what_may_be_disabled_or_is_forgotten(
    entered: list[str], here: list[str], asked: list[str]
) -> None:
    """What a list holds is refused late: its readers take both until they load what is left."""
    assert _argument("retire.yml", "Ask every probe", "probes") == "{{ __rotation_asked_first }}"
    assert _argument("retire.yml", "Show that the previous version is refused", "probes") == (
        "{{ __rotation_refused_late }}"
    )
    probe = {"type": "http", "secret": "LIST"}
    old = {**probe, "version": "old"}
    several = [
        {**probe, "name": "one", "version": "new"},
        {**old, "name": "in"},
        {**old, "name": "out", "refused": True},
        {**old, "name": "used", "type": "log", "refused": True},
        {**old, "name": "single", "secret": "SINGLE", "refused": True},
    ]
    variables = {
        "__rotation_plan": {"secrets": [{"name": "SIGN"}]},
        "__rotation_work": {"probes": [*_PROBES, *several]},
        "__rotation_run": {"rotation": {"entered": entered}},
        "__rotation_session": {"here": {"several": {"names": ["LIST"]}}},
        "__rotation_boxes": {"forgotten": {"one": {"here": here, "data": []}}},
        "inventory_hostname": "one",
    }
    late = [] if here else ["gone", "out"]
    assert [each["name"] for each in _read("__rotation_asked_first", **variables)] == asked
    assert [each["name"] for each in _read("__rotation_refused_late", **variables)] == late


@pytest.mark.parametrize(
    ("mode", "exposed", "seconds"), [("rotate", 600, 10), ("emergency", 600, 600), ("emergency", 0, 10)]
)
def test_in_an_emergency_acceptance_is_waited_for_as_long_as_caches_last(mode: str, exposed: int, seconds: int) -> None:
    assert _argument("probe.yml", "Ask every probe", "wait") == "{{ __rotation_proof_wait | int }}"
    wait = _read("__rotation_proof_wait", rotation_mode=mode, __rotation_announced={"exposed_s": exposed})
    assert int(wait) == seconds


def _each(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The tasks of a file, those in blocks too."""
    for entry in entries:
        yield entry
        for part in ("block", "rescue", "always"):
            yield from _each(entry.get(part) or [])


def test_an_emergency_goes_through_every_step_of_its_plan() -> None:
    tasks = _each(yaml.safe_load((_TASKS / "emergency.yml").read_text("utf-8")))
    (goes,) = [task for task in tasks if task.get("loop_control", {}).get("loop_var") == "rotation_step"]
    planned = {"plan": {"phases": ["preflight", "replace"]}, "steps": [{"phase": "preflight"}, {"phase": "replace"}]}
    templar = Templar(loader=DataLoader(), variables={"__rotation_planned": planned, "rotation_until": "preflight"})
    assert templar.template(trust_as_template(goes["loop"])) == planned["steps"]


@pytest.mark.parametrize(
    ("file", "name", "module"),
    [
        ("enter.yml", "Write down that the phase begins", "rotation_state"),
        ("session.yml", "Open the run on every host", "rotation_host"),
        ("back.yml", "Turn round", "rotation_state"),
        ("close.yml", "Close the run on every host", "rotation_host"),
    ],
)
def test_what_may_run_without_an_opening_asks_for_nothing_of_one(file: str, name: str, module: str) -> None:
    """An opening that failed, or one of another rotation in the same call, says nothing of this run."""
    (task,) = [task for task in yaml.safe_load((_TASKS / file).read_text("utf-8")) if task["name"] == name]
    given = task[f"keyturn.rotation.{module}"]
    assert {"state_dir", "session_dir", "rotation_id", "epoch"} <= set(given)
    assert "__rotation_session." not in str(given)


@pytest.mark.parametrize(("turned", "run", "epoch"), [(None, 4, 4), (3, 4, 4), (5, 4, 5), (3, None, 0)])
def test_a_way_back_of_an_earlier_rotation_gives_no_epoch(turned: int | None, run: int | None, epoch: int) -> None:
    known = {"__rotation_turn": turned, "__rotation_run": run}
    said = {name: {"epoch": number, "rotation": {"of": name}} for name, number in known.items() if number is not None}
    assert int(_read("__rotation_epoch", **said)) == epoch
    of = "__rotation_turn" if epoch == turned else "__rotation_run"
    assert _read("__rotation_record", **said) == ({"of": of} if run is not None else {})


@pytest.mark.parametrize(
    ("status", "after", "confirm", "goes_on"),
    [
        ("overlap", "2026-11-24", "", False),
        ("overlap", "2026-11-24", "KEY", True),
        ("overlap", "2026-11-22", "", True),
        ("overlap", "", "", False),
        ("retiring", "2026-11-24", "", True),
        ("stuck", "", "", True),  # refused with the lock, which says what to do
    ],
)
def test_only_an_overlap_is_waited_for_by_a_retire(status: str, after: str, confirm: str, goes_on: bool) -> None:
    task = yaml.safe_load((_TASKS / "retire.yml").read_text("utf-8"))[0]
    row = {"name": "KEY", "status": status, "retire_after": after}
    planned = {"names": ["KEY"], "now": "2026-11-23", "secrets": [row, {**row, "name": "OTHER", "status": "overlap"}]}
    own = {name: trust_as_template(text) for name, text in task["vars"].items()}
    known = {**own, "__rotation_planned": planned, "rotation_confirm": confirm}
    asked = trust_as_template("{{ " + task["ansible.builtin.assert"]["that"] + " }}")
    assert Templar(loader=DataLoader(), variables=known).template(asked) is goes_on


@pytest.mark.parametrize("role", ROLES)
def test_no_loop_takes_the_name_of_a_variable_of_its_role(role: str) -> None:
    folder = ROOT / "roles" / role
    named: set[str] = set()
    for path in (*folder.glob("vars/*.yml"), *folder.glob("defaults/*.yml")):
        named |= set(yaml.safe_load(path.read_text("utf-8")) or {})
    loops = {
        task["loop_control"]["loop_var"]
        for path in folder.glob("tasks/*.yml")
        for task in _each(yaml.safe_load(path.read_text("utf-8")) or [])
        if "loop_var" in task.get("loop_control", {})
    }
    assert loops & named == set()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize(
    ("entered", "counts"),
    [
        ("2027-03-28T02:30:00.123Z", "2027-03-28T02:30:01Z"),  # an hour that Berlin does not have on that day
        ("2027-03-14T02:59:59.000Z", "2027-03-14T03:00:00Z"),  # nor New York
        ("2026-10-25T02:59:59.999Z", "2026-10-25T03:00:00Z"),
        ("2026-12-31T23:59:59.000Z", "2027-01-01T00:00:00Z"),
    ],
)
def test_logs_are_watched_from_the_next_second_on_wherever_the_controller_is(
    zone: str, entered: str, counts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert _read("__rotation_second_after", __rotation_entry={"now": entered}) == counts
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("role", ROLES)
def test_no_role_takes_utc_for_a_time_of_the_controllers_own_zone(role: str) -> None:
    files = [*(ROOT / "roles" / role).glob("tasks/*.yml"), *(ROOT / "roles" / role).glob("vars/*.yml")]
    lines = [line for path in files for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in lines if ".timestamp()" in line] == []
