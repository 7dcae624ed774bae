# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules ``evidence`` and ``evidence_verify``, run as Ansible runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.evidence import full_record, small_record

ROOT = Path(__file__).resolve().parents[3]


def run(module: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run a module in a process of its own; its answer, with ``failed`` when it failed."""
    marks = {"_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.keyturn.rotation.plugins.modules.{module}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **marks}}),
        env={**os.environ, "PYTHONPATH": str(ROOT / ".build")},
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_check_real_check_again_real_again(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "state_dir": str(tmp_path / "state"),
        "rotation_id": "2026-11-jwk",
        "epoch": 1,
        "record": full_record(),
    }
    told = run("evidence", True, **arguments)
    assert told["changed"]
    assert not (tmp_path / "state").exists()
    done = run("evidence", **arguments)
    assert done["changed"]
    assert done["path"] == str(tmp_path / "state/evidence/2026-11-jwk.rotated") == told["path"]
    assert done["diff"]["after"] == done["summary"]
    for check in (True, False):
        again = run("evidence", check, **arguments)
        assert (again["changed"], again["digest"]) == (False, done["digest"])
        assert again["diff"]["after"] == {}


def test_trap_57_a_run_that_was_taken_over_seals_nothing(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"state_dir": str(tmp_path), "rotation_id": "r1"}
    assert run("evidence", **arguments, epoch=2, record=small_record("r1"))["changed"]
    late = run("evidence", **arguments, epoch=1, record=small_record("r1", "failed"))
    assert (late["failed"], late["code"]) == (True, "fenced")
    assert not (tmp_path / "evidence/r1.failed").exists()


def test_rotations_that_end_at_once_both_get_in_and_into_the_copy(tmp_path: Path) -> None:
    """Two hosts' worth of runs, each a process of its own; they share a secret, and each has one of its own."""
    common = {"state_dir": str(tmp_path), "copies": [str(tmp_path / "copy")], "epoch": 1}
    given = [
        {**common, "rotation_id": name, "record": small_record(name, "rotated", "SHARED", own)}
        for name, own in (("r1", "A"), ("r2", "B"))
    ]
    with ThreadPoolExecutor(2) as pool:
        sealed = list(pool.map(lambda arguments: run("evidence", **arguments), given))
    assert sorted(answer["sequence"] for answer in sealed) == [1, 2]
    for place in ("evidence", "copy"):
        found = run("evidence_verify", dir=str(tmp_path / place), known=[answer["digest"] for answer in sealed])
        assert (found["ok"], found["records"]) == (True, 2)
        assert len((tmp_path / place / "chains/SHARED.jsonl").read_text().splitlines()) == 2


def test_a_record_of_another_rotation_is_refused(tmp_path: Path) -> None:
    answer = run("evidence", state_dir=str(tmp_path), rotation_id="r1", record=small_record("r2"))
    assert (answer["failed"], answer["code"]) == (True, "evidence-rotation")


@pytest.mark.parametrize("check", [True, False])
def test_private_material_is_refused_and_not_told(tmp_path: Path, check: bool) -> None:
    record = small_record(messages=["password is in postgresql://app:CANARYCANARY@db/app"])
    answer = run("evidence", check, dir=str(tmp_path / "e"), record=record)
    assert answer["code"] == "evidence-material"
    assert "CANARY" not in json.dumps({key: value for key, value in answer.items() if key != "invocation"})
    assert not (tmp_path / "e").exists()


def test_sealed_signed_copied_and_verified(tmp_path: Path) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)
    key.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    sealed = run(
        "evidence",
        dir=str(tmp_path / "e"),
        record=full_record(),
        signing_key=str(key),
        copies=[str(tmp_path / "copy"), str(key / "impossible")],
    )
    assert sealed["changed"]
    assert len(sealed["problems"]) == len(sealed["warnings"]) == 1
    for place in ("e", "copy"):
        found = run("evidence_verify", dir=str(tmp_path / place), public_key=[str(public)], known=[sealed["digest"]])
        assert (found["ok"], found["records"], found["signed"], found["changed"]) == (True, 1, 1, False)
    (tmp_path / "copy/2026-11-jwk.rotated/report.html").write_text("forged")
    found = run("evidence_verify", dir=str(tmp_path / "copy"))
    assert (found["failed"], found["code"]) == (True, "evidence-broken")
    assert found["problems"] == [
        {"code": "edited", "where": "2026-11-jwk.rotated/report.html", "message": "is not what was sealed"}
    ]
    found = run("evidence_verify", dir=str(tmp_path / "copy"), fail=False)
    assert ("failed" in found, found["ok"]) == (False, False)


# -- keysets -------------------------------------------------------------------------------------------------------

KEYSET = {"active_kid": "k2", "keys": {"k1": "CANARY-one", "k2": "CANARY-two"}}


@pytest.fixture
def session(tmp_path: Path) -> dict[str, str]:
    """A host's folders, with the key of a run and the inventory's fingerprint key in a box."""
    state = str(tmp_path / "state")
    opened = run("rotation_host", state="opened", state_dir=state)
    boxes = run("rotation_state", action="seal", state_dir=state, recipients={"here": opened["public"]})["boxes"]
    return {"state_dir": state, "accept_fingerprint": boxes["here"]}


def test_a_keyset_from_file_and_from_command_is_the_same_and_shows_no_secret(
    tmp_path: Path, session: dict[str, str]
) -> None:
    path = tmp_path / "keyset.json"
    path.touch(0o600)
    path.write_text(json.dumps(KEYSET))
    by_file = run("evidence_keyset", name="JWT", file=str(path), **session)
    by_command = run("evidence_keyset", name="JWT", command=["cat", str(path)], **session)
    assert "CANARY" not in json.dumps([by_file, by_command])
    assert (by_file["keyset"]["source_mode"], by_command["keyset"]["source_mode"]) == ("file", "command")
    assert by_file["keyset"]["fingerprints"] == by_command["keyset"]["fingerprints"]
    assert set(by_file["keyset"]["fingerprints"]) == {"k1", "k2"}
    for more in ({}, {"file": str(path), "command": ["true"]}):
        assert run("evidence_keyset", name="JWT", **more, **session)["code"] == "keyset-source"


def test_a_captured_event_is_sealed_once_and_signed(tmp_path: Path, session: dict[str, str]) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)
    key.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    path = tmp_path / "keyset.json"
    path.write_text(json.dumps(KEYSET))
    path.chmod(0o644)
    read = run("evidence_keyset", name="JWT", file=str(path), **session)["keyset"]
    arguments: dict[str, Any] = {
        "state_dir": session["state_dir"], "event_id": "audit-1", "keyset": read, "hosts": ["here"],
        "signing_key": str(key), "copies": [str(tmp_path / "copy")],
    }  # fmt: skip
    results = [run("evidence_capture", check, **arguments) for check in (True, False, True, False)]
    assert [answer["changed"] for answer in results] == [True, True, False, False]
    assert results[1]["path"] == str(tmp_path / "state/evidence/audit-1")
    assert results[1]["lines"] == [
        "There is no event before to compare it with.",
        "Others than its owner can read the keyset's file.",
    ]
    for place in ("state/evidence", "copy"):
        verified = run("evidence_verify", dir=str(tmp_path / place), public_key=[str(public)])
        assert (verified["ok"], verified["signed"]) == (True, 1)
    other = {**read, "fingerprints": {**read["fingerprints"], "k2": "0" * 16}}
    assert run("evidence_capture", **{**arguments, "keyset": other})["code"] == "event-exists"
    assert run("evidence_capture", **{**arguments, "event_id": "../x"})["code"] == "name-invalid"
    assert not any(b"CANARY" in file.read_bytes() for file in (tmp_path / "state").rglob("*") if file.is_file())
