# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key of a keyset through its states, there and back: in a file, in two variables, behind commands."""

from __future__ import annotations

import functools
import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.forms import parse_document
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.dotenv import parse
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import LAST_GOOD

from tests.support.hosts import GENERATE, Host, codes
from tests.support.kms import BESIDE, Kms

NAME = "JWT_KEYSET"
OLD, NEW, OTHER = "canary-old-7gT2bN4xQ9", "canary-new-3kV8mW1zR6", "canary-else-5pD0cL7yH2"
KIDS = ("k1", "20261121T123015Z", "k0")
_BEFORE = json.dumps({"note": "ours", "active_kid": "k1", "keys": {"k0": OTHER, "k1": OLD}}, indent=2) + "\n"

Content = tuple[str, dict[str, str]]


class _Place:
    """One keyset on a host, in one of the three forms."""

    def __init__(self, host: Host, form: str) -> None:
        self.host, self.form = host, form
        self.kms = Kms(host.folder / "kms", {"k0": OTHER, "k1": OLD}, "k1")
        self.file = host.write("jwt-keyset.json", _BEFORE.encode())
        self.env = host.write(".env", f"# ours\nexport KEYS='k0:{OTHER},k1:{OLD}' # keys\nA=1\nACTIVE=k1\n".encode())
        self.start = self.bytes()

    @property
    def store(self) -> dict[str, Any]:
        if self.form == "command":
            return self.kms.store()
        if self.form == "file":
            return {"type": "file", "path": str(self.file), "layout": "keyset"}
        shape = {"layout": "keyset", "variable": "KEYS", "active_variable": "ACTIVE"}
        return {"type": "env_file", "path": str(self.env), **shape}

    def bytes(self) -> bytes:
        return {"command": self.kms.file, "file": self.file, "env": self.env}[self.form].read_bytes()

    def content(self) -> Content:
        if self.form == "env":
            found = {line.name: line.value or "" for line in parse(self.bytes()).lines}
            return found["ACTIVE"], dict(part.split(":", 1) for part in found["KEYS"].split(","))
        keyset = parse_document(self.bytes(), "f")
        return keyset.active, dict(keyset.keys)


def _key(place: _Place, **more: Any) -> dict[str, Any]:
    return {"name": NAME, "stores": [place.store], **more}


def _given(place: _Place, **more: Any) -> dict[str, Any]:
    return _key(place, new={"value": NEW}, **more)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


@pytest.fixture(params=["file", "env", "command"])
def place(host: Host, request: pytest.FixtureRequest) -> _Place:
    return _Place(host, request.param)


_BOTH = {"k0": OTHER, "k1": OLD, KIDS[1]: NEW}


def test_both_keys_are_in_then_the_active_one_moves_then_the_old_one_goes(place: _Place) -> None:
    host = place.host
    host.turn("staged", _given(place))
    assert place.content() == ("k1", _BOTH)
    host.turn("promoted", _key(place))
    assert place.content() == (KIDS[1], _BOTH)
    gone = {"k0": OTHER, KIDS[1]: NEW}
    host.turn("withdrawn", _key(place))
    assert place.content() == (KIDS[1], gone)
    assert Entry.decode(host.version(NAME, "old") or b"") == Entry("k1", OLD)
    done = host.turn("retired", _key(place))
    assert place.content() == (KIDS[1], gone)
    assert host.version(NAME, "old") is host.version(NAME, "new") is None
    assert done["secrets"][NAME]["state"] == "retired"
    assert done["secrets"][NAME]["stores"][0]["holds"] == "new"


@pytest.mark.parametrize("path", [("staged",), ("staged", "promoted"), ("staged", "promoted", "withdrawn")])
def test_trap_37_going_back_leaves_what_was_there(place: _Place, path: tuple[str, ...]) -> None:
    for state in path:
        place.host.turn(state, _given(place))
    place.host.turn("rolled_back", _key(place))
    if place.form == "command":
        assert place.content() == ("k1", {"k0": OTHER, "k1": OLD})
    else:
        assert place.bytes() == place.start
    assert not Path(f"{place.file}{LAST_GOOD}").exists()


def test_trap_36_the_same_call_again_changes_nothing(place: _Place) -> None:
    for state in ("staged", "promoted", "withdrawn", "retired"):
        first = place.host.turn(state, _given(place))
        assert place.host.turn(state, _given(place), check=True)["changed"] is False
        before = place.host.tree()
        again = place.host.turn(state, _given(place))
        assert (first["changed"], again["changed"]) == (True, False)
        assert place.host.tree() == before
    looked = place.host.look(_key(place))
    assert looked["problems"] == []


def test_check_mode_says_what_would_change_and_changes_nothing(place: _Place) -> None:
    before = place.bytes()
    said = place.host.turn("staged", _given(place), check=True)
    assert said["changed"] is True
    assert place.bytes() == before
    assert place.kms.calls == []
    text = said["diff"][0]["before"] + said["diff"][0]["after"]
    assert "active_kid=k1" in text
    assert KIDS[1] in said["diff"][0]["after"]
    assert not [canary for canary in (OLD, NEW, OTHER) if canary in text]


@pytest.mark.parametrize(("state", "code"), [("withdrawn", "not-staged"), ("promoted", "not-staged")])
def test_no_step_is_left_out(place: _Place, state: str, code: str) -> None:
    with pytest.raises(KeyturnError) as raised:
        place.host.turn(state, _key(place))
    assert raised.value.code == code
    place.host.turn("staged", _given(place))
    with pytest.raises(KeyturnError) as raised:
        place.host.turn("withdrawn", _key(place))
    assert raised.value.code == "transition-illegal"


def test_what_somebody_changed_meanwhile_is_not_overwritten(host: Host) -> None:
    place = _Place(host, "file")
    host.turn("staged", _given(place))
    place.file.write_text(place.file.read_text().replace(OLD, OTHER))
    with pytest.raises(KeyturnError) as raised:
        host.turn("promoted", _key(place))
    assert raised.value.code == "store-drifted"
    assert OTHER not in str(raised.value)


def test_another_style_of_the_same_keyset_is_no_drift(host: Host) -> None:
    place = _Place(host, "file")
    host.turn("staged", _given(place))
    place.file.write_text(json.dumps(json.loads(place.file.read_text()), indent=7))
    host.turn("promoted", _key(place))
    assert place.content() == (KIDS[1], _BOTH)


def test_hosts_get_the_same_key_under_the_same_kid(tmp_path: Path) -> None:
    one, two = (_Place(Host(tmp_path / name), form) for name, form in (("one", "file"), ("two", "env")))
    made = one.host.turn(
        "staged", _key(one, origin=True, generate=GENERATE, kid="%Y-%m", seal_to=[two.host.target("two")])
    )
    box = made["secrets"][NAME]["boxes"]["two"]["new"]
    taken = two.host.turn("staged", _key(two, accept={"new": box}))
    assert made["secrets"][NAME]["fingerprints"] == taken["secrets"][NAME]["fingerprints"]
    assert one.content() == two.content()
    assert "2026-11" in one.content()[1]
    looks = [place.host.look(_key(place))["secrets"][NAME]["stores"][0]["keyset"] for place in (one, two)]
    assert looks[0] == looks[1]
    assert looks[0]["fingerprint"]


def test_a_kid_of_ones_own_comes_with_its_key(host: Host) -> None:
    place = _Place(host, "file")
    given = host.write("new", json.dumps({"kid": "k2", "key": NEW}).encode() + b"\n")
    host.turn("staged", _key(place, new={"file": str(given)}))
    assert place.content() == ("k1", {"k0": OTHER, "k1": OLD, "k2": NEW})


def test_trap_33_a_kid_that_is_taken_is_refused(place: _Place) -> None:
    value = json.dumps({"kid": "k0", "key": NEW})
    before = place.bytes()
    with pytest.raises(KeyturnError) as raised:
        place.host.turn("staged", _key(place, new={"value": value}))
    assert raised.value.code == "kid-taken"
    assert not [canary for canary in (NEW, OTHER) if canary in str(raised.value)]
    assert place.bytes() == before


def test_the_first_key_of_all_is_made_where_the_catalog_says_so(host: Host) -> None:
    path = host.folder / "first.json"
    store = {"type": "file", "path": str(path), "layout": "keyset", "if_missing": "add"}
    request = {"name": NAME, "stores": [store], "new": {"value": NEW}}
    host.turn("staged", request)
    assert not path.exists()
    host.turn("promoted", request)
    assert json.loads(path.read_text()) == {"active_kid": KIDS[1], "keys": {KIDS[1]: NEW}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    host.turn("rolled_back", request)
    assert not path.exists()


def test_keysets_and_other_stores_do_not_mix(host: Host) -> None:
    place = _Place(host, "file")
    other = {"type": "env_file", "path": str(place.env), "variable": "A"}
    with pytest.raises(KeyturnError) as raised:
        host.turn("staged", {"name": NAME, "stores": [place.store, other], "new": {"value": NEW}})
    assert raised.value.code == "store-invalid"


# -- the file and what lies beside it ----------------------------------------------------------------------------------


def test_the_last_good_keyset_lies_beside_it_and_never_keeps_a_key_that_went(host: Host) -> None:
    place = _Place(host, "file")
    beside = Path(f"{place.file}{LAST_GOOD}")
    host.turn("staged", _given(place))
    assert beside.read_bytes() == place.start
    staged = place.bytes()
    host.turn("promoted", _key(place))
    assert beside.read_bytes() == staged
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    host.turn("withdrawn", _key(place))
    assert beside.read_bytes() == place.bytes()
    assert OLD not in beside.read_text()


@pytest.mark.parametrize(("mode", "allowed"), [(0o640, "0600"), (0o604, "0640"), (0o700, "0600")])
def test_trap_27_a_keyset_that_others_may_read_is_refused(host: Host, mode: int, allowed: str) -> None:
    place = _Place(host, "file")
    place.file.chmod(mode)
    store = {**place.store, "mode": allowed}
    with pytest.raises(KeyturnError) as raised:
        host.turn("staged", {"name": NAME, "stores": [store], "new": {"value": NEW}})
    assert (raised.value.code, raised.value.where) == ("file-loose", str(place.file))
    assert codes(host.look({"name": NAME, "stores": [store]})["problems"]) == ["file-loose"]


def test_mode_and_owner_stay(host: Host) -> None:
    place = _Place(host, "file")
    os.chown(place.file, 1234, 1235)
    place.file.chmod(0o440)
    store = {**place.store, "mode": "0640"}
    for state in ("staged", "promoted", "retired"):
        host.turn(state, {"name": NAME, "stores": [store], "new": {"value": NEW}})
    status = place.file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 1235, 0o440)


def test_trap_26_and_28_nothing_that_is_told_holds_a_key(place: _Place) -> None:
    told = []
    for state in ("staged", "promoted", "withdrawn", "retired"):
        told += [place.host.turn(state, _given(place)), place.host.look(_key(place))]
    text = json.dumps(told)
    assert [canary for canary in (OLD, NEW, OTHER) if canary in text] == []
    shown = told[1]["secrets"][NAME]["stores"][0]["keyset"]
    states = {key["kid"]: (key["state"], key["holds"]) for key in shown["keys"]}
    assert states == {"k0": ("previous", "other"), "k1": ("primary", "old"), KIDS[1]: ("staged", "new")}


def test_trap_34_a_key_that_changed_under_its_kid_has_another_fingerprint(host: Host) -> None:
    place = _Place(host, "file")

    def look() -> dict[str, str]:
        found = host.look(_key(place))["secrets"][NAME]["stores"][0]["keyset"]
        return {key["kid"]: key["fingerprint"] for key in found["keys"]}

    before = look()
    place.file.write_text(place.file.read_text().replace(OLD, NEW))
    after = look()
    assert before["k0"] == after["k0"]
    assert before["k1"] != after["k1"]


# -- commands ----------------------------------------------------------------------------------------------------------


def test_commands_are_called_once_each_with_the_key_on_standard_input(host: Host) -> None:
    place = _Place(host, "command")
    for state in ("staged", "promoted", "retired"):
        host.turn(state, _given(place))
        host.turn(state, _given(place))
    assert place.kms.calls == [f"provision {KIDS[1]}", f"promote {KIDS[1]}", "remove k1"]


@pytest.mark.parametrize("fault", ["fail-provision", "ignore-provision", "fail-read"])
def test_a_command_that_fails_or_does_nothing_is_an_error_without_what_it_printed(host: Host, fault: str) -> None:
    place = _Place(host, "command")
    place.kms.fault(fault)
    with pytest.raises(KeyturnError) as raised:
        host.turn("staged", _given(place))
    assert raised.value.code in ("keyset-command-failed", "write-failed")
    assert not [canary for canary in (OLD, NEW, OTHER) if canary in str(raised.value)]
    place.kms.fault(fault, there=False)
    assert place.content() == ("k1", {"k0": OTHER, "k1": OLD})
    host.turn("staged", _given(place))
    assert place.content() == ("k1", _BOTH)


@pytest.mark.parametrize(
    ("state", "fault", "left"),
    [
        ("staged", "beside-provision", {"k0": OTHER, "k1": OLD}),
        ("promoted", "beside-promote", _BOTH),
        ("retired", "beside-remove", _BOTH),
    ],
)
def test_a_key_that_somebody_else_provisions_in_the_same_moment_stays(
    host: Host, state: str, fault: str, left: dict[str, str]
) -> None:
    place = _Place(host, "command")
    states = ("staged", "promoted", "retired")
    for before in states[: states.index(state)]:
        host.turn(before, _given(place))
    place.kms.fault(fault)
    with pytest.raises(KeyturnError) as raised:
        host.turn(state, _given(place))
    assert raised.value.code == "write-failed"
    assert "what is read back is not what they were to make" in str(raised.value)
    assert "space" not in str(raised.value)
    active, keys = place.content()
    # a promote of ours came after theirs, and is taken back to what it was before
    assert (active, keys) == ("k1" if state == "promoted" else BESIDE[0], {**left, BESIDE[0]: BESIDE[1]})
    assert not [canary for canary in (OLD, NEW, OTHER, BESIDE[1]) if canary in str(raised.value)]


def test_the_way_back_leaves_keys_of_others_where_ours_is_out_and_says_so_where_it_is_not(host: Host) -> None:
    place = _Place(host, "command")
    host.turn("staged", _given(place))
    mine = place.kms.content["keys"]
    place.kms.file.write_text(json.dumps({"active_kid": BESIDE[0], "keys": {**_BOTH, BESIDE[0]: BESIDE[1]}}))
    with pytest.raises(KeyturnError, match=rf"Have k1 in it and take {KIDS[1]} out, .* other keys may stay") as raised:
        host.turn("rolled_back", _given(place))
    assert raised.value.code == "store-drifted"
    assert mine == _BOTH
    beside = {"k0": OTHER, "k1": OLD, BESIDE[0]: BESIDE[1]}
    for without, is_back in (("k1", False), ("k0", True)):
        keys = {kid: key for kid, key in beside.items() if kid != without}
        place.kms.file.write_text(json.dumps({"active_kid": BESIDE[0], "keys": keys}))
        if is_back:
            host.turn("rolled_back", _given(place))
        else:
            with pytest.raises(KeyturnError, match="does not hold"):
                host.turn("rolled_back", _given(place))
        assert place.content() == (BESIDE[0], keys)
    assert [call.split()[0] for call in place.kms.calls] == ["provision"]


@pytest.mark.parametrize("stop", ["staged", "promoted", "retired"])
def test_two_hosts_whose_commands_reach_one_service_turn_it_once_and_bring_it_back(tmp_path: Path, stop: str) -> None:
    one, two = (_Place(Host(tmp_path / name), "command") for name in ("one", "two"))
    two.kms = one.kms
    one.kms.fault("strict")
    made = one.host.turn("staged", _key(one, origin=True, generate=GENERATE, seal_to=[two.host.target("two")]))
    sent = _key(two, accept={"new": made["secrets"][NAME]["boxes"]["two"]["new"]})
    two.host.turn("staged", sent)
    for state in ("promoted", "retired")[: ("staged", "promoted", "retired").index(stop)]:
        one.host.turn(state, _key(one))
        two.host.turn(state, sent)
    active, keys = one.content()
    assert (active == "k1", "k1" in keys) == (stop == "staged", stop != "retired")
    if stop != "retired":
        for host, request in ((two.host, sent), (one.host, _key(one))):
            host.turn("rolled_back", request)
        assert one.content() == ("k1", {"k0": OTHER, "k1": OLD})
    calls = [call.split()[0] for call in one.kms.calls]
    ways = {"staged": ["remove"], "promoted": ["promote", "promote", "remove"], "retired": ["promote", "remove"]}
    assert calls == ["provision", *ways[stop]]


@pytest.mark.parametrize("fault", ["mangle-provision", "refuse-provision"])
def test_a_store_that_cannot_hold_the_key_is_found_out_at_stage_and_is_as_it_was(host: Host, fault: str) -> None:
    place = _Place(host, "command")
    place.kms.fault(fault)
    with pytest.raises(KeyturnError) as raised:
        host.turn("staged", _given(place))
    assert (raised.value.code, place.content()) == ("write-failed", ("k1", {"k0": OTHER, "k1": OLD}))
    host.turn("rolled_back", _given(place))
    assert place.content() == ("k1", {"k0": OTHER, "k1": OLD})
    assert not [canary for canary in (OLD, NEW, NEW.upper(), OTHER) if canary in str(raised.value)]


def test_stage_rehearses_what_is_to_come_without_a_command_that_changes_anything(host: Host) -> None:
    place = _Place(host, "command")
    host.turn("staged", _given(place))
    assert place.kms.calls == [f"provision {KIDS[1]}"]
    # one keyset that cannot hold the new key beside the others ends it before any command is run
    env = host.write("other.env", f"KEYS=k1:{OLD}\nACTIVE=k1\n".encode())
    inline = {"type": "env_file", "path": str(env), "layout": "keyset", "variable": "KEYS", "active_variable": "ACTIVE"}
    request = {"name": "OTHER_KEYSET", "stores": [place.store, inline], "new": {"value": "with,comma"}}
    with pytest.raises(KeyturnError) as raised:
        host.turn("staged", request)
    assert raised.value.code == "keyset-unwritable"
    assert place.kms.calls == [f"provision {KIDS[1]}"]


def test_files_stay_as_they_are_where_a_command_of_the_same_call_fails(host: Host) -> None:
    place = _Place(host, "command")
    place.kms.fault("fail-promote")
    stores = [place.store, {"type": "file", "path": str(place.file), "layout": "keyset"}]
    request = {"name": NAME, "stores": stores, "new": {"value": NEW}}
    host.turn("staged", request)
    before = place.file.read_bytes()
    with pytest.raises(KeyturnError, match=r"the command promote failed .* See what refuses it") as raised:
        host.turn("promoted", request)
    assert raised.value.code == "write-torn"
    assert place.file.read_bytes() == before
    place.kms.fault("fail-promote", there=False)
    host.turn("promoted", request)
    assert place.content() == (KIDS[1], _BOTH)
    assert json.loads(place.file.read_text())["active_kid"] == KIDS[1]


# -- killed ------------------------------------------------------------------------------------------------------------


def _killed(work: Callable[[], Any], seconds: float) -> bool:
    """Run ``work`` in a process that is killed after some time; says whether that came in time."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_a_run_that_is_killed_anywhere_is_finished_by_the_same_call(tmp_path: Path) -> None:
    killed = 0
    for number in range(24):
        place = _Place(Host(tmp_path / str(number)), "file")
        stores = [place.store, {**_Place(place.host, "env").store}]
        request = {"name": NAME, "stores": stores, "origin": True, "generate": GENERATE}
        host = place.host
        for state in ("staged", "promoted", "retired"):
            killed += _killed(functools.partial(host.turn, state, request), 0.0004 * number)
            parse_document(place.bytes(), "whole at any time")
            host.turn(state, request)
        active, keys = place.content()
        assert (active, sorted(keys)) == (KIDS[1], sorted((KIDS[1], "k0")))
        assert keys[active] in place.env.read_text()
        assert OLD not in place.env.read_text() + Path(f"{place.file}{LAST_GOOD}").read_text()
    assert killed > 0
