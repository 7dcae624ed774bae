# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tasks of one host are told of the plan."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.plugin_utils.restarts import affected
from ansible_collections.keyturn.rotation.plugins.plugin_utils.work_here import libraries, work_here

_ENV = {"type": "env_file", "path": "/srv/.env"}
_WORK: dict[str, Any] = {
    "secrets": [
        {"name": "A", "stores": [_ENV, {"type": "file", "path": "/srv/key"}]},
        {"name": "B", "stores": [_ENV, {"type": "keyset_command", "path": "vault read"}]},
    ],
    "jobs": [],
    "servers": [],
    "services": [
        {"name": "db", "manager": "systemd", "wave": 0, "quiesce": "stop"},
        {"name": "cache", "manager": "systemd", "wave": 0},
        {"name": "api", "manager": "systemd", "wave": 1, "quiesce": "stop"},
        {"name": "own", "manager": "systemd", "wave": 1, "quiesce": "stop", "reloads": True},
        {"name": "web", "manager": "systemd", "wave": 1, "quiesce": "writes"},
    ],
    "probes": [],
}
_NOTHING: dict[str, Any] = {"secrets": [], "jobs": [], "servers": [], "services": [], "probes": []}


def _plan(strategy: str = "overlap", **more: Any) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "waves": [["cache", "db"], ["api", "own", "web"], ["elsewhere"]],
        "hosts": {"one": {**_WORK, **more}, "two": _NOTHING},
        "helpers": {"three": [{"secret": "A"}]},
    }


def _names(waves: list[list[dict[str, Any]]]) -> list[list[str]]:
    return [[service["name"] for service in wave] for wave in waves]


@pytest.mark.parametrize(
    ("strategy", "quiesced", "running", "to_stop"),
    [
        ("overlap", [[], [], []], [["db", "cache"], ["api", "web"], []], []),
        ("cutover", [["db"], ["api"], []], [["cache"], ["web"], []], ["api", "db"]),
    ],
)
def test_services_are_restarted_or_stopped_and_started_wave_by_wave(
    strategy: str, quiesced: list[list[str]], running: list[list[str]], to_stop: list[str]
) -> None:
    here = work_here(_plan(strategy), "one")
    assert _names(here["quiesced"]) == quiesced
    assert _names(here["running"]) == running
    assert _names([here["to_stop"]]) == [to_stop]


def test_services_that_have_loaded_it_in_an_earlier_run_stay_as_they_are() -> None:
    here = work_here(_plan("cutover"), "one", ["one"])
    assert (here["running"], here["quiesced"], here["to_stop"]) == ([[], [], []], [[], [], []], [])
    assert work_here(_plan("cutover"), "one", ["two"]) == work_here(_plan("cutover"), "one")


def test_each_file_is_named_once_and_what_only_a_command_reaches_is_none() -> None:
    here = work_here(_plan(), "one")
    assert here["files"] == ["/srv/.env", "/srv/key"]
    assert here["names"] == {"secrets": ["A", "B"], "services": ["db", "cache", "api", "own", "web"]}
    assert here["work"] == _WORK


def test_a_host_that_only_helps_has_no_work_of_its_own() -> None:
    here = work_here(_plan(), "three")
    assert (here["work"], here["files"], here["running"]) == (_NOTHING, [], [[], [], []])


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ({}, ["cryptography"]),
        ({"jobs": [{"secret": "A"}]}, ["cryptography", "psycopg"]),
        ({"servers": [{"type": "postgres"}]}, ["cryptography", "psycopg"]),
        ({"servers": [{"type": "redis"}]}, ["cryptography", "redis"]),
        ({"signing": [{"database": "app"}]}, ["cryptography", "psycopg"]),
        ({"signing": [{"api": "https://issuer"}]}, ["cryptography"]),
        ({"services": [{"name": "api", "manager": "compose", "wave": 0}]}, ["cryptography", "docker"]),
    ],
)
def test_a_host_needs_the_libraries_of_its_work(more: dict[str, Any], needed: list[str]) -> None:
    assert libraries(_plan(**more), "one") == needed


def test_a_helper_needs_the_database_and_a_host_without_work_nothing_more() -> None:
    assert libraries(_plan(), "three") == ["cryptography", "psycopg"]
    assert libraries(_plan(), "two") == ["cryptography"]


@pytest.mark.parametrize(
    ("everything", "running"), [(False, [["db"], [], []]), (True, [["db", "cache"], ["api", "own", "web"], []])]
)
def test_after_a_restore_what_reads_the_files_is_restarted_or_all(everything: bool, running: list[list[str]]) -> None:
    plan = {**_plan(), "secrets": [{"name": "A", "consumers": ["db"]}, {"name": "B"}]}
    backup = {"name": "n", "services": [], "files": ["/srv/key"], "checksums": "ok"}
    said = {"one": {"backup": backup, "restored": [], "replaced": ""}}
    found = affected(plan, said, ["db"], everything=everything)
    assert found["services"] == ["db"]
    assert {host: _names(waves) for host, waves in found["running"].items()} == {"one": running, "two": [[], [], []]}


def test_readers_of_two_versions_are_restarted_at_retire_where_their_stores_hold_both() -> None:
    several = {"name": "C", "stores": [{**_ENV, "layout": "list"}]}
    plan = {**_plan(secrets=[several, _WORK["secrets"][0]]), "readers_of_several": ["api", "db"]}
    here = work_here(plan, "one")["several"]
    assert here["names"] == ["C"]
    assert here["secrets"] == [several]
    assert _names(here["services"]) == [["db"], ["api"], []]
    single = {**_WORK, "secrets": [{"name": "C", "stores": [_ENV]}]}
    plan["hosts"] = {"one": plan["hosts"]["one"], "sender": single, "reader": {**_WORK, "secrets": []}}
    assert _names(work_here(plan, "sender")["several"]["services"]) == [[], [], []]
    assert work_here(plan, "sender")["several"]["names"] == ["C"]
    assert _names(work_here(plan, "reader")["several"]["services"]) == [["db"], ["api"], []]
    assert work_here(_plan(), "one")["several"] == {"names": [], "secrets": [], "services": [[], [], []]}
