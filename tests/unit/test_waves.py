# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a restart: what others depend on comes first."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.keyturn.rotation.plugins.filter.restart_waves import FilterModule
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.waves import restart_batches, restart_waves
from hypothesis import given
from hypothesis import strategies as st

SERVICES: dict[str, Any] = {
    "web": {"depends_on": ["api"]},
    "api": {"depends_on": ["db", "cache"]},
    "db": {},
    "cache": {"depends_on": []},
    "agents": {"depends_on": "api"},
}


def test_trap_15_the_order_comes_from_the_dependencies_not_from_the_alphabet() -> None:
    assert restart_waves(SERVICES, SERVICES) == [["cache", "db"], ["api"], ["agents", "web"]]


def test_a_dependency_through_a_service_that_is_not_affected_counts() -> None:
    assert restart_waves(SERVICES, ["web", "db"]) == [["db"], ["web"]]


def test_services_that_have_nothing_to_do_with_each_other_share_a_wave() -> None:
    assert restart_waves(SERVICES, ["web", "agents"]) == [["agents", "web"]]
    assert restart_waves(SERVICES, []) == []


def test_dependants_restart_too_when_asked_for() -> None:
    assert restart_waves(SERVICES, ["cache"], dependants=True) == [["cache"], ["api"], ["agents", "web"]]


def test_the_same_service_named_twice_restarts_once() -> None:
    assert restart_waves(SERVICES, ["db", "db"]) == [["db"]]


def test_a_circle_is_named_also_when_no_member_is_affected() -> None:
    services = {"a": {"depends_on": ["c"]}, "b": {"depends_on": ["a"]}, "c": {"depends_on": ["b"]}, "d": {}}
    with pytest.raises(KeyturnError, match="a -> c -> b -> a") as caught:
        restart_waves(services, ["d"])
    assert caught.value.code == "services-cycle"


def test_a_service_that_depends_on_itself_is_a_circle() -> None:
    with pytest.raises(KeyturnError, match="a -> a") as caught:
        restart_waves({"a": {"depends_on": ["a"]}}, ["a"])
    assert caught.value.code == "services-cycle"


@pytest.mark.parametrize(
    ("services", "affected", "where"),
    [
        ({"api": {"depends_on": ["databse"]}, "database": {}}, ["api"], "api.depends_on"),
        ({"database": {}}, ["databse"], "services to restart"),
    ],
)
def test_trap_15_a_service_that_does_not_exist_is_an_error_with_the_nearest_name(
    services: dict[str, Any], affected: list[str], where: str
) -> None:
    with pytest.raises(KeyturnError, match="'databse'") as caught:
        restart_waves(services, affected)
    assert (caught.value.code, caught.value.where) == ("service-unknown", where)
    assert "'database'" in caught.value.hint


@pytest.mark.parametrize("wrong", [7, [7], {"depends_on": 7}, {"depends_on": [None]}])
def test_dependencies_that_are_no_names_are_refused(wrong: Any) -> None:
    with pytest.raises(KeyturnError) as caught:
        restart_waves({"a": wrong}, ["a"])
    assert (caught.value.code, caught.value.where) == ("service-unknown", "a.depends_on")


@st.composite
def _graphs(draw: st.DrawFn) -> tuple[dict[str, list[str]], list[str]]:
    """Services without circles: each depends only on some that come before it."""
    names = draw(st.lists(st.text("abcdefgh", min_size=1, max_size=3), unique=True, max_size=9))
    services = {
        name: draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        for index, name in enumerate(names)
    }
    return services, [name for name in names if draw(st.booleans())]


def _ancestors(services: dict[str, list[str]], name: str) -> set[str]:
    found: set[str] = set()
    for other in services[name]:
        found |= {other} | _ancestors(services, other)
    return found


@given(_graphs(), st.randoms(use_true_random=False))
def test_every_affected_service_comes_once_after_all_it_needs_and_no_later(
    graph: tuple[dict[str, list[str]], list[str]], shuffler: random.Random
) -> None:
    services, affected = graph
    waves = restart_waves(services, affected)
    place = {name: number for number, wave in enumerate(waves) for name in wave}
    assert sorted(place) == sorted(affected)
    assert sum(len(wave) for wave in waves) == len(affected)
    assert all(waves)
    for name in affected:
        before = [place[other] for other in _ancestors(services, name) if other in place]
        assert place[name] == max(before, default=-1) + 1
    mixed = list(services.items())
    shuffler.shuffle(mixed)
    shuffler.shuffle(affected)
    assert restart_waves(dict(mixed), affected) == waves


def test_the_filter_gives_the_waves_and_its_errors_say_why() -> None:
    waves = FilterModule().filters()["restart_waves"]
    assert waves(SERVICES, ["web", "db"]) == [["db"], ["web"]]
    assert waves(SERVICES, ["cache"], dependants=True)[-1] == ["agents", "web"]
    with pytest.raises(AnsibleFilterError, match=r"there is no service 'wep'.*'web'"):
        waves(SERVICES, ["wep"])
    for wrong in ((["web"], ["web"]), (SERVICES, "web")):
        with pytest.raises(AnsibleFilterError, match="needs a mapping of services and a list of names"):
            waves(*wrong)


def _service(name: str, manager: str, wave: int | None = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "manager": manager, **({} if wave is None else {"wave": wave}), **more}


def test_neighbours_that_one_call_can_treat_are_together() -> None:
    services = [
        _service("a", "command"),
        _service("b", "command", 1),
        _service("c", "systemd", 1),
        _service("d", "command", None),
        _service("e", "compose", project_dir="/x"),
        _service("f", "compose", project_dir="/x"),
        _service("g", "compose", 1, project_dir="/x"),
        _service("h", "compose", 1, project_dir="/x", rolling=True),
        _service("i", "compose", None, project_dir="/x"),
        _service("j", "compose", None, project_dir="/x"),
    ]
    batches = restart_batches(services)
    assert ["".join(each["name"] for each in batch) for batch in batches] == ["ab", "c", "d", "ef", "g", "h", "i", "j"]
    assert [each for batch in batches for each in batch] == services
