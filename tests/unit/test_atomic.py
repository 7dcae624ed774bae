# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced: who may read them, and what is written on them, stays."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import atomic, backup
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.look import run_info

from tests.support.access_lists import INHERITED, LIST, LIST_AND_MODE, give
from tests.support.hosts import GENERATE, Host


def test_a_file_keeps_its_access_list_and_its_notes(tmp_path: Path) -> None:
    """Else the user that reads it by the list is shut out, and the whole group, which had no right, is let in."""
    path = tmp_path / ".env"
    path.write_bytes(b"KEY=old\n")
    give(path, LIST)
    os.setxattr(path, "user.owner", b"team a")
    atomic.write_files({str(path): b"KEY=new\n"})
    assert path.read_bytes() == b"KEY=new\n"
    assert (atomic.access_list(str(path)), path.stat().st_mode & 0o777) == LIST_AND_MODE
    assert os.getxattr(path, "user.owner") == b"team a"


def test_a_file_does_not_take_the_list_that_its_folder_hands_down(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"KEY=old\n")
    path.chmod(0o640)
    give(tmp_path, INHERITED, "system.posix_acl_default")
    atomic.write_file(str(path), b"KEY=new\n")
    assert (atomic.access_list(str(path)), path.stat().st_mode & 0o777) == (None, 0o640)


def test_a_new_file_is_read_by_its_owner_alone_whatever_its_folder_hands_down(tmp_path: Path) -> None:
    give(tmp_path, INHERITED, "system.posix_acl_default")
    path = tmp_path / "new"
    atomic.write_file(str(path), b"value")
    assert path.stat().st_mode & 0o777 == 0o600, "the mask of the list lets nobody in"


def test_a_mode_that_is_asked_for_takes_the_place_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.write_bytes(b"old")
    give(path, LIST)
    atomic.write_file(str(path), b"value", 0o600)
    assert (atomic.access_list(str(path)), path.stat().st_mode & 0o777) == (None, 0o600)


# -- what a killed process leaves ------------------------------------------------------------------------------------


def _killed(folder: Path, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Do something in a process that is killed when its files would get their names; what it leaves in a folder."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda _source, _target: os.kill(os.getpid(), signal.SIGKILL))
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join(30)
    assert process.exitcode == -signal.SIGKILL
    return list(folder.glob(".keyturn.*"))


def test_the_next_write_removes_what_a_killed_one_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"KEY=old\n")
    (left,) = _killed(tmp_path, lambda: atomic.write_file(str(path), b"KEY=new\n"), monkeypatch)
    assert (left.read_bytes(), path.read_bytes()) == (b"KEY=new\n", b"KEY=old\n")
    atomic.write_file(str(path), b"KEY=other\n")
    assert {name.name: name.read_bytes() for name in tmp_path.iterdir()} == {".env": b"KEY=other\n"}


def test_what_another_process_is_writing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {".keyturn.note", ".keyturn.0123456789abcdef.txt", ".keyturn.0123456789abcdef"}
    for name in others:
        (tmp_path / name).write_bytes(b"" if name.endswith("f") else b"no file of ours")
    real = os.rename

    def rename(source: str, target: str) -> None:
        atomic.sweep(str(tmp_path))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    atomic.write_files({str(tmp_path / "one"): b"1", str(tmp_path / "two"): b"2"})
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", *others}


@pytest.mark.parametrize("state", ["staged", "promoted"])
@pytest.mark.parametrize("then", ["on", "back"])
def test_no_value_is_left_loose_by_a_rotation_whose_module_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, then: str
) -> None:
    host = Host(tmp_path)
    stores = [{"type": "env_file", "path": str(host.write(f"{name}/.env", b"KEY=old\n"))} for name in ("a", "b")]
    request = {"name": "KEY", "origin": True, "generate": GENERATE, "stores": stores}
    if state == "promoted":
        host.turn("staged", request)
    _killed(tmp_path, lambda: host.turn(state, request), monkeypatch)
    assert list(tmp_path.rglob(".keyturn.*"))
    for step in ("staged", "promoted", "retired") if then == "on" else ("rolled_back",):
        host.turn(step, request)
    assert list(tmp_path.rglob(".keyturn.*")) == []


def test_a_file_that_could_not_be_replaced_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single file that is mounted into a container takes no other in its place."""
    mounts, here = tmp_path / "mountinfo", tmp_path / "with space"
    here.mkdir()
    path, other = here / ".env", here / "other.env"
    for file in (path, other):
        file.write_text("A=1\n")
    escaped = str(path).replace(" ", "\\040")
    mounts.write_text(f"36 35 98:0 / / rw - ext4 /dev/a rw\n40 36 98:0 /srv/.env {escaped} rw - ext4 /dev/a rw\n")
    monkeypatch.setattr(atomic, "_MOUNTS", str(mounts))
    (tmp_path / "link").symlink_to(here)
    for named in (path, tmp_path / "link" / ".env"):
        with pytest.raises(KeyturnError, match="could not be replaced: it is mounted by itself") as caught:
            atomic.check_replaceable(str(named))
        assert (caught.value.code, caught.value.where) == ("file-fixed", str(named))
    with pytest.raises(KeyturnError, match=f"nothing can be written into {tmp_path}/gone"):
        atomic.check_replaceable(str(tmp_path / "gone" / ".env"))
    mounts.unlink()
    atomic.check_replaceable(str(path))
    assert sorted(file.name for file in here.iterdir()) == [".env", "other.env"]


def test_files_that_a_run_will_replace_are_looked_at_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that will be replaced, and of a backup what differs from it; what need not be written may be as it is."""
    host = Host(tmp_path)
    kept, changed, free = (host.write(f"{name}/.env", b"KEY=old\n") for name in ("kept", "changed", "free"))
    params = {"state_dir": str(host.state_dir), "session_dir": host.session.session_dir, "rotation_id": "", "epoch": 0}
    files = [str(path) for path in (kept, changed, free)]
    options = {name: option.get("default") for name, option in backup.BACKUP_OPTIONS.items()}
    backup.run({**params, **options, "state": "created", "files": files}, False)
    changed.write_bytes(b"KEY=new\n")
    mounts = tmp_path / "mountinfo"
    mounts.write_text("".join(f"40 36 98:0 / {path} rw - ext4 /dev/a rw\n" for path in (kept, changed)))
    monkeypatch.setattr(atomic, "_MOUNTS", str(mounts))

    def named(**more: Any) -> list[tuple[str, str]]:
        problems = run_info({**params, "secrets": [], **more}, False)["problems"]
        return [(problem["code"], problem["where"]) for problem in problems]

    assert named() == []
    assert named(replaced=[*files, "of-a-command"]) == [("file-fixed", str(changed)), ("file-fixed", str(kept))]
    assert named(backup={**options, "name": "latest"}) == [("file-fixed", str(changed))]
    before = changed.read_bytes()
    with pytest.raises(KeyturnError) as caught:  # it may have been mounted since it was looked at
        host.turn(
            "staged", {"name": "KEY", "stores": [{"type": "env_file", "path": str(changed)}], "new": {"value": "x"}}
        )
    assert (caught.value.code, changed.read_bytes()) == ("file-fixed", before)
