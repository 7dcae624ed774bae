# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host makes a version, for whom it is sealed, and what every host takes from it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.plugin_utils.secret_arguments import (
    accepting,
    for_making,
    origins_of,
    recipients,
)

_STORES = [{"type": "env_file", "path": "/srv/.env"}]
_PUBLICS = {"a": "A", "b": "B", "db": "D"}


def _plan() -> dict[str, Any]:
    with_file = {"secrets": [{"name": "KEY", "stores": _STORES}], "jobs": [], "servers": []}
    return {
        "secrets": [{"name": "KEY"}],
        "origins": {"KEY": "a"},
        "hosts": {"a": with_file, "b": with_file, "db": {"secrets": [], "jobs": [{"secret": "KEY"}], "servers": []}},
        "helpers": {},
    }


@pytest.mark.parametrize("state", ["staged", "promoted"])
def test_a_host_that_holds_the_version_already_is_its_origin(state: str) -> None:
    found = {
        "a": {"secrets": {"KEY": {"versions": {"r0": {"state": "promoted"}}}}},
        "b": {"secrets": {"KEY": {"versions": {"r1": {"state": state}}}}},
    }
    assert origins_of(_plan(), "r1", found) == {"KEY": "b"}
    assert origins_of(_plan(), "r2", found) == {"KEY": "a"}


def test_the_origin_seals_to_all_that_hold_it_or_work_with_it() -> None:
    (entry,) = for_making(_plan(), "a", {"KEY": "a"}, _PUBLICS)
    assert {target["host"]: target["public"] for target in entry["seal_to"]} == _PUBLICS
    assert (entry["origin"], entry["stores"]) == (True, _STORES)
    assert entry["generate"]["length"] == 32
    assert for_making(_plan(), "b", {"KEY": "a"}, _PUBLICS) == []


def test_a_host_without_an_open_run_gets_no_box() -> None:
    found = recipients(_plan(), "KEY", {"a": "A"}, stores=True)
    assert [target["host"] for target in found] == ["a"]
    assert recipients(_plan(), "KEY", {"a": "A"}, stores=False) == []


def test_every_host_takes_the_new_version_from_its_own_box() -> None:
    secrets = [{"name": "KEY", "stores": _STORES}]
    (entry,) = accepting(secrets, {"KEY": {"new": "box", "old": "another"}, "OTHER": {"new": "x"}})
    assert entry == {"name": "KEY", "stores": _STORES, "accept": {"new": "box"}}
