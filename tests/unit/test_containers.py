# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine says of containers, in the words of services; and which of them still have a value."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import container_env, probes
from ansible_collections.keyturn.rotation.plugins.module_utils.compose import (
    Container,
    group_replicas,
    judge,
    state_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.container_env import blanks, holders

_NOT_RUNNING = ("created", "paused", "restarting", "removing", "exited", "dead")


def _container(name: str, state: str = "running", health: str = "healthy", **more: str) -> Container:
    return Container(id=f"id-{name}", name=name, service="api", state=state, health=health, **more)


# -- one container ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("health", "status", "enough", "final"),
    [
        ("healthy", "healthy", "healthy", False),
        ("starting", "starting", "starting", False),
        ("unhealthy", "unhealthy", "unhealthy", False),
        ("", "unknown", "healthy", True),
        ("none", "unknown", "healthy", True),
        ("unknown", "unknown", "unknown", False),
        ("Healthy", "unknown", "unknown", False),
        ("splendid", "unknown", "unknown", False),
    ],
)
def test_trap_16_only_running_and_healthy_together_are_healthy(
    health: str, status: str, enough: str, final: bool
) -> None:
    seen = state_of("running", health)
    assert (seen.status, seen.final) == (status, final)
    assert state_of("running", health, running_is_enough=True).status == enough


@pytest.mark.parametrize("health", ["healthy", "", "none"])
@pytest.mark.parametrize("state", [*_NOT_RUNNING, "", "Running", "up"])
def test_trap_16_what_does_not_run_is_not_well_whatever_its_check_last_said(state: str, health: str) -> None:
    expected = "unhealthy" if state in _NOT_RUNNING else "unknown"
    assert state_of(state, health, running_is_enough=True).status == expected
    assert not state_of(state, health).final, "it may run the next time"


# -- all containers of a service --------------------------------------------------------------------------------------


def test_trap_16_the_worst_replica_is_the_service() -> None:
    one, two = _container("api-1", started="2026-11-21T10:00:00Z"), _container("api-2", started="2026-11-21T12:00:00Z")
    seen = judge([one, two])
    assert (seen.status, seen.detail) == ("healthy", "2 containers: running, healthy")
    assert seen.since == "2026-11-21T12:00:00Z", "since when all of them run"
    seen = judge([one, two, _container("api-3", health="starting"), _container("api-4", state="exited")])
    assert (seen.status, seen.detail) == ("unhealthy", "2 of 4 containers are well; api-4 has ended")
    assert [part.id for part in seen.parts or ()] == ["id-api-1", "id-api-2", "id-api-3", "id-api-4"]
    assert judge([_container("api-1", health="unhealthy")]).detail == "runs, its check fails"


def test_trap_16_a_service_without_a_container_is_unknown() -> None:
    for enough in (False, True):
        seen = judge([], enough)
        assert (seen.status, seen.parts, seen.final) == ("unknown", (), False)


def test_running_is_enough_for_containers_without_a_check_only() -> None:
    bare = [_container("api-1", health=""), _container("api-2", health="none")]
    assert (judge(bare).status, judge(bare).final) == ("unknown", True)
    assert judge(bare, running_is_enough=True).status == "healthy"
    assert judge([*bare, _container("api-3", health="unhealthy")], running_is_enough=True).status == "unhealthy"


def test_replicas_are_counted_once_while_old_and_new_ones_are_there() -> None:
    old = [_container(f"api-{number}", config_hash="old") for number in (1, 2, 3)]
    new = [_container(f"api-{number}", config_hash="new") for number in (4, 5)]
    assert [group_replicas(found) for found in ([], old, [*old, *new], [new[0], *old[:1]])] == [0, 3, 3, 1]


# -- who still has a value --------------------------------------------------------------------------------------------

_OLD = b"old/5d1e90cc+7ab4 0c"
_NEW = b"new-91a7704be2d6"


def _text(value: bytes) -> str:
    return value.decode()


@pytest.mark.parametrize(
    "entry",
    [
        f"A={_text(_OLD)}",
        f"A=begin {_text(_OLD)} end",
        f"A=postgres://app:{quote(_text(_OLD), safe='')}@db/app?sslmode=require",
        f"A=redis://:{quote(_text(_OLD), safe='')}@cache:6379/0",
        f"A=token={_text(_OLD).replace('/', '%2F').replace('+', '%2B').replace(' ', '+')}",
        f"A={base64.b64encode(_OLD).decode()}",
        f"A={base64.b64encode(_OLD).decode().rstrip('=')}",
        f"A=x={_text(_OLD)}",
    ],
)
def test_a_value_is_found_in_whatever_form_it_stands(entry: str) -> None:
    found = {"api-1": ["PATH=/bin", entry], "api-2": ["PATH=/bin", f"A={_text(_NEW)}"]}
    assert holders(found, _OLD, _NEW) == [("api-1", "A")]
    assert holders(found, _OLD, b"") == [("api-1", "A")]


def test_all_places_are_named_sorted_and_none_of_the_values() -> None:
    held = _text(_OLD)
    found = {"api-2": [f"B={held}", f"A={held}"], "api-1": [f"C={held}", "EMPTY=", "BARE"]}
    assert holders(found, _OLD, _NEW) == [("api-1", "C"), ("api-2", "A"), ("api-2", "B")]
    assert holders({}, _OLD, _NEW) == []


def test_the_new_value_is_not_taken_for_the_old_one_that_it_contains() -> None:
    longer = _OLD + b"-2"
    for form in (_text(longer), f"http://u:{quote(_text(longer), safe='')}@h/"):
        assert holders({"api-1": [f"A={form}"]}, _OLD, longer) == []
        assert holders({"api-1": [f"A={form} and {_text(_OLD)}"]}, _OLD, longer) == [("api-1", "A")]
    assert holders({"api-1": [f"A={_text(longer)}"]}, longer, _OLD) == [("api-1", "A")]


def test_a_short_value_counts_as_a_whole_or_as_a_password_only() -> None:
    found = {"api-1": ["A=app", "B=application", "C=postgres://app:app@db/app", "D=postgres://app:other@db/app"]}
    assert holders(found, b"app", b"new") == [("api-1", "A"), ("api-1", "C")]


def test_what_is_no_url_and_no_text_harms_nothing() -> None:
    found = {"api-1": ["A=http://[::1", "B=http://u:%zz@h/", "C=\udcff\udcfe"]}
    assert holders(found, _OLD, _NEW) == []
    assert holders(found, b"\xff\xfe", _NEW) == [("api-1", "C")]


# -- variables that Compose left empty ---------------------------------------------------------------------------------


def test_empty_variables_are_found_by_their_names() -> None:
    found = {"b": ["TOKEN=", "OTHER=", "TOKENS="], "a": ["TOKEN=x", "PW="], "c": ["PATH=/bin"]}
    assert blanks(found, ["TOKEN", "PW"]) == [("a", "PW"), ("b", "TOKEN")]
    assert blanks(found, []) == []


@pytest.mark.parametrize(
    ("environment", "result", "detail"),
    [
        (["TOKEN=the-new-value"], "accepted", "1 of 1 containers have the new value, none has the old one"),
        (["TOKEN="], "accepted", "0 of 1 containers have the new value, none has the old one; TOKEN is empty in api-1"),
        (["TOKEN=", "URL=http://u:the-new-value@db"], "accepted", "1 of 1 containers have the new value"),
        (["MODE=plain"], "accepted", "0 of 1 containers have the new value, none has the old one"),
        (["TOKEN=", "URL=the-old-value"], "failed", "the old value is still there: api-1 has it in URL"),
    ],
)
def test_what_a_container_has_in_its_place_is_told(
    environment: list[str], result: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_env, "environments", lambda *_arguments: {"api-1": tuple(environment)})
    probe: dict[str, Any] = {
        "type": "container_env",
        "secret": "TOKEN",
        "version": "old",
        "service": "api",
        "project": "shop",
        "variables": ["TOKEN"],
    }
    (verdict,) = probes.run_probes([probe], lambda _name, version: f"the-{version}-value".encode())
    assert (verdict["result"], verdict["passed"]) == (result, result == "accepted")
    assert detail in verdict["detail"]
