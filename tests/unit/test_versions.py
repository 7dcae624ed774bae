# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions folder and the rules of its states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import (
    STATES,
    Version,
    Versions,
    moves,
    save_all,
)
from hypothesis import given
from hypothesis import strategies as st


def _version(originals: tuple[dict[str, Any], ...] = ()) -> Version:
    return Version("KEY", "r1", "staged", "2026-11-21T00:00:00+00:00", True, b"new", b"\x00old\n", originals)


@pytest.mark.parametrize("state", STATES)
def test_the_same_state_again_is_no_move(state: str) -> None:
    assert moves(state, state) is False


@given(st.lists(st.sampled_from(STATES), max_size=12))
def test_nothing_is_ever_demoted(asked: list[str]) -> None:
    rank = {None: 0, "staged": 1, "promoted": 2, "retired": 3, "rolled_back": 3}
    current: str | None = None
    for state in asked:
        try:
            moved = moves(current, state, "KEY")
        except KeyturnError:
            continue
        if moved:
            assert rank[state] > rank[current]
            assert current not in ("retired", "rolled_back")
            current = state


@pytest.mark.parametrize("wanted", ["promoted", "retired"])
def test_what_was_never_staged_is_refused(wanted: str) -> None:
    with pytest.raises(KeyturnError, match="Run the rotation from the start") as caught:
        moves(None, wanted)
    assert caught.value.code == "not-staged"


def test_versions_come_back_as_they_were_saved(tmp_path: Path) -> None:
    record = {"path": "/srv/.env", "variable": "KEY", "slots": {"KEY": "\udcff"}}
    version = _version((record,))
    assert len(save_all(str(tmp_path), [version])) == 3
    assert save_all(str(tmp_path), [version]) == []
    versions = Versions(str(tmp_path), "KEY")
    loaded = versions.load("r1")
    assert loaded == version
    assert loaded is not None
    assert loaded.original("/srv/.env", "KEY") == record
    assert loaded.original("/srv/.env", "OTHER") is None
    assert versions.load("r2") is None


def test_forgetting_removes_values_and_keeps_metadata(tmp_path: Path) -> None:
    save_all(str(tmp_path), [_version()])
    versions = Versions(str(tmp_path), "KEY")
    assert [versions.forget("r1"), versions.forget("r1")] == [True, False]
    assert [path.name for path in (tmp_path / "secrets/KEY/r1").iterdir()] == ["meta.json"]
    loaded = versions.load("r1")
    assert loaded is not None
    with pytest.raises(KeyturnError) as caught:
        loaded.value()
    assert caught.value.code == "version-missing"


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 9}', "[]"])
def test_metadata_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    save_all(str(tmp_path), [_version()])
    meta = tmp_path / "secrets/KEY/r1/meta.json"
    meta.write_text(content)
    with pytest.raises(KeyturnError) as caught:
        Versions(str(tmp_path), "KEY").load("r1")
    assert (caught.value.code, caught.value.where) == ("state-invalid", str(meta))


@pytest.mark.parametrize("name", ["../up", "", "a/b", ".hidden"])
def test_trap_33_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        Versions(str(tmp_path), name)
    assert caught.value.code == "name-invalid"
    with pytest.raises(KeyturnError):
        Versions(str(tmp_path), "KEY").load(name)


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "secrets/KEY").mkdir(parents=True)
    (tmp_path / "secrets/KEY/r1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyturnError) as caught:
        save_all(str(tmp_path), [_version()])
    assert caught.value.code == "dir-unsafe"
    assert list((tmp_path / "elsewhere").iterdir()) == []
