# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing: what lies on the disk, again, copies, crashes at every point, two at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import record as records
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import schema
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.ready import check_ready
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.sealing import Sealed, seal
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.verify import verify
from jsonschema import Draft202012Validator

from tests.support.evidence import NOW, full_record, small_record

FORK = multiprocessing.get_context("fork")
LATER = "2026-11-22T09:00:00Z"


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "evidence")


def seal_now(place: str, record: dict[str, Any], **options: Any) -> Sealed:
    return seal(place, record, now=options.pop("now", NOW), **options)


def tree(place: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes() for path in sorted(Path(place).rglob("*")) if path.is_file()
    }


def test_a_folder_holds_what_it_should(place: str) -> None:
    sealed = seal_now(place, full_record())
    folder = Path(sealed.path)
    assert folder.name == "2026-11-jwk.rotated"
    assert {path.name for path in folder.iterdir()} == {
        "evidence.json",
        "summary.json",
        "report.html",
        "fingerprint.sha256",
    }
    assert sealed.report == str(folder / "report.html")
    raw = (folder / "evidence.json").read_bytes()
    assert sealed.digest == records.digest(raw)
    document = json.loads(raw)
    assert list(Draft202012Validator(schema.DOCUMENT).iter_errors(document)) == []
    assert {key: value for key, value in document.items() if key != "seal"} == full_record()
    assert json.loads((folder / "summary.json").read_bytes()) == sealed.summary


def test_sha256sum_accepts_the_fingerprints_and_finds_an_edit(place: str) -> None:
    folder = seal_now(place, full_record()).path
    command = ["sha256sum", "--strict", "-c", "fingerprint.sha256"]
    good = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert good.returncode == 0
    assert good.stdout.count(": OK\n") == 3
    with (Path(folder) / "report.html").open("a") as stream:
        stream.write(" ")
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1


def test_trap_26_everything_is_private(place: str) -> None:
    seal_now(place, full_record())
    for path in Path(place).rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_same_record_again_changes_nothing(place: str) -> None:
    first = seal_now(place, full_record())
    before = tree(place)
    again = seal_now(place, full_record(), now=LATER)
    assert (first.changed, again.changed) == (True, False)
    assert (again.path, again.digest, again.sequence) == (first.path, first.digest, first.sequence)
    assert tree(place) == before


def test_check_mode_tells_and_leaves_nothing(place: str) -> None:
    told = seal_now(place, full_record(), check_mode=True)
    assert not os.path.exists(place)
    done = seal_now(place, full_record())
    assert (told.changed, told.path, told.sequence, told.summary) == (True, done.path, done.sequence, done.summary)
    before = tree(place)
    assert not seal_now(place, full_record(), check_mode=True).changed
    assert seal_now(place, full_record(why="other"), check_mode=True).path == done.path + "-2"
    assert tree(place) == before


def test_nothing_is_overwritten_and_each_event_has_its_folder(place: str) -> None:
    kept: dict[str, bytes] = {}
    for why in ("one", "two", "three"):
        for event in ("rotated", "retired"):
            seal_now(place, small_record("r1", event, why=why))
            now_there = {name: raw for name, raw in tree(place).items() if name.startswith("r1.")}
            assert kept.items() <= now_there.items()
            kept = now_there
    assert {name.split("/")[0] for name in kept} == {
        f"r1.{event}{number}" for event in ("rotated", "retired") for number in ("", "-2", "-3")
    }
    assert seal_now(place, small_record("r1", "rotated", why="two")).path.endswith("r1.rotated-2")
    assert verify(place).ok


def test_chains_are_per_secret_and_the_head_ties_them(place: str) -> None:
    one = seal_now(place, small_record("r1", "rotated", "A", "B"))
    two = seal_now(place, small_record("r2", "rotated", "B"))
    three = seal_now(place, small_record("r3", "rotated", "A", "C"))
    seals = [json.loads((Path(item.path) / "evidence.json").read_bytes())["seal"] for item in (one, two, three)]
    assert [item["sequence"] for item in seals] == [1, 2, 3]
    assert [item["inventory_previous"] for item in seals] == [None, one.digest, two.digest]
    assert [item["previous"] for item in seals] == [
        {"A": None, "B": None},
        {"B": one.digest},
        {"A": one.digest, "C": None},
    ]
    head = json.loads((Path(place) / "head.json").read_bytes())
    assert (head["sequence"], head["record"]) == (3, three.digest)
    assert head["chains"] == {"A": three.digest, "B": two.digest, "C": three.digest}
    found = verify(place, known=[one.digest, two.digest, three.digest])
    assert (found.ok, found.records, found.digest) == (True, 3, three.digest)


def test_a_lost_head_stops_sealing_with_a_way_out(place: str) -> None:
    seal_now(place, small_record("r1"))
    seal_now(place, small_record("r2"))
    (Path(place) / "head.json").unlink()
    with pytest.raises(KeyturnError, match="head of the evidence is missing") as caught:
        seal_now(place, small_record("r3"))
    assert caught.value.code == "evidence-damaged"
    assert "copy" in caught.value.hint


def test_a_foreign_folder_is_reported_and_does_not_stop_sealing(place: str) -> None:
    seal_now(place, small_record("r1"))
    (Path(place) / "x.rotated").mkdir()
    sealed = seal_now(place, small_record("r2"))
    assert sealed.sequence == 2
    assert len(sealed.problems) == 1
    assert "x.rotated" in sealed.problems[0]


# -- copies ----------------------------------------------------------------------------------------------------------


def test_copies_catch_up_and_verify_by_themselves(place: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "git" / "evidence")
    seal_now(place, small_record("r1"))
    seal_now(place, small_record("r2"), copies=[copy])
    assert tree(copy) == tree(place)
    assert verify(copy).records == 2


def test_a_copy_that_differs_is_reported_and_left_alone(place: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    seal_now(place, small_record("r1"), copies=[str(copy)])
    changed = copy / "r1.rotated" / "evidence.json"
    changed.write_bytes(changed.read_bytes().replace(b"asked for", b"forged!!!"))
    sealed = seal_now(place, small_record("r2"), copies=[str(copy)])
    assert any("r1.rotated differs" in problem for problem in sealed.problems)
    assert b"forged" in changed.read_bytes()
    assert verify(place).ok


def test_a_copy_of_another_inventory_is_not_touched(place: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    seal_now(other, small_record("x1"))
    head = (Path(other) / "head.json").read_bytes()
    sealed = seal_now(place, small_record("r1"), copies=[other])
    assert any("not the beginning" in problem for problem in sealed.problems)
    assert (Path(other) / "head.json").read_bytes() == head


def test_a_copy_that_cannot_be_made_is_a_word_not_a_failure(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sealed = seal_now(place, small_record("r1"), copies=[str(tmp_path / "file")])
    assert sealed.changed
    assert len(sealed.problems) == 1
    assert verify(place).ok


# -- crashes ---------------------------------------------------------------------------------------------------------

CALLS = ("fsync", "rename", "mkdir", "open", "unlink")


def dies_at(point: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that dies, without any clean-up, before its call number ``point`` to the file system."""

    def child() -> None:
        left = point

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left <= 0:
                    os._exit(9)
                return real(*arguments, **options)

            return call

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode in (0, 9)
    return process.exitcode == 9


def crash_points(work: Callable[[], object], reset: Callable[[], None]) -> Iterator[int]:
    point = 1
    while True:
        reset()
        if not dies_at(point, work):
            return
        yield point
        point += 1


@pytest.mark.parametrize("history", [0, 2])
def test_a_crash_at_any_point_is_completed_by_the_next_call(place: str, tmp_path: Path, history: int) -> None:
    start = str(tmp_path / "start")
    os.mkdir(start)
    for number in range(history):
        seal_now(start, small_record(f"old{number}", "rotated", "A", "B"))

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(start, place)

    record = small_record("r1", "rotated", "A", "B")
    outcomes = set()
    for point in crash_points(lambda: seal_now(place, record), reset):
        existed = os.path.exists(os.path.join(place, "r1.rotated"))
        sealed = seal_now(place, record, now=LATER)
        assert sealed.changed != existed, point
        assert sealed.sequence == history + 1
        assert sealed.problems == []
        outcomes.add(existed)
        after = seal_now(place, small_record("r2", "rotated", "B"))
        found = verify(place, known=[sealed.digest, after.digest])
        assert (found.ok, found.records) == (True, history + 2), (point, found.problems)
        assert [name for name in os.listdir(place) if name.startswith(".keyturn.")] == []
    assert outcomes == {True, False}


def test_another_record_also_completes_what_a_crash_left(place: str) -> None:
    seen = 0
    for _point in crash_points(lambda: seal_now(place, small_record("r1")), lambda: shutil.rmtree(place, True)):
        os.makedirs(place, exist_ok=True)
        existed = os.path.exists(os.path.join(place, "r1.rotated"))
        seal_now(place, small_record("r2"))
        found = verify(place)
        assert (found.ok, found.records) == (True, 1 + existed), found.problems
        seen += existed
    assert seen >= 3


def test_a_crash_while_a_copy_is_made_is_made_good(place: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    seal_now(place, small_record("r1"))

    def work() -> None:
        seal_now(place, small_record("r1"), copies=[copy])

    points = 0
    for _point in crash_points(work, lambda: shutil.rmtree(copy, True)):
        assert seal_now(place, small_record("r1"), copies=[copy]).problems == []
        assert tree(copy) == tree(place)
        points += 1
    assert points > 10


# -- two at once -----------------------------------------------------------------------------------------------------


def test_several_processes_at_once_keep_one_chain(place: str) -> None:
    os.mkdir(place)
    gate = FORK.Barrier(4)

    def work(worker: int) -> None:
        gate.wait()
        for number in range(5):
            seal_now(place, small_record(f"w{worker}-{number}", "rotated", "SHARED", f"OWN{worker}"))
        seal_now(place, small_record("same", "check", "SHARED"))

    workers = [FORK.Process(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    found = verify(place)
    assert found.problems == []
    assert (found.records, found.sequence) == (21, 21)
    assert len((Path(place) / "chains" / "SHARED.jsonl").read_text().splitlines()) == 21


# -- before there is something to seal -------------------------------------------------------------------------


def test_a_place_that_is_whole_or_not_there_is_ready(place: str) -> None:
    check_ready(place)
    assert not Path(place).exists()
    for number in range(2):
        seal_now(place, small_record(rotation_id=f"r{number}"))
    check_ready(place)
    assert verify(place).ok


@pytest.mark.parametrize("harm", ["no head", "a head cut short", "a chain cut short", "a link"])
def test_a_place_that_sealing_would_refuse_is_refused_before(place: str, tmp_path: Path, harm: str) -> None:
    for number in range(2):
        seal_now(place, small_record(rotation_id=f"r{number}"))
    head, chain = Path(place, "head.json"), next(Path(place, "chains").iterdir())
    if harm == "no head":
        head.unlink()
    elif harm == "a link":
        Path(place).rename(tmp_path / "elsewhere")
        Path(place).symlink_to(tmp_path / "elsewhere")
    else:
        path = head if harm == "a head cut short" else chain
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(KeyturnError) as caught:
        check_ready(place)
    assert caught.value.code in ("evidence-damaged", "dir-unsafe")


@pytest.mark.parametrize("full", [{"f_bavail": 3}, {"f_favail": 3}, {"f_files": 0, "f_favail": 0}])
def test_a_place_that_is_full_is_refused_before(
    place: str, monkeypatch: pytest.MonkeyPatch, full: dict[str, int]
) -> None:
    seal_now(place, small_record())
    empty = {"f_frsize": 4096, "f_bavail": 1 << 20, "f_files": 1 << 20, "f_favail": 1 << 20}
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(**empty | full))
    if "f_files" in full:  # a file system that does not count them
        check_ready(place)
        return
    with pytest.raises(KeyturnError, match="has no room for the next record"):
        check_ready(place)


def test_a_signing_key_that_does_not_sign_is_refused_before(place: str, tmp_path: Path) -> None:
    key = tmp_path / "evidence.pem"
    with pytest.raises(KeyturnError, match="evidence cannot be signed with this key, which does not exist"):
        check_ready(place, str(key))
    key.touch(0o600)
    key.write_text("no key\n")
    with pytest.raises(KeyturnError, match="Nothing was begun"):
        check_ready(place, str(key))
