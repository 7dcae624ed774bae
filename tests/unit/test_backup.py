# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups: whole or not there, private, and the way back from them."""

from __future__ import annotations

import functools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import atomic, backup
from ansible_collections.keyturn.rotation.plugins.module_utils.backup import BACKUP_OPTIONS, Order, Retention
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.access_lists import LIST, LIST_AND_MODE, give
from tests.support.hosts import NOW, Host

_NAME = "secrets-backup-20261121-123015"
_ROOT = Path(__file__).resolve().parents[2]


class _Place:
    """Two files and a folder for backups."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.one = folder / "srv/one/.env"
        self.two = folder / "srv/two/key"
        for path, content, mode in ((self.one, b"KEY=old\n", 0o640), (self.two, b"\x00old", 0o600)):
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            path.chmod(mode)
        self.dir = str(folder / "backups")

    def create(
        self, *files: Path, rotation_id: str = "r1", now: datetime = NOW, check: bool = False
    ) -> tuple[backup.Backup, bool]:
        paths = tuple(str(path) for path in files or (self.one, self.two))
        order = Order(paths, rotation_id, secrets=("KEY",), services=("api",), retention_days=90)
        return backup.create(self.dir, order, now, check_mode=check)

    def restore(self, name: str = "latest", check: bool = False, root: Path | None = None) -> tuple[list[str], str]:
        found = backup.find(self.dir, name, str(root) if root else None)
        return backup.restore(found, self.dir, Order((), "r9"), NOW + timedelta(hours=1), check_mode=check)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.dir)) if os.path.isdir(self.dir) else []

    def metadata(self, change: Callable[[dict[str, Any]], object], name: str = _NAME) -> None:
        path = Path(self.dir, name, "metadata.json")
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


@pytest.fixture
def place(tmp_path: Path) -> _Place:
    return _Place(tmp_path)


def _code(work: Callable[[], object]) -> str:
    with pytest.raises(KeyturnError) as caught:
        work()
    assert "KEY=" not in str(caught.value)
    return caught.value.code


# -- making -----------------------------------------------------------------------------------------------------------


def test_a_backup_holds_the_files_and_its_metadata(place: _Place) -> None:
    made, new = place.create()
    folder = Path(place.dir, _NAME)
    assert (made.name, made.folder, new, made.usable) == (_NAME, str(folder), True, True)
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["timestamp"] == "20261121-123015"
    assert (metadata["rotated_secrets"], metadata["affected_services"]) == (["KEY"], ["api"])
    assert (metadata["schema_version"], metadata["rotation_id"], metadata["files"][0]["mode"]) == (1, "r1", "0640")
    for path in (place.one, place.two):
        assert (folder / str(path).lstrip("/")).read_bytes() == path.read_bytes()
    assert place.names() == [_NAME], "no scratch folder is left"
    told = made.summary()
    assert told["expires"] == "2027-02-19T12:30:15+00:00"
    assert "sha256" not in json.dumps(told)


def test_trap_27_backups_are_private(place: _Place) -> None:
    place.create()
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in Path(place.dir).rglob("*")}
    assert modes == {True: 0o700, False: 0o600}
    assert Path(place.dir).stat().st_mode & 0o777 == 0o700


def test_trap_35_two_backups_in_one_second_have_their_own_folders(place: _Place) -> None:
    names = [place.create(rotation_id=f"r{number}")[0].name for number in range(3)]
    assert names == [_NAME, f"{_NAME}-1", f"{_NAME}-2"]
    assert [known.rotation_id for known in backup.listing(place.dir)] == ["r0", "r1", "r2"]
    assert backup.find(place.dir, "latest").rotation_id == "r2"


def test_trap_35_names_are_in_utc(place: _Place) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    assert place.create(now=elsewhere)[0].name == _NAME


def test_check_real_check_again_real_again(place: _Place) -> None:
    assert place.create(check=True)[1] is True
    assert place.names() == []
    made, new = place.create()
    place.one.write_bytes(b"KEY=new\n")
    for check in (True, False):
        again, new_again = place.create(check=check, now=NOW + timedelta(days=1))
        assert (new, again, new_again) == (True, made, False)
    assert place.names() == [_NAME]


def test_a_backup_of_fewer_files_is_not_reused(place: _Place) -> None:
    place.create(place.one)
    assert place.create()[1] is True
    assert place.create(place.two)[0].name == f"{_NAME}-1"


def test_a_damaged_backup_is_not_reused(place: _Place) -> None:
    made, _new = place.create()
    Path(made.folder, str(place.one).lstrip("/")).write_bytes(b"KEY=bad\n")
    again, new = place.create()
    assert (again.name, new) == (f"{_NAME}-1", True)


def test_half_made_backups_are_not_listed_and_are_cleaned(place: _Place) -> None:
    partial = Path(place.dir, "secrets-backup-20261120-000000.partial")
    scratch = Path(place.dir, ".scratch-0123456789abcdef")
    other = Path(place.dir, "mine")
    for folder in (partial, scratch, other):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
    assert backup.listing(place.dir) == []
    place.create()
    assert place.names() == ["mine", _NAME]


@pytest.mark.parametrize("stop", range(1, 7))
def test_a_kill_while_it_is_made_leaves_nothing_usable(place: _Place, stop: int) -> None:
    program = """
import os, sys
from datetime import datetime, timezone
from ansible_collections.keyturn.rotation.plugins.module_utils import atomic, backup
real, count = os.rename, 0
def rename(source, target):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os._exit(137)
    real(source, target)
os.rename = rename
backup.create(sys.argv[2], backup.Order(tuple(sys.argv[3:]), "r1"), datetime(2026, 11, 20, tzinfo=timezone.utc))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(stop), place.dir, str(place.one), str(place.two)],
        env={**os.environ, "PYTHONPATH": str(_ROOT / ".build")},
        check=False,
    )
    assert done.returncode == 137
    assert backup.listing(place.dir) == []
    assert place.create()[1] is True
    assert place.names() == [_NAME]


def test_a_full_disk_leaves_nothing_half(place: _Place) -> None:
    """The kernel refuses to let a file grow beyond the limit, as it does on a full disk."""
    place.two.write_bytes(b"x" * 100_000)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        assert _code(place.create) == "backup-failed"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert place.names() == []
    assert place.create()[1] is True


def test_a_file_that_changes_meanwhile_is_not_backed_up_half(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename

    def rename(source: str, target: str) -> None:
        place.one.write_bytes(b"KEY=else\n")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert _code(lambda: place.create(place.one, place.two)) == "backup-failed"
    assert place.names() == []


def test_links_and_folders_are_refused(place: _Place) -> None:
    link = place.folder / "link"
    link.symlink_to(place.one)
    for path in (link, place.folder, Path("/srv/../etc"), Path("relative")):
        assert _code(functools.partial(place.create, path)) == "file-unsafe"
        assert place.names() == []


# -- going back -------------------------------------------------------------------------------------------------------


def test_restore_check_real_check_again_real_again(place: _Place) -> None:
    place.create()
    place.one.write_bytes(b"KEY=new\n")
    place.one.chmod(0o600)
    place.two.unlink()
    changed = [str(place.one), str(place.two)]
    assert place.restore(check=True) == (changed, "")
    assert (place.one.read_bytes(), place.names()) == (b"KEY=new\n", [_NAME])
    told, safety = place.restore()
    assert told == changed
    assert (place.one.read_bytes(), place.two.read_bytes()) == (b"KEY=old\n", b"\x00old")
    assert [path.stat().st_mode & 0o777 for path in (place.one, place.two)] == [0o640, 0o600]
    for check in (True, False):
        assert place.restore(check=check) == ([], "")
    assert place.restore(safety)[0] == changed
    assert (place.one.read_bytes(), place.two.exists()) == (b"KEY=new\n", False)


@pytest.mark.parametrize("left", ["nothing", "the file", "the file without its list"])
def test_a_restored_file_has_its_access_list_again(place: _Place, left: str) -> None:
    give(place.one, LIST)
    place.create()
    if left == "nothing":
        place.one.unlink()
    elif left == "the file":
        place.one.write_bytes(b"KEY=other\n")
    else:
        os.removexattr(place.one, atomic.ACCESS_LIST)
    assert place.restore()[0] == [str(place.one)]
    assert place.one.read_bytes() == b"KEY=old\n"
    assert (atomic.access_list(str(place.one)), place.one.stat().st_mode & 0o777) == LIST_AND_MODE
    assert place.restore()[0] == []


def test_what_a_restore_replaces_is_backed_up_first(place: _Place) -> None:
    place.create()
    place.one.write_bytes(b"KEY=new\n")
    safety = backup.find(place.dir, place.restore()[1])
    assert safety.reason == f"before restoring {_NAME}"
    assert Path(safety.folder, str(place.one).lstrip("/")).read_bytes() == b"KEY=new\n"
    assert backup.find(place.dir, "latest").name == _NAME, "the latest one is the latest of a rotation"


def test_a_file_that_did_not_exist_is_removed_again(place: _Place) -> None:
    later = place.folder / "srv/later.env"
    place.create(place.one, later)
    later.write_bytes(b"KEY=new\n")
    assert place.restore()[0] == [str(later)]
    assert not later.exists()


def test_a_restore_that_fails_in_the_middle_changes_nothing(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.create()
    for path in (place.one, place.two):
        path.write_bytes(b"new")
    real = os.rename

    def rename(source: str, target: str) -> None:
        if target == str(place.two):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert _code(place.restore) == "write-failed"
    assert (place.one.read_bytes(), place.two.read_bytes()) == (b"new", b"new")


def test_a_damaged_backup_changes_nothing(place: _Place) -> None:
    made, _new = place.create()
    place.one.write_bytes(b"KEY=new\n")
    copy = Path(made.folder, str(place.two).lstrip("/"))
    copy.write_bytes(b"\x00bad")
    assert _code(place.restore) == "backup-damaged"
    assert _code(lambda: backup.verify(made)) == "backup-damaged"
    copy.unlink()
    assert _code(place.restore) == "backup-damaged"
    assert (place.one.read_bytes(), place.names()) == (b"KEY=new\n", [_NAME])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", "../../etc/x"),
        ("path", "/srv/../etc/x"),
        ("path", "//srv/x"),
        ("copy", "../outside"),
        ("copy", "/etc/hostname"),
        ("copy", "."),
        ("copy", "link/outside"),
    ],
)
def test_trap_33_paths_that_lead_elsewhere_are_refused(place: _Place, field: str, value: str) -> None:
    place.create()
    (place.folder / "backups/outside").write_bytes(b"KEY=old\n")
    Path(place.dir, _NAME, "link").symlink_to(place.dir)
    place.metadata(lambda content: content["files"][0].update({field: value}))
    assert _code(place.restore) == "backup-unsafe"
    assert place.one.read_bytes() == b"KEY=old\n"


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"rotated_secrets": "KEY"},
        {"files": [{}]},
        {"files": None},
        {"retention_days": "90"},
    ],
)
def test_metadata_that_cannot_be_read_makes_it_unusable(place: _Place, change: dict[str, Any]) -> None:
    place.create()
    place.metadata(lambda content: content.update(change))
    assert [known.usable for known in backup.listing(place.dir)] == [False]
    assert _code(lambda: backup.find(place.dir, _NAME)) == "backup-unusable"
    assert _code(lambda: backup.find(place.dir, "latest")) == "backup-missing"


# -- backups of another program ---------------------------------------------------------------------------------------


def _foreign(place: _Place, name: str, metadata: str | None) -> Path:
    """A backup as the older program made it: files at relative paths, metadata perhaps."""
    folder = Path(place.dir, name)
    (folder / "supabase/docker").mkdir(parents=True)
    (folder / ".env").write_bytes(b"KEY=then\n")
    (folder / "supabase/docker/.env").write_bytes(b"KEY=then too\n")
    if metadata is not None:
        (folder / "metadata.json").write_text(metadata)
    return folder


_SEED = '{"timestamp": "20251031-143000", "rotated_secrets": ["JWT_SECRET"], "affected_services": ["kong"]}'


@pytest.mark.parametrize("metadata", [_SEED, None])
def test_foreign_backups_are_listed_and_restored_below_their_root(place: _Place, metadata: str | None) -> None:
    _foreign(place, "secrets-backup-20251031-143000", metadata)
    root = place.folder / "project"
    (root / "supabase").mkdir(parents=True)
    (root / ".env").write_bytes(b"KEY=now\n")
    (root / ".env").chmod(0o644)
    assert [known.usable for known in backup.listing(place.dir)] == [False]
    known = backup.listing(place.dir, str(root))[0]
    assert known.usable
    assert known.secrets == (("JWT_SECRET",) if metadata else ())
    changed, safety = place.restore("20251031-143000", root=root)
    assert changed == [str(root / ".env"), str(root / "supabase/docker/.env")]
    assert (root / ".env").read_bytes() == b"KEY=then\n"
    assert (root / "supabase/docker/.env").read_bytes() == b"KEY=then too\n"
    assert (root / "supabase/docker/.env").stat().st_mode & 0o777 == 0o600
    assert not (root / "metadata.json").exists()
    assert Path(backup.find(place.dir, safety).folder, str(root / ".env").lstrip("/")).read_bytes() == b"KEY=now\n"


@pytest.mark.parametrize("metadata", ["", "[]", "{", '{"rotated_secrets": "JWT_SECRET"}', '{"affected_services": [1]}'])
def test_foreign_backups_with_bad_metadata_are_not_usable(place: _Place, metadata: str) -> None:
    _foreign(place, "secrets-backup-20251031-143000", metadata)
    assert [known.usable for known in backup.listing(place.dir, str(place.folder))] == [False]


def test_foreign_backups_with_links_are_refused(place: _Place) -> None:
    folder = _foreign(place, "secrets-backup-20251031-143000", _SEED)
    (folder / "link").symlink_to("/etc/hostname")
    assert _code(lambda: place.restore("latest", root=place.folder)) == "backup-unsafe"


def test_our_metadata_has_what_the_older_program_reads(place: _Place) -> None:
    place.create()
    metadata = json.loads(Path(place.dir, _NAME, "metadata.json").read_text())
    assert isinstance(metadata["timestamp"], str)
    for field in ("rotated_secrets", "affected_services"):
        assert all(isinstance(item, str) for item in metadata[field])


def test_folders_with_impossible_times_are_no_backups(place: _Place) -> None:
    _foreign(place, "secrets-backup-20250231-990000", _SEED)
    assert backup.listing(place.dir, str(place.folder)) == []


# -- pruning ----------------------------------------------------------------------------------------------------------


def _prune(place: _Place, check: bool = False, **retention: Any) -> list[str]:
    told = backup.prune(place.dir, Retention(**{"days": 90, **retention}), NOW, check_mode=check)
    return [entry["name"] for entry in told]


def test_trap_29_old_backups_are_removed(place: _Place) -> None:
    for number, days in enumerate((100, 91, 89)):
        place.create(rotation_id=f"r{number}", now=NOW - timedelta(days=days))
    _foreign(place, "secrets-backup-20251031-143000", None)
    old = ["secrets-backup-20251031-143000", "secrets-backup-20260813-123015", "secrets-backup-20260822-123015"]
    assert _prune(place, check=True) == old
    assert len(place.names()) == 4
    assert _prune(place, needed=("r1",)) == [old[0], old[1]]
    assert _prune(place) == [old[2]]
    assert _prune(place) == []
    assert place.names() == ["secrets-backup-20260824-123015"]


def test_a_negative_retention_is_refused(place: _Place) -> None:
    place.create()
    assert _code(lambda: _prune(place, days=-1)) == "retention-invalid"
    assert _code(lambda: _prune(place, keep=-1)) == "retention-invalid"
    assert place.names() == [_NAME]
    assert backup.prune(str(place.folder / "nothing"), Retention(1), NOW) == []


# -- the module's calls -----------------------------------------------------------------------------------------------


def _params(host: Host, state: str, **more: Any) -> dict[str, Any]:
    nothing = {name: option.get("default") for name, option in BACKUP_OPTIONS.items()}
    session = {
        "state_dir": str(host.state_dir),
        "session_dir": None,
        "rotation_id": host.session.rotation_id,
        "epoch": 1,
    }
    return {**session, **nothing, "state": state, **more}


def test_restoring_retired_values_needs_a_word_of_its_own(tmp_path: Path) -> None:
    host = Host(tmp_path)
    path = host.write(".env", b"KEY=first\n")
    request = {"name": "KEY", "new": {"value": "second"}, "stores": [{"type": "env_file", "path": str(path)}]}
    backup.run(_params(host, "created", files=[str(path)], secrets=["KEY"]), False)
    for state in ("staged", "promoted", "retired"):
        host.turn(state, request)
    later = host.rotation("r2")
    assert _code(lambda: backup.run(_params(later, "restored", name="latest"), False)) == "backup-old"
    assert path.read_bytes() == b"KEY=second\n"
    done = backup.run(_params(later, "restored", name="latest", confirm_old=True), False)
    assert (done["changed"], done["restored"], path.read_bytes()) == (True, [str(path)], b"KEY=first\n")


@pytest.mark.parametrize("check", [True, False])
def test_a_restore_names_the_secrets_whose_values_change(tmp_path: Path, check: bool) -> None:
    host = Host(tmp_path)
    path = host.write(".env", b"KEY=first\nOTHER=one\nSAME=x\nGONE=y\n")
    names = ("KEY", "OTHER", "SAME", "GONE")
    secrets = [{"name": name, "stores": [{"type": "env_file", "path": str(path)}]} for name in names]
    elsewhere = host.write("other.env", b"AWAY=1\n")
    secrets.append({"name": "AWAY", "stores": [{"type": "env_file", "path": str(elsewhere)}]})
    backup.run(_params(host, "created", files=[str(path)], secrets=["KEY"]), False)
    for state in ("staged", "promoted"):
        host.turn(state, {**secrets[0], "new": {"value": "second"}})
    elsewhere.write_bytes(b"AWAY=2\n")
    path.write_bytes(path.read_bytes().replace(b"OTHER=one", b"OTHER=two").replace(b"GONE=y\n", b""))
    later = host.rotation("r2")
    told = backup.run(_params(later, "restored", name="latest", compare=secrets), check)
    assert (told["differing"], told["astray"]) == (["GONE", "KEY", "OTHER"], ["KEY"])
    if not check:
        undone = backup.run(_params(later, "restored", name=told["replaced"], compare=secrets), False)
        assert (undone["differing"], undone["astray"]) == (["GONE", "KEY", "OTHER"], [])
    assert "differing" not in backup.run(_params(later, "restored", name="latest"), True)


def test_missing_arguments_are_refused(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert _code(lambda: backup.run(_params(host, "created"), False)) == "files-missing"
    assert _code(lambda: backup.run(_params(host, "pruned"), False)) == "retention-missing"
    assert _code(lambda: backup.run(_params(host, "restored", name="latest"), False)) == "backup-missing"
    assert backup.run(_params(host, "listed"), False)["backups"] == []


@pytest.mark.parametrize("part", ["", "metadata.json"])
def test_an_old_backup_that_cannot_be_removed_keeps_no_rotation_and_no_other_backup(tmp_path: Path, part: str) -> None:
    host = Host(tmp_path)
    path = host.write(".env", b"KEY=x\n")
    made = []
    for days in (400, 300, 200):
        order = Order((str(path),), f"r{days}", secrets=("KEY",))
        made.append(backup.create(str(host.state_dir / "backups"), order, NOW - timedelta(days=days))[0])
    stuck = str(Path(made[1].folder) / part)
    more = {"files": [str(path)], "secrets": ["KEY"], "prune": True, "retention_days": 90}
    subprocess.run(["chattr", "+i", stuck], check=True)
    try:
        told = backup.run(_params(host, "created", **more), False)
        calm = backup.run(_params(host, "pruned", retention_days=90, insist=False), False)
        assert _code(lambda: backup.run(_params(host, "pruned", retention_days=90), False)) == "prune-failed"
    finally:
        subprocess.run(["chattr", "-i", stuck], check=True)
    assert [entry["name"] for entry in told["removed"]] == [made[0].name, made[2].name]
    for found in (told, calm):
        assert [entry["name"] for entry in found["backups"]] == [made[1].name, told["backup"]["name"]]
        (warning,) = found["warnings"]
        assert warning.startswith(f"An old backup stays: {made[1].folder}: cannot be removed (")
    again = backup.run(_params(host, "created", **more), False)
    assert ([entry["name"] for entry in again["removed"]], "warnings" in again) == ([made[1].name], False)


def test_a_run_that_was_taken_over_makes_no_backup(tmp_path: Path) -> None:
    host = Host(tmp_path)
    path = host.write(".env", b"KEY=x\n")
    backup.run(_params(host, "created", files=[str(path)], epoch=3), False)
    assert _code(lambda: backup.run(_params(host, "created", files=[str(path)], epoch=2), False)) == "fenced"
