# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run's account takes from the hosts: of this rotation, and not of one before it in the same call."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.plugin_utils.gather import gather

_SERVICE = {"name": "api", "wave": 0}
_NEEDED: dict[str, list[Any]] = {
    "probes": [{"type": "http"}],
    "services": [_SERVICE],
    "jwks": [{"endpoints": []}],
    "refusals": [{"type": "token"}],
    "watched": [{"type": "log"}],
}
_STEPS = ("probes", "health", "escrow", "jwks", "refusals", "watched")


def _gathered(work: dict[str, list[Any]], escrow: list[str], phases: list[str], mode: str = "rotate") -> Any:
    """What is taken of a host on which everything is registered."""
    said = {f"__rotation_{name}": {"said": name} for name in (*_STEPS, "session", "baseline")}
    said["__env_secret_verify"] = {"said": "verify"}
    plan = {
        "hosts": {"one": {"services": [], "probes": [], **work}},
        "kinds": [{"kind": "env_secret", "role": "keyturn.rotation.env_secret", "phases": phases}],
        "escrow": {"hosts": escrow},
        "strategy": "overlap",
    }
    return gather({"plan": plan, "mode": mode}, {}, {}, {"ansible_play_hosts_all": ["one"], "hostvars": {"one": said}})


def test_what_the_plan_needs_is_taken() -> None:
    run = _gathered(_NEEDED, ["one"], ["verify"])
    assert {name for name in _STEPS if run.answers[name] == {"one": {"said": name}}} == set(_STEPS)
    assert run.kinds == [("one", "verify", {"said": "verify"})]


def test_what_the_plan_does_not_need_is_of_another_rotation() -> None:
    run = _gathered({}, [], [])
    assert {name: run.answers[name] for name in _STEPS} == {name: {} for name in _STEPS}
    assert run.kinds == []
    assert run.answers["session"] == {"one": {"said": "session"}}


@pytest.mark.parametrize("name", sorted(_NEEDED))
def test_each_is_told_from_the_others(name: str) -> None:
    run = _gathered({name: _NEEDED[name]}, [], [])
    registered = {"services": "health"}.get(name, name)
    assert [one for one in _STEPS if run.answers[one]] == [registered]


@pytest.mark.parametrize(("mode", "taken"), [("retire", {"one": {"said": "refusals"}}), ("rotate", {})])
def test_what_is_refused_at_retire_is_taken_where_a_probe_asks_it(mode: str, taken: dict[str, Any]) -> None:
    run = _gathered({"probes": [{"type": "token", "refused": True}]}, [], [], mode)
    assert run.answers["refusals"] == taken
    assert _gathered({"probes": [{"type": "token"}]}, [], [], mode).answers["refusals"] == {}
