# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions of secrets on one host, through their states, there and back."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.hosts import GENERATE, NOW, Host, codes

_ENV = b"# settings\nexport KEY='old' # mine\nOTHER=x\n"
_FORMS = {
    "single": {
        "staged": b"KEY=old\n",
        "promoted": b"KEY=new\n",
        "retired": b"KEY=new\n",
        "rolled_back": b"KEY=old\n",
    },
    "list": {
        "staged": b"KEY=old,new\n",
        "promoted": b"KEY=new,old\n",
        "retired": b"KEY=new\n",
        "rolled_back": b"KEY=old\n",
    },
    "pair": {
        "staged": b"KEY=old\nKEY_PREVIOUS=new\n",
        "promoted": b"KEY=new\nKEY_PREVIOUS=old\n",
        "retired": b"KEY=new\n",
        "rolled_back": b"KEY=old\n",
    },
}


def _env(path: Path, **options: Any) -> dict[str, Any]:
    return {"type": "env_file", "path": str(path), **options}


def _key(*stores: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "KEY", "stores": list(stores), **more}


def _given(*stores: Mapping[str, Any], new: str = "new", **more: Any) -> dict[str, Any]:
    return _key(*stores, new={"value": new}, **more)


def _refusal(host: Host, state: str, *requests: Mapping[str, Any]) -> KeyturnError:
    """The error of a call, which leaves every file as it was."""
    before = host.tree()
    with pytest.raises(KeyturnError) as caught:
        host.turn(state, *requests)
    after = host.tree()
    for fence in [path for path in after if path.endswith(("/mutex", "/epochs.json"))]:
        before.pop(fence, None)
        after.pop(fence)
    assert after == before
    return caught.value


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


# -- the life of a secret, by layout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", sorted(_FORMS))
@pytest.mark.parametrize(
    "way", [("staged", "promoted", "retired"), ("staged", "rolled_back"), ("staged", "promoted", "rolled_back")]
)
def test_check_real_check_again_real_again(host: Host, layout: str, way: tuple[str, ...]) -> None:
    path = host.write(".env", b"KEY=old\n", 0o640)
    request = _given(_env(path, layout=layout))
    for state in way:
        before = host.tree()
        told = host.turn(state, request, check=True)
        assert (told["changed"], host.tree()) == (True, before)
        done = host.turn(state, request)
        assert (done["changed"], path.read_bytes()) == (True, _FORMS[layout][state])
        assert told["diff"] == done["diff"]
        assert told["secrets"] == done["secrets"]
        for check in (True, False):
            again = host.turn(state, request, check=check)
            assert (again["changed"], again["diff"]) == (False, [])
            assert again["secrets"] == done["secrets"]
        assert done["secrets"]["KEY"]["state"] == state
        assert done["loose_files"] == [str(path)]
        assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("state", "holds"), [("staged", "old"), ("promoted", "new"), ("retired", "new"), ("rolled_back", "old")]
)
@pytest.mark.parametrize("layout", sorted(_FORMS))
def test_answers_name_versions_and_fingerprints(host: Host, layout: str, state: str, holds: str) -> None:
    path = host.write(".env", b"KEY=old\n")
    request = _given(_env(path, layout=layout))
    for step in ("staged", *(["promoted"] if state in ("promoted", "retired") else []), state):
        answer = host.turn(step, request)["secrets"]["KEY"]
    marks = {"new": host.mark("KEY", b"new"), "old": host.mark("KEY", b"old")}
    assert answer == {
        "state": state,
        "had_old": True,
        "fingerprints": marks,
        "stores": [{"path": str(path), "variable": "KEY", "holds": holds}],
        "boxes": {},
    }


def test_trap_31_only_the_value_changes_and_all_comes_back(host: Host) -> None:
    path = host.write(".env", _ENV)
    request = _given(_env(path))
    host.turn("staged", request)
    assert path.read_bytes() == _ENV
    host.turn("promoted", request)
    assert path.read_bytes() == _ENV.replace(b"old", b"new")
    host.turn("rolled_back", request)
    assert path.read_bytes() == _ENV


@pytest.mark.parametrize("before", [None, b"", b"OTHER=x", b"OTHER=x\n", b"# c\r\nKEY=\r\n", b"KEY=''"])
@pytest.mark.parametrize("layout", sorted(_FORMS))
def test_first_adoption_comes_and_goes(host: Host, layout: str, before: bytes | None) -> None:
    path = host.folder / ".env"
    if before is not None:
        host.write(".env", before)
    request = _given(_env(path, layout=layout, if_missing="add"))
    staged = host.turn("staged", request)["secrets"]["KEY"]
    assert (staged["had_old"], staged["stores"][0]["holds"]) == (False, "absent")
    assert list(staged["fingerprints"]) == ["new"]
    assert host.turn("promoted", request)["secrets"]["KEY"]["stores"][0]["holds"] == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    host.turn("rolled_back", request)
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("order", [1, -1])
def test_two_adoptions_in_one_file_come_and_go(host: Host, order: int) -> None:
    path = host.write(".env", b"OTHER=x")
    requests = [{**_given(_env(path, if_missing="add")), "name": name} for name in ("ONE", "TWO")]
    for state in ("staged", "promoted"):
        host.turn(state, *requests)
    assert path.read_bytes() == b"OTHER=x\nONE=new\nTWO=new\n"
    for request in requests[::order]:
        host.turn("rolled_back", request)
    assert path.read_bytes() == b"OTHER=x"


@pytest.mark.parametrize(("before", "after"), [(b"old", b"new"), (b"old\n", b"new\n"), (b"old\r\n", b"new\r\n")])
def test_plain_files_keep_their_line_end(host: Host, before: bytes, after: bytes) -> None:
    path = host.write("key", before)
    request = _given({"type": "file", "path": str(path)})
    host.turn("staged", request)
    assert host.version("KEY", "old") == b"old"
    host.turn("promoted", request)
    assert path.read_bytes() == after
    host.turn("rolled_back", request)
    assert path.read_bytes() == before


def test_plain_files_as_told(host: Host) -> None:
    ended = host.write("ended", b"old")
    exact = host.write("exact", b"old")
    made = host.folder / "made"
    stores: list[dict[str, Any]] = [
        {"type": "file", "path": str(ended), "newline": True},
        {"type": "file", "path": str(exact), "newline": False},
        {"type": "file", "path": str(made), "if_missing": "add"},
    ]
    host.turn("staged", _given(*stores))
    host.turn("promoted", _given(*stores))
    assert [path.read_bytes() for path in (ended, exact, made)] == [b"new\n", b"new", b"new"]
    assert made.stat().st_mode & 0o777 == 0o600
    host.turn("rolled_back", _given(*stores))
    assert [ended.read_bytes(), exact.read_bytes(), made.exists()] == [b"old", b"old", False]


def test_several_stores_change_together(host: Host) -> None:
    one, two = host.write("one.env", b"KEY=old\n"), host.write("two.env", b"URL_KEY='old'\n")
    request = _given(_env(one), _env(two, variable="URL_KEY", layout="list", separator=" "))
    host.turn("staged", request)
    assert (one.read_bytes(), two.read_bytes()) == (b"KEY=old\n", b"URL_KEY='old new'\n")
    host.turn("promoted", request)
    assert (one.read_bytes(), two.read_bytes()) == (b"KEY=new\n", b"URL_KEY='new old'\n")


# -- versions on the disk ---------------------------------------------------------------------------------------------


def test_trap_07_the_same_rotation_has_the_same_value(host: Host) -> None:
    request = _key(origin=True, generate=GENERATE)
    host.turn("staged", request)
    value = host.version("KEY", "new")
    assert value is not None
    assert len(value) == 43
    host.turn("staged", {**request, "generate": {**GENERATE, "length": 64}})
    assert host.version("KEY", "new") == value
    (host.state_dir / "secrets/KEY/r1/meta.json").unlink()  # the machine stopped before the metadata was written
    assert host.turn("staged", request)["changed"]
    assert host.version("KEY", "new") == value


def test_trap_01_versions_are_on_the_disk_before_a_store_uses_them(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = host.write(".env", b"KEY=old\n")
    events: list[tuple[str, str]] = []
    real_rename, real_fsync = os.rename, os.fsync

    def rename(source: str, target: str) -> None:
        events.append(("rename", os.path.basename(target)))
        real_rename(source, target)

    def fsync(handle: int) -> None:
        events.append(("fsync", ""))
        real_fsync(handle)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "fsync", fsync)
    host.turn("staged", _given(_env(path, layout="list")))
    renames = [name for event, name in events if event == "rename" and name != "epochs.json"]
    assert renames == ["new", "old", "meta.json", ".env"]
    for before, after in itertools.pairwise(
        index for index, event in enumerate(events) if event[1] in ("old", "meta.json", ".env")
    ):
        assert ("fsync", "") in events[before:after]


def test_trap_27_versions_are_private(host: Host) -> None:
    host.turn("staged", _given(_env(host.write(".env", b"KEY=old\n", 0o644))))
    folder = host.state_dir / "secrets/KEY/r1"
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "new", "old"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent, folder.parent.parent)} == {0o700}
    meta = json.loads((folder / "meta.json").read_text())
    assert (meta["schema_version"], meta["state"], meta["made_at"]) == (1, "staged", "2026-11-21T12:30:15.000000+00:00")


def test_trap_49_retiring_forgets_all_values_of_the_secret(host: Host) -> None:
    path = host.write(".env", b"KEY=value-0\n")
    for number in (1, 2, 3):
        turned = host.rotation(f"r{number}")
        request = _given(_env(path, layout="pair"), new=f"value-{number}")
        for state in ("staged", "promoted", "retired") if number == 3 else ("staged", "promoted", "rolled_back"):
            turned.turn(state, request, now=NOW + timedelta(hours=number))
    left = b"".join(content for name, content in host.tree().items() if "/secrets/" in name)
    assert b"value-" not in left
    versions = host.look(_key(_env(path)))["secrets"]["KEY"]["versions"]
    assert {name: version["state"] for name, version in versions.items()} == {
        "r1": "rolled_back",
        "r2": "rolled_back",
        "r3": "retired",
    }
    assert versions["r3"]["fingerprints"]["new"] == host.mark("KEY", b"value-3")
    assert path.read_bytes() == b"KEY=value-3\n"


def test_a_retire_that_stopped_before_the_values_were_gone_is_finished(host: Host) -> None:
    request = _given(_env(host.write(".env", b"KEY=old\n")))
    for state in ("staged", "promoted", "retired"):
        host.turn(state, request)
    host.write("state/secrets/KEY/r1/old", b"old")
    assert host.turn("retired", request, check=True)["changed"]
    assert host.turn("retired", request)["changed"]
    assert host.version("KEY", "old") is None


# -- moving a value ---------------------------------------------------------------------------------------------------


def test_boxes_bring_both_versions_to_another_host(tmp_path: Path) -> None:
    one, two = Host(tmp_path / "one"), Host(tmp_path / "two")
    first, second = one.write(".env", b"KEY=old\n"), two.write(".env", b"KEY=old\n")
    made = one.turn("staged", _key(_env(first), origin=True, generate=GENERATE, seal_to=[two.target("two")]))
    boxes = made["secrets"]["KEY"]["boxes"]["two"]
    assert sorted(boxes) == ["new", "old"]
    taken = two.turn("staged", _key(_env(second), accept=boxes))
    assert two.version("KEY", "new") == one.version("KEY", "new")
    assert taken["secrets"]["KEY"]["fingerprints"] == made["secrets"]["KEY"]["fingerprints"]
    with pytest.raises(KeyturnError, match="does not open on this host"):
        one.rotation("r2").turn("staged", _key(accept=boxes))


def test_a_host_without_stores_keeps_the_versions(host: Host) -> None:
    request = _key(accept={"new": host.box(b"new", "KEY", "new"), "old": host.box(b"old", "KEY", "old")})
    for state in ("staged", "promoted"):
        answer = host.turn(state, request)["secrets"]["KEY"]
        assert (answer["state"], answer["stores"], answer["had_old"]) == (state, [], True)
    assert (host.version("KEY", "new"), host.version("KEY", "old")) == (b"new", b"old")
    host.turn("retired", request)
    assert host.version("KEY", "new") is None


def test_staging_what_is_promoted_changes_nothing_and_still_seals(host: Host) -> None:
    path = host.write(".env", b"KEY=old\n")
    request = _given(_env(path, layout="list"))
    for state in ("staged", "promoted"):
        host.turn(state, request)
    answer = host.turn("staged", {**request, "seal_to": [host.target("me", "old")]})
    assert (answer["changed"], path.read_bytes()) == (False, b"KEY=new,old\n")
    told = answer["secrets"]["KEY"]
    assert (told["state"], told["fingerprints"]["new"]) == ("promoted", host.mark("KEY", b"new"))
    assert (
        sealed.open_box(told["boxes"]["me"]["old"], (host.state_dir / "host/session-r1.key").read_bytes(), "r1/KEY/old")
        == b"old"
    )


def test_no_box_for_a_version_that_does_not_exist(host: Host) -> None:
    boxes = host.turn("staged", _given(seal_to=[host.target("me")]))["secrets"]["KEY"]["boxes"]
    assert sorted(boxes["me"]) == ["new"]


def test_another_value_for_a_staged_rotation_is_refused(host: Host) -> None:
    host.turn("staged", _given())
    error = _refusal(host, "staged", _key(accept={"new": host.box(b"other", "KEY", "new")}))
    assert error.code == "version-differs"


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_promoting_what_was_not_staged_is_refused(host: Host) -> None:
    path = host.write(".env", b"KEY=old\n")
    error = _refusal(host, "promoted", _key(_env(path)))
    assert (error.code, error.hint) == ("not-staged", "Run the rotation from the start")
    host.turn("staged", _given(_env(path)))
    assert _refusal(host.rotation("r2"), "promoted", _key(_env(path))).code == "not-staged"


def test_rolling_back_what_was_not_staged_is_no_change(host: Host) -> None:
    path = host.write(".env", b"KEY=old\n")
    answer = host.turn("rolled_back", _key(_env(path)))
    assert (answer["changed"], answer["secrets"]["KEY"]["state"]) == (False, "")


@pytest.mark.parametrize("is_link", [False, True])
def test_rolling_back_what_was_not_staged_needs_no_store(host: Host, is_link: bool) -> None:
    path = host.folder / ".env"
    if is_link:
        path.symlink_to(host.write("elsewhere", b"KEY=old\n"))
    other = host.write("other.env", b"OTHER=old\n")
    host.turn("staged", {"name": "OTHER", "stores": [_env(other)], "new": {"value": "new"}})
    host.turn("promoted", {"name": "OTHER", "stores": [_env(other)]})
    answer = host.turn("rolled_back", _key(_env(path)), {"name": "OTHER", "stores": [_env(other)]})
    assert answer["secrets"]["KEY"]["stores"] == [{"path": str(path), "variable": "KEY", "holds": "unknown"}]
    assert (answer["secrets"]["OTHER"]["state"], other.read_bytes()) == ("rolled_back", b"OTHER=old\n")


@pytest.mark.parametrize(
    ("before", "state"), [("staged", "retired"), ("retired", "rolled_back"), ("rolled_back", "promoted")]
)
def test_illegal_transitions_name_the_legal_ones(host: Host, before: str, state: str) -> None:
    request = _given(_env(host.write(".env", b"KEY=old\n")))
    for step in dict.fromkeys(("staged", *(["promoted"] if before == "retired" else []), before)):
        host.turn(step, request)
    error = _refusal(host, state, request)
    assert error.code == "transition-illegal"
    assert "legal: " in error.message


@pytest.mark.parametrize("state", ["promoted", "rolled_back"])
def test_trap_39_a_store_that_somebody_edited_is_refused(host: Host, state: str) -> None:
    path = host.write(".env", b"KEY=old\n")
    host.turn("staged", _given(_env(path)))
    path.write_bytes(b"KEY=edited\n")
    error = _refusal(host, state, _key(_env(path)))
    assert (error.code, error.where) == ("store-drifted", str(path))
    kept = host.state_dir / "secrets/KEY/r1"
    assert f"the old or the new value of KEY (here: {kept}/old, {kept}/new)" in error.hint
    assert error.hint.endswith("changed nothing on this host")
    assert host.mark("KEY", b"edited") in error.message
    assert "edited" not in str(error).replace("somebody changed", "")


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist, so KEY"), (b"A=1\n", "KEY is not set, so KEY")])
def test_a_store_that_is_lost_on_the_way_back_is_to_be_put_back_by_hand(
    host: Host, content: bytes | None, words: str
) -> None:
    path = host.write(".env", b"KEY=old\n")
    for state in ("staged", "promoted"):
        host.turn(state, _given(_env(path)))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    error = _refusal(host, "rolled_back", _key(_env(path)))
    assert (error.code, error.where, error.message.startswith(words)) == ("store-lost", str(path), True)
    assert str(host.state_dir / "secrets/KEY/r1/old") in error.hint
    assert error.hint.endswith("ansible-playbook keyturn.rotation.rollback -e keyturn_only=KEY")
    assert "if_missing" not in str(error)
    path.write_bytes(b"KEY=new\n")
    host.turn("rolled_back", _key(_env(path)))
    assert path.read_bytes() == b"KEY=old\n"


def test_trap_39_an_old_value_that_came_back_is_not_retired(host: Host) -> None:
    path = host.write(".env", b"KEY=old\n")
    for state in ("staged", "promoted"):
        host.turn(state, _given(_env(path)))
    path.write_bytes(b"KEY=old\n")
    error = _refusal(host, "retired", _key(_env(path)))
    kept = host.state_dir / "secrets/KEY/r1"
    assert error.code == "store-drifted"
    assert error.hint == f"Put the new value of KEY (here: {kept}/new) there; this step changed nothing on this host"
    assert host.turn("promoted", _key(_env(path)))["changed"]
    assert path.read_bytes() == b"KEY=new\n"


def test_stores_that_disagree_are_named_by_fingerprint(host: Host) -> None:
    one, two = host.write("one.env", b"KEY=first\n"), host.write("two.env", b"KEY=second\n")
    error = _refusal(host, "staged", _given(_env(one), _env(two)))
    assert error.code == "stores-disagree"
    for path, value in ((one, b"first"), (two, b"second")):
        assert f"{path} KEY ({host.mark('KEY', value)})" in error.message
        assert value.decode() not in str(error)


@pytest.mark.parametrize("source", ["stores", "named"])
def test_a_value_that_does_not_change_is_refused(host: Host, source: str) -> None:
    path = host.write(".env", b"KEY=same\n")
    request = _given(_env(path), new="same") if source == "stores" else _given(new="same", old={"value": "same"})
    assert _refusal(host, "staged", request).code == "value-unchanged"


@pytest.mark.parametrize("value", ["two\nlines", "both ' and \""])
def test_a_value_that_a_store_cannot_hold_is_refused_before_any_data_moves(host: Host, value: str) -> None:
    plain, env = host.write("key", b"old"), host.write(".env", b"KEY=old\n")
    request = _given({"type": "file", "path": str(plain)}, _env(env), new=value)
    refusal = _refusal(host, "staged", request)
    assert (refusal.code, refusal.where) == ("value-unwritable", str(env))
    assert value not in str(refusal)
    host.turn("staged", _given({"type": "file", "path": str(plain)}, new=value))


def test_an_old_value_that_is_named_must_be_in_the_stores(host: Host) -> None:
    path = host.write(".env", b"KEY=third\n")
    assert _refusal(host, "staged", _given(_env(path), old={"value": "old"})).code == "store-drifted"


def test_a_store_that_has_the_new_value_already_is_taken_and_can_go_back(host: Host) -> None:
    path = host.write(".env", b"KEY=new\n")
    request = _given(_env(path), old={"value": "old"})
    staged = host.turn("staged", request)
    assert (staged["secrets"]["KEY"]["stores"][0]["holds"], path.read_bytes()) == ("new", b"KEY=new\n")
    host.turn("promoted", request)
    host.turn("rolled_back", request)
    assert path.read_bytes() == b"KEY=old\n"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "env-file-missing"),
        (b"OTHER=1\n", "variable-missing"),
        (b"KEY\n", "variable-missing"),
        (b"KEY=1\nKEY=2\n", "variable-duplicate"),
        (b"KEY=${OTHER}\n", "variable-interpolated"),
        (b"KEY='open\n", "env-file-invalid"),
    ],
)
def test_trap_31_env_files_that_are_refused(host: Host, content: bytes | None, code: str) -> None:
    path = host.folder / ".env"
    if content is not None:
        host.write(".env", content)
    error = _refusal(host, "staged", _given(_env(path)))
    assert (error.code, error.where) == (code, str(path))


@pytest.mark.parametrize("kind", ["env_file", "file"])
def test_links_and_folders_are_refused(host: Host, kind: str) -> None:
    host.write("real", b"KEY=old\n")
    (host.folder / "link").symlink_to("real")
    (host.folder / "folder").mkdir()
    for name in ("link", "folder"):
        error = _refusal(host, "staged", _given({"type": kind, "path": str(host.folder / name)}))
        assert (error.code, error.where) == ("file-unsafe", str(host.folder / name))


@pytest.mark.parametrize(
    ("requests", "code"),
    [
        ([_given(), _given()], "secret-twice"),
        ([_given({"type": "env_file", "path": "relative"})], "store-invalid"),
        ([_given({"type": "env_file", "path": "/srv/../etc/x"})], "store-invalid"),
        ([_given({"type": "file", "path": "/srv/x", "layout": "pair"})], "store-invalid"),
        (
            [
                _given({"type": "env_file", "path": "/srv/x"}),
                {**_given({"type": "env_file", "path": "/srv/x", "variable": "KEY"}), "name": "B"},
            ],
            "store-twice",
        ),
        ([{**_given(), "name": "../up"}], "name-invalid"),
        ([_key()], "value-missing"),
        ([_key(new={"value": "x", "file": "/x"})], "reference-invalid"),
        ([_key(new={"value": ""})], "value-empty"),
    ],
)
def test_calls_that_make_no_sense_are_refused(host: Host, requests: list[dict[str, Any]], code: str) -> None:
    assert _refusal(host, "staged", *requests).code == code


def test_a_store_added_after_staging_is_refused(host: Host) -> None:
    one, two = host.write("one.env", b"KEY=old\n"), host.write("two.env", b"KEY=old\n")
    host.turn("staged", _given(_env(one)))
    assert _refusal(host, "promoted", _given(_env(one), _env(two))).code == "store-not-staged"
    host.turn("staged", _given(_env(one), _env(two)))
    host.turn("promoted", _given(_env(one), _env(two)))
    assert two.read_bytes() == b"KEY=new\n"


def test_without_a_rotation_nothing_is_turned(tmp_path: Path) -> None:
    assert _refusal(Host(tmp_path, ""), "staged", _given()).code == "rotation-missing"


def test_a_run_that_was_taken_over_is_refused(tmp_path: Path) -> None:
    path = Host(tmp_path).write(".env", b"KEY=old\n")
    Host(tmp_path, epoch=5).turn("staged", _given(_env(path)))
    assert _refusal(Host(tmp_path, epoch=4), "promoted", _given(_env(path))).code == "fenced"
    assert path.read_bytes() == b"KEY=old\n"


def test_state_of_a_later_release_is_refused(host: Host) -> None:
    host.turn("staged", _given())
    meta = host.state_dir / "secrets/KEY/r1/meta.json"
    meta.write_text(meta.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    assert _refusal(host, "promoted", _key()).code == "state-invalid"


# -- all or none ------------------------------------------------------------------------------------------------------


def test_one_bad_secret_stops_all(host: Host) -> None:
    path = host.write(".env", b"KEY=old\nBAD=1\nBAD=2\n")
    bad = {**_given(_env(path)), "name": "BAD"}
    assert _refusal(host, "staged", _given(_env(path)), bad).code == "variable-duplicate"
    assert not (host.state_dir / "secrets").exists()


def _two_files(host: Host) -> tuple[Path, Path, dict[str, Any]]:
    one, two = host.write("one/.env", b"KEY=old\n"), host.write("two/.env", b"KEY=old\n")
    request = _given(_env(one), _env(two))
    host.turn("staged", request)
    return one, two, request


def test_a_rename_that_fails_in_the_middle_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, request = _two_files(host)
    real = os.rename

    def rename(source: str, target: str) -> None:
        if target == str(two):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    error = _refusal(host, "promoted", request)
    assert (error.code, "No space left on device" in error.message) == ("write-failed", True)
    assert sorted(path.name for path in two.parent.iterdir()) == [".env"], "no temporary file is left"
    monkeypatch.undo()
    host.turn("promoted", request)
    assert (one.read_bytes(), two.read_bytes()) == (b"KEY=new\n", b"KEY=new\n")


def test_a_change_that_can_go_neither_way_is_told_truthfully(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, request = _two_files(host)
    real, seen = os.rename, []

    def rename(source: str, target: str) -> None:
        if target.endswith("/.env"):
            seen.append(target)
            if len(seen) > 1:
                raise OSError(30, "Read-only file system")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyturnError) as caught:
        host.turn("promoted", request)
    assert (caught.value.code, str(one) in caught.value.message) == ("write-torn", True)
    assert (one.read_bytes(), two.read_bytes()) == (b"KEY=new\n", b"KEY=old\n")
    monkeypatch.undo()
    host.turn("promoted", request)
    assert two.read_bytes() == b"KEY=new\n"


_KILLED = """
import os, sys
from pathlib import Path
from tests.support.hosts import Host
sys.argv.pop(0)
folder, state, stop = Path(sys.argv[0]), sys.argv[1], int(sys.argv[2])
real, count = os.rename, 0
def rename(source, target):
    global count
    count += 1
    if count == stop:
        os._exit(137)
    real(source, target)
host = Host(folder)
os.rename = rename
stores = [{"type": "env_file", "path": str(folder / name), "layout": "pair"} for name in ("one/.env", "two/.env")]
host.turn(state, {"name": "KEY", "stores": stores, "new": {"value": "new"}})
"""
_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("state", ["staged", "promoted", "retired", "rolled_back"])
@pytest.mark.parametrize("stop", range(1, 7))
def test_a_kill_anywhere_is_finished_by_the_same_call(host: Host, state: str, stop: int) -> None:
    paths = [host.write(name, b"KEY=old\n") for name in ("one/.env", "two/.env")]
    request = _given(*(_env(path, layout="pair") for path in paths))
    for step in {"staged": (), "promoted": ("staged",)}.get(state, ("staged", "promoted")):
        host.turn(step, request)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(host.folder), state, str(stop)],
        env={**os.environ, "PYTHONPATH": f"{_ROOT / '.build'}:{_ROOT}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 137), done.stderr
    host.turn(state, request)
    assert [path.read_bytes() for path in paths] == [_FORMS["pair"][state]] * 2
    assert host.turn(state, request)["changed"] is False
    if state == "staged":
        assert host.version("KEY", "new") == b"new"


def test_a_file_edited_meanwhile_is_not_overwritten(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = host.write(".env", b"KEY=old\n")
    request = _given(_env(path, layout="list"))
    real = os.rename

    def rename(source: str, target: str) -> None:
        if target.endswith("meta.json"):
            path.write_bytes(b"KEY=old\nMORE=1\n")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyturnError) as caught:
        host.turn("staged", request)
    assert (caught.value.code, path.read_bytes()) == ("file-changed", b"KEY=old\nMORE=1\n")
    monkeypatch.undo()
    host.turn("staged", request)
    assert path.read_bytes() == b"KEY=old,new\nMORE=1\n"


# -- what is told -----------------------------------------------------------------------------------------------------


def test_diffs_show_fingerprints_only(host: Host) -> None:
    path = host.write(".env", b"KEY=old\nOTHER=canary\n")
    host.turn("staged", _given(_env(path, layout="list")))
    diff = host.turn("promoted", _given(_env(path, layout="list")), check=True)["diff"]
    old, new = f"<old {host.mark('KEY', b'old')}>", f"<new {host.mark('KEY', b'new')}>"
    assert diff == [
        {
            "before_header": str(path),
            "after_header": str(path),
            "before": f"KEY={old},{new}\n",
            "after": f"KEY={new},{old}\n",
        }
    ]


def test_diffs_without_a_fingerprint_key_say_redacted(tmp_path: Path) -> None:
    host = Host(tmp_path, marks=False)
    path = host.write(".env", b"KEY=old\n")
    host.turn("staged", _given(_env(path)))
    done = host.turn("promoted", _given(_env(path)))
    assert (done["diff"][0]["before"], done["diff"][0]["after"]) == ("KEY=<redacted old>\n", "KEY=<redacted new>\n")
    assert done["secrets"]["KEY"]["fingerprints"] == {"new": "", "old": ""}
    host.turn("retired", _given(_env(path)))
    answer = host.turn("retired", _given(_env(path)))
    assert answer["secrets"]["KEY"]["stores"][0]["holds"] == "unknown"


def test_no_value_is_in_any_answer(host: Host) -> None:
    path = host.write(".env", b"KEY=canary-one\n")
    request = _given(_env(path, layout="pair"), new="canary-two", seal_to=[host.target("me")])
    for state in ("staged", "promoted", "retired"):
        answer = json.dumps([host.turn(state, request), host.look(_key(_env(path)))])
        assert "canary" not in answer


def test_info_lists_all_problems_at_once(host: Host) -> None:
    good, twice = host.write("good.env", b"KEY=old\n", 0o640), host.write("twice.env", b"B=1\nB=2\n")
    missing = host.folder / "missing.env"
    before = host.tree()
    found = host.look(
        _key(_env(good), _env(missing)),
        {"name": "B", "stores": [_env(twice)]},
        {"name": "../up", "stores": []},
        {"name": "C", "stores": [_env(good, variable="KEY")]},
    )
    assert codes(found["problems"]) == ["env-file-missing", "variable-duplicate", "name-invalid", "store-twice"]
    assert found["problems"][0]["where"] == str(missing)
    assert found["secrets"]["KEY"]["stores"] == [
        {
            "path": str(good),
            "variable": "KEY",
            "present": True,
            "fingerprint": host.mark("KEY", b"old"),
            "holds": "unknown",
        },
        {"path": str(missing), "variable": "KEY", "present": False, "fingerprint": "", "holds": "unknown"},
    ]
    assert (found["changed"], found["loose_files"], host.tree()) == (False, [str(good)], before)


def test_info_finds_stores_that_disagree(host: Host) -> None:
    one, two = host.write("one.env", b"KEY=first\n"), host.write("two.env", b"KEY=second\n")
    found = host.look(_key(_env(one), _env(two)))
    assert codes(found["problems"]) == ["stores-disagree"]
    assert found["secrets"]["KEY"]["boxes"] == {}


def test_info_shows_versions_and_seals_what_is_present(host: Host) -> None:
    path = host.write(".env", b"KEY=old\n")
    key = (host.state_dir / "host/session-r1.key").read_bytes()
    request = _given(_env(path), seal_to=[host.target("me")])
    boxes = host.look(request)["secrets"]["KEY"]["boxes"]["me"]
    assert {part: sealed.open_box(box, key, f"r1/KEY/{part}") for part, box in boxes.items()} == {"old": b"old"}
    host.turn("staged", request)
    found = host.look(request)["secrets"]["KEY"]
    opened = {part: sealed.open_box(box, key, f"r1/KEY/{part}") for part, box in found["boxes"]["me"].items()}
    assert opened == {"new": b"new", "old": b"old"}
    assert found["stores"][0]["holds"] == "old"
    assert found["versions"]["r1"]["state"] == "staged"
