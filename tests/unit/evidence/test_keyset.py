# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keysets as evidence sees them: reading, comparing, and events of a person's own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import record as records
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.capture import capture, check_event_id
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.keyset import (
    compare,
    comparison_lines,
    fingerprints,
    load,
    parse,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.report import render
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.sealing import Sealed, seal
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.verify import verify
from ansible_collections.keyturn.rotation.plugins.module_utils.session import fingerprint
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.evidence import small_record
from tests.support.page import Page
from tests.unit.evidence.test_sealing import crash_points

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
FILES = json.loads((VECTORS / "003_keyset_files.json").read_text())
EVENTS = json.loads((VECTORS / "003_evidence.json").read_text())
KEY = bytes(range(32))
OTHER_KEY = bytes(32)
WHEN = ("2026-11-21T10:00:00Z", "2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z", "2026-11-24T10:00:00Z")
ABOUT = {"who": {"user": "anna"}, "why": "audit", "hosts": {"expected": ["api1"], "done": ["api1"]}}


def found(active: str, keys: Mapping[str, str], key: bytes = KEY, **more: Any) -> dict[str, Any]:
    """What a host says of a keyset."""
    read = parse(json.dumps({"active_kid": active, "keys": keys}).encode(), "test")
    return {
        "name": "JWT",
        "source_mode": "file",
        "active_kid": read.active_kid,
        "fingerprints": fingerprints(read, "JWT", lambda name, value: fingerprint(key, name, value)),
        "fingerprint_key": fingerprint(key, "fingerprint-key", b""),
        "messages": [],
        **more,
    }


def take(place: Path, event_id: str, active: str, keys: Mapping[str, str], when: int = 0, **options: Any) -> Sealed:
    more = {name: options.pop(name) for name in ("key", "source_mode") if name in options}
    return capture(str(place), event_id, found(active, keys, **more), ABOUT, now=WHEN[when], **options)[0]


def keyset_json(place: Path, event_id: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place / event_id / "keyset.json").read_text())
    return content


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", FILES["cases"], ids=lambda case: str(case["name"]))
def test_good_keysets_are_read_as_the_service_reads_them(case: dict[str, Any]) -> None:
    read = parse(case["file_text"].encode(), "file")
    assert read.active_kid == case["loaded"]["active_kid"]
    assert {kid: base64.b64encode(value).decode() for kid, value in read.keys.items()} == case["loaded"]["keys_b64"]
    assert not any(value.decode() in repr(read) for value in read.keys.values() if len(value) > 3)


@pytest.mark.parametrize("case", FILES["negative_cases"], ids=lambda case: str(case["name"]))
def test_trap_33_keysets_that_a_careful_reader_refuses_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as caught:
        parse(case["value"].encode(), "file")
    assert caught.value.code == "keyset-invalid"
    assert "fake_" not in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"\xff", b"[]", b'{"keys":{"a":"b"},"active_kid":1}', b'{"keys":{"default":"\\ud800"}}', b"[" * 99999]
)
def test_nonsense_is_refused(raw: bytes) -> None:
    with pytest.raises(KeyturnError) as caught:
        parse(raw, "file")
    assert caught.value.code == "keyset-invalid"


def test_trap_28_what_a_command_prints_is_in_no_error(tmp_path: Path) -> None:
    text = json.dumps({"active_kid": "a", "keys": {"a": "CANARY"}})
    read = load(None, [sys.executable, "-c", f"print({text!r})"], 60)
    assert (read.active_kid, read.keys["a"]) == ("a", b"CANARY")
    for words, said in (
        (["sh", "-c", "echo CANARY; echo CANARY >&2; exit 3"], "ended with 3"),
        (["sh", "-c", "echo CANARY; kill -9 $$"], "ended by signal 9"),
        (["sleep", "60"], "no end within 0.2 s"),
        ([str(tmp_path / "nothing")], "cannot be started"),
        (["echo", "CANARY"], "is no JSON"),
    ):
        with pytest.raises(KeyturnError, match=said) as caught:
            load(None, words, 0.2 if words[0] == "sleep" else 60)
        assert "CANARY" not in str(caught.value)


def test_a_file_that_others_can_read_is_noted_and_a_link_refused(tmp_path: Path) -> None:
    path = tmp_path / "keyset.json"
    path.write_text('{"keys": {"default": "x"}}')
    path.chmod(0o600)
    assert not load(str(path), [], 1).loose
    path.chmod(0o644)
    assert load(str(path), [], 1).loose
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(KeyturnError, match="symbolic link"):
        load(str(tmp_path / "link"), [], 1)


# -- comparing -----------------------------------------------------------------------------------------------------


def test_trap_34_every_kind_of_change_is_seen() -> None:
    first = compare(found("k1", {"k1": "a", "k2": "b", "k3": "c"}), None, None, WHEN[0])
    assert {key["kid"]: (key["state"], key["since"]) for key in first["keys"]} == {
        "k1": ("primary", None), "k2": ("inactive", None), "k3": ("inactive", None),
    }  # fmt: skip
    assert comparison_lines(first) == ["There is no event before to compare it with."]
    second = compare(found("k2", {"k1": "a", "k2": "B", "k4": "d"}), first, "one", WHEN[1])
    assert {key["kid"]: (key["state"], key["since"], key["changed"]) for key in second["keys"]} == {
        "k1": ("previous", WHEN[1], False), "k2": ("primary", WHEN[1], True), "k4": ("staged", WHEN[1], False),
    }  # fmt: skip
    assert comparison_lines(second) == [
        "Active moved from k1 to k2.", "Added: k4.", "Removed: k3.", "Changed under the same kid: k2.",
    ]  # fmt: skip
    third = compare(found("k2", {"k1": "a", "k2": "B", "k4": "d"}), second, "two", WHEN[2])
    assert comparison_lines(third) == ["Nothing changed."]
    assert [key["since"] for key in third["keys"]] == [WHEN[1]] * 3


def test_under_another_fingerprint_key_nothing_is_called_changed_or_unchanged() -> None:
    first = compare(found("k1", {"k1": "a"}), None, None, WHEN[0])
    second = compare(found("k1", {"k1": "a"}, OTHER_KEY), first, "one", WHEN[1])
    assert not second["keys"][0]["changed"]
    assert "not known of: k1" in comparison_lines(second)[0]


KEYSETS = st.dictionaries(st.sampled_from(["a", 'q"', "\\n", "é"]), st.sampled_from(["1", "2"]), min_size=1)


@settings(deadline=None)
@given(st.data(), KEYSETS, KEYSETS)
def test_the_comparison_is_what_the_keysets_say(
    data: st.DataObject, before: dict[str, str], now: dict[str, str]
) -> None:
    old_active, new_active = (data.draw(st.sampled_from(sorted(keys))) for keys in (before, now))
    first = compare(found(old_active, before), None, None, WHEN[0])
    second = compare(found(new_active, now), first, "one", WHEN[1])
    assert second["added"] == sorted(set(now) - set(before))
    assert second["removed"] == sorted(set(before) - set(now))
    changed = {key["kid"] for key in second["keys"] if key["changed"]}
    assert changed == {kid for kid in set(before) & set(now) if before[kid] != now[kid]}
    assert second["active_moved"] == (old_active != new_active)
    assert [key["kid"] for key in second["keys"] if key["state"] == "primary"] == [new_active]


# -- events of a person's own --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", EVENTS["cases"], ids=lambda case: str(case["name"]))
def test_the_summary_has_the_names_and_facts_of_the_older_program(case: dict[str, Any], tmp_path: Path) -> None:
    payload = json.loads(case["keyset_text"])
    before = case["previous_summary_parsed"]
    if before:
        source = next(one for one in EVENTS["cases"] if one["event_id"] == before["event_id"])
        old = json.loads(source["keyset_text"])
        take(tmp_path, before["event_id"], old.get("active_kid", ""), old["keys"])
    mode = case["source_mode"]
    sealed = take(tmp_path, case["event_id"], payload.get("active_kid", ""), payload["keys"], 1, source_mode=mode)
    summary = json.loads((tmp_path / case["event_id"] / "summary.json").read_text())
    expected = {**case["summary_parsed"], "captured_at_utc": WHEN[1]}
    if case["name"] == "secret_changed_same_kid":  # trap 34: the older program said "unchanged"
        expected["rotation_state"] = "rotated"
    assert {name: summary[name] for name in expected} == expected
    assert Path(sealed.path).name == case["event_id"]
    assert verify(str(tmp_path)).problems == []


def test_trap_26_the_folder_is_private_checks_itself_and_holds_no_material(tmp_path: Path) -> None:
    place = tmp_path / "evidence"
    secret = "CANARY-of-this-keyset"
    folder = Path(take(place, "rotation-20260212-a", "k2", {"k1": "old-" + secret, "k2": secret}).path)
    assert {"evidence.json", "keyset.json", "summary.json", "fingerprint.sha256", "report.html"} == {
        path.name for path in folder.iterdir()
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    digests = {records.digest(text.encode()) for text in (secret, "old-" + secret)}
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        assert secret not in text
        assert not any(digest[:16] in text for digest in digests), "a plain digest of a secret"
    command = ["sha256sum", "--strict", "-c", "fingerprint.sha256"]
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
    (folder / "keyset.json").write_text("{}")
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1


def test_each_event_is_compared_with_the_one_before_or_the_one_that_is_named(tmp_path: Path) -> None:
    take(tmp_path, "one", "k1", {"k1": "a"}, 0)
    take(tmp_path, "two", "k1", {"k1": "a", "k2": "b"}, 1)
    take(tmp_path, "three", "k2", {"k2": "B"}, 2)
    third = keyset_json(tmp_path, "three")
    assert (third["compared_with"], third["active_moved"], third["removed"]) == ("two", True, ["k1"])
    assert third["keys"]["k2"]["changed"]
    take(tmp_path, "four", "k2", {"k2": "B"}, 3, previous="one")
    fourth = keyset_json(tmp_path, "four")
    assert (fourth["compared_with"], fourth["added"], fourth["removed"]) == ("one", ["k2"], ["k1"])
    with pytest.raises(KeyturnError) as caught:
        take(tmp_path, "five", "k2", {"k2": "B"}, 3, previous="nothing")
    assert caught.value.code == "event-unknown", "a previous event that is missing does not read as the first one"
    found_here = verify(str(tmp_path))
    assert (found_here.problems, found_here.records) == ([], 4)


def test_events_and_rotations_of_a_keyset_share_its_chain(tmp_path: Path) -> None:
    keyset = {"name": "JWT", "active_kid": "k1", "keys": [{"kid": "k1", "state": "primary"}]}
    seal(str(tmp_path), small_record("r1", "rotated", "JWT", "DB", keysets=[keyset]), now=WHEN[0])
    seal(str(tmp_path), small_record("r2", "retired", "JWT"), now=WHEN[0])
    take(tmp_path, "one", "k2", {"k1": "a", "k2": "b"}, 1)
    content = keyset_json(tmp_path, "one")
    assert (content["compared_with"], content["added"], content["not_compared"]) == ("r1.rotated", ["k2"], ["k1"])
    assert len((tmp_path / "chains/JWT.jsonl").read_text().splitlines()) == 3
    assert verify(str(tmp_path)).ok


@pytest.mark.parametrize(
    "event_id",
    ["", "../outside", "a/b", 'ev"1', "a\n", ".hidden", "x" * 129, "chains", "head.json", "lock", "r1.rotated",
     "r1.captured-2", "a b", "-x", "é"],
)  # fmt: skip
def test_trap_33_an_event_id_that_is_no_plain_name_is_refused(tmp_path: Path, event_id: str) -> None:
    place = tmp_path / "evidence"
    with pytest.raises(KeyturnError) as caught:
        take(place, event_id, "k1", {"k1": "a"})
    assert caught.value.code == "name-invalid"
    assert os.listdir(tmp_path) == []


def test_ordinary_event_ids_are_taken() -> None:
    for event_id in ("rotation-20260212-a", "2026.11", "A_b", "lock2", "r1.rotated.before"):
        assert check_event_id(event_id) == event_id


def test_nothing_is_overwritten_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    first = take(tmp_path, "one", "k1", {"k1": "a"}, 0)
    tree = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = take(tmp_path, "one", "k1", {"k1": "a"}, 1)
    assert (first.changed, again.changed, again.digest) == (True, False, first.digest)
    for active, keys in (("k1", {"k1": "A"}), ("k1", {"k1": "a", "k2": "b"}), ("k2", {"k2": "a"})):
        for check_mode in (True, False):
            with pytest.raises(KeyturnError) as caught:
                take(tmp_path, "one", active, keys, 2, check_mode=check_mode)
            assert caught.value.code == "event-exists"
    (tmp_path / "notes").mkdir()
    with pytest.raises(KeyturnError) as caught:
        take(tmp_path, "notes", "k1", {"k1": "a"}, 2)
    assert caught.value.code == "event-exists"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == tree


def test_a_record_that_lost_the_race_for_a_name_is_refused(tmp_path: Path) -> None:
    """Two calls see that the name is free; the second one to get the lock finds it taken."""
    path = take(tmp_path, "one", "k1", {"k1": "a"}, 0).path
    record = json.loads((Path(path) / "evidence.json").read_text())
    del record["seal"]
    with pytest.raises(KeyturnError) as caught:
        seal(str(tmp_path), {**record, "why": "another"}, now=WHEN[1])
    assert caught.value.code == "event-exists"


def test_a_crash_at_any_point_is_completed_by_the_same_call(tmp_path: Path) -> None:
    place = tmp_path / "evidence"
    outcomes = set()
    for _point in crash_points(
        lambda: take(place, "one", "k1", {"k1": "a"}), lambda: shutil.rmtree(place, ignore_errors=True)
    ):
        existed = (place / "one").exists()
        again = take(place, "one", "k1", {"k1": "a"}, 1)
        assert (again.changed, verify(str(place)).problems) == (not existed, [])
        outcomes.add(existed)
    assert outcomes == {True, False}


def test_check_mode_tells_and_leaves_nothing(tmp_path: Path) -> None:
    told = take(tmp_path / "evidence", "one", "k1", {"k1": "a"}, check_mode=True)
    assert (told.changed, told.summary["event_id"], os.listdir(tmp_path)) == (True, "one", [])


def test_the_report_says_what_became_of_each_key(tmp_path: Path) -> None:
    take(tmp_path, "one", "k1", {"k1": "a", "k9": "z"}, 0)
    place = Path(take(tmp_path, "two", "k2", {"k1": "A", "k2": "b"}, 1).path)
    shown = Page((place / "report.html").read_text())
    assert "Captured" in shown.sections[""]
    assert "Event two" in shown.sections[""]
    rows = shown.tables["keysets"]
    assert [row[1:4] + row[5:] for row in rows[1:]] == [
        ["k1", "previous", "2026-11-22 10:00:00 UTC", "", "changed"],
        ["k2", "primary", "2026-11-22 10:00:00 UTC", "active", ""],
    ]
    for said in ("Since one", "Active moved from k1 to k2.", "Removed: k9.", "Changed under the same kid: k1."):
        assert said in shown.sections["keysets"]


def test_a_hostile_kid_is_escaped() -> None:
    evil = "<script>alert(1)</script>\u202e"
    first = compare(found("x", {"x": "1"}), None, None, WHEN[0])
    keyset = compare(found(evil, {evil: "1"}), first, evil, WHEN[1])
    record = small_record("r1", "captured", "JWT", keysets=[keyset])
    records.check_record(record)
    seal_part = {
        "sequence": 1,
        "sealed_at": WHEN[1],
        "inventory_previous": None,
        "previous": {"JWT": None},
        "signer": None,
    }
    text = render(record, seal_part)
    assert "script" not in Page(text).tags
    assert "\u202e" not in text
