# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long backups stay: by days, by count, and never less than one that is good."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import backup
from ansible_collections.keyturn.rotation.plugins.module_utils.backup import Backup, Order, Retention, folders
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.names import check_format, name_of, time_of
from ansible_collections.keyturn.rotation.plugins.module_utils.backup.retention import expired
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.hosts import NOW

_SHORT = "before-%Y.%m.%d"


def _backup(days: int, *secrets: str, **more: Any) -> Backup:
    made_at = NOW - timedelta(days=days)
    return Backup(name_of(made_at, backup.DEFAULT_FORMAT), "/b", made_at, 0, usable=True, secrets=secrets, **more)


def _gone(backups: Iterable[Backup], bad: Iterable[int] = (), **retention: Any) -> list[int]:
    """How many days old those are that go."""
    known = list(backups)
    sound = {each.name for each in known} - {_backup(days).name for days in bad}
    names = expired(known, sound, Retention(**{"days": 90, **retention}), NOW)
    return [(NOW - each.made_at).days for each in known if each.name in names]


def test_the_newest_good_one_of_each_secret_stays_whatever_its_age() -> None:
    known = [_backup(400, "A"), _backup(300, "A", "B"), _backup(200, "B"), _backup(100, "C")]
    assert _gone(known) == [400]
    assert _gone(known, bad=[200]) == [400, 200]
    assert _gone(known, release=("A",)) == [400, 300]
    assert _gone(known, release=("A", "B", "C")) == [400, 300, 200, 100]


def test_one_without_names_is_good_while_there_is_no_newer_one() -> None:
    assert _gone([_backup(300), _backup(200)]) == [300]
    assert _gone([_backup(300), _backup(200, "A")]) == [300]


def test_what_was_there_before_a_restore_is_no_good_one() -> None:
    assert _gone([_backup(300, "A"), _backup(200, "A", reason="before restoring x")]) == [200]


def test_count_is_by_secret() -> None:
    known = [_backup(5, "A"), _backup(4, "B"), _backup(3, "A"), _backup(2, "A"), _backup(1, "A", "B")]
    assert _gone(known, keep=2) == [5, 3]
    assert _gone(known, keep=1) == [5, 4, 3, 2]
    assert _gone(known, keep=0) == []


def test_what_a_rotation_needs_stays() -> None:
    known = [_backup(300, "A", rotation_id="r1"), _backup(200, "A", rotation_id="r2"), _backup(1, "A")]
    assert _gone(known, needed=("r1",)) == [200]
    assert _gone(known, keep=1, needed=("r1", "r2")) == []


def test_what_is_needed_stays_in_each_folder_that_has_its_name() -> None:
    """Two folders, one named after the other in the catalog, may hold backups of one name; they go by name."""
    needed, other = _backup(200, "A", rotation_id="r1"), _backup(200, "A", rotation_id="r2")
    for twins in ([needed, other], [other, needed]):
        assert _gone([*twins, _backup(1, "A")], needed=("r1",)) == []
    assert _gone([needed, other, _backup(1, "A")]) == [200, 200]


def test_so_many_days_that_no_calendar_has_them_keep_all() -> None:
    known = [_backup(300, "A"), _backup(1, "A")]
    assert _gone(known, days=9999999) == []
    assert known[0].summary(9999999)["expires"] == ""
    assert _gone(known, days=10**12, keep=1) == [300]


def test_pruning_says_why(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"KEY=x\n")
    for days in (100, 3, 2):
        order = Order((str(env),), f"r{days}", secrets=("KEY",))
        backup.create(str(tmp_path / "b"), order, NOW - timedelta(days=days))
    told = backup.prune(str(tmp_path / "b"), Retention(90, keep=1), NOW)
    assert [entry["why"] for entry in told] == ["older than 90 days", "there are 1 newer ones"]
    assert [known.rotation_id for known in backup.listing(str(tmp_path / "b"))] == ["r2"]


def test_a_damaged_one_is_not_the_one_that_stays(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"KEY=x\n")
    for days in (200, 100):
        order = Order((str(env),), f"r{days}", secrets=("KEY",), root=str(tmp_path))
        made, _new = backup.create(str(tmp_path / "b"), order, NOW - timedelta(days=days))
    Path(made.folder, ".env").write_bytes(b"KEY=y\n")
    told = backup.prune(str(tmp_path / "b"), Retention(90), NOW)
    assert [entry["name"] for entry in told] == [made.name]


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    ["", "x", "%Y%m", "%Y%m%d/%H", "../%Y%m%d", "%Y%m%d %H", ".%Y%m%d", "%c-%Y%m%d", "%Y%m%d.partial", "%Y%m%d%"],
)
def test_forms_that_give_no_names_are_refused(form: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        check_format(form)
    assert caught.value.code == "format-invalid"


@pytest.mark.parametrize("form", [backup.DEFAULT_FORMAT, _SHORT, "%Y-%m-%d", "n8n-%d%m%Y-%H%M"])
def test_names_are_read_again(form: str) -> None:
    check_format(form)
    day = datetime(2028, 2, 29, 23, 59, 58, tzinfo=timezone.utc)
    for number in (0, 1, 12):
        read = time_of(name_of(day, form, number), form)
        assert read is not None
        assert (read[0].date(), read[1]) == (day.date(), number)
    assert time_of(name_of(day, backup.DEFAULT_FORMAT), form) == (day, 0)
    assert time_of("secrets-backup-20250229-000000", form) is None
    assert time_of("mine", form) is None


def test_trap_35_two_in_one_second_under_a_form_of_ones_own(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"KEY=x\n")
    names = [
        backup.create(str(tmp_path / "b"), Order((str(env),), f"r{number}", form=_SHORT), NOW)[0].name
        for number in range(3)
    ]
    assert names == ["before-2026.11.21", "before-2026.11.21-1", "before-2026.11.21-2"]
    assert [known.rotation_id for known in backup.listing(str(tmp_path / "b"), form=_SHORT)] == ["r0", "r1", "r2"]
    assert backup.find(str(tmp_path / "b"), "20261121-123015-1", form=_SHORT).rotation_id == "r1"


def test_the_latest_is_the_one_that_was_made_last_also_where_a_name_was_free_again(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"KEY=x\n")
    folder = str(tmp_path / "b")

    def make(number: int) -> str:
        order = Order((str(env),), f"r{number}", secrets=("KEY",), form=_SHORT)
        return backup.create(folder, order, NOW + timedelta(minutes=number))[0].name

    assert [make(0), make(1)] == ["before-2026.11.21", "before-2026.11.21-1"]
    backup.prune(folder, Retention(90, keep=1), NOW, form=_SHORT)
    assert make(2) == "before-2026.11.21"
    assert backup.find(folder, "latest", form=_SHORT).rotation_id == "r2"
    assert [known.rotation_id for known in backup.listing(folder, form=_SHORT)] == ["r1", "r2"]


def test_backups_of_a_form_that_the_catalog_had_before_are_still_known(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"KEY=x\n")
    folder = tmp_path / "b"
    order = Order((str(env),), "r1", secrets=("KEY",), form=_SHORT)
    made, _new = backup.create(str(folder), order, NOW)
    for name in ("mine", "other.partial", ".hidden"):
        (folder / name).mkdir()
        if name != "mine":
            (folder / name / "metadata.json").write_bytes(Path(made.folder, "metadata.json").read_bytes())
    (known,) = backup.listing(str(folder), form="other-%Y%m%d")
    assert (known.name, known.made_at, known.rotation_id, known.usable) == (made.name, NOW, "r1", True)
    assert backup.find(str(folder), made.name, form="other-%Y%m%d").rotation_id == "r1"
    assert backup.prune(str(folder), Retention(90, release=("KEY",)), NOW + timedelta(days=91), form="other-%Y%m%d")
    assert sorted(path.name for path in folder.iterdir()) == [".hidden", "mine", "other.partial"]


@pytest.mark.parametrize("damaged", [b"", b"[[", b"{}7", b"[1]", b'["a"]'])
def test_a_list_of_folders_that_is_damaged_is_named(tmp_path: Path, damaged: bytes) -> None:
    folders.remember(str(tmp_path), str(tmp_path / "before"), None)
    (tmp_path / "before").mkdir()
    assert folders.earlier_folders(str(tmp_path), "/now") == [(str(tmp_path / "before"), None)]
    (tmp_path / "backup-folders.json").write_bytes(damaged)
    with pytest.raises(KeyturnError, match="is not what was written") as refused:
        folders.earlier_folders(str(tmp_path), "/now")
    assert refused.value.code == "backup-folders-damaged"


# -- where copies lie -------------------------------------------------------------------------------------------------


def test_files_of_the_project_lie_at_their_relative_paths(tmp_path: Path) -> None:
    project = tmp_path / "project"
    files = [project / ".env", project / "supabase/docker/.env", tmp_path / "elsewhere/.env"]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode())
    order = Order(tuple(map(str, files)), "r1", secrets=("KEY",), root=str(project))
    folder = str(project / "backups/secrets")
    made, _new = backup.create(folder, order, NOW)
    lying = sorted(str(path.relative_to(made.folder)) for path in Path(made.folder).rglob("*") if path.is_file())
    apart = f"outside{files[2].parent}/copy-of-.env"
    assert lying == sorted([".env", "supabase/docker/.env", "metadata.json", apart])
    assert [name for name in lying if Path(name).name.startswith(".env")] == [".env", "supabase/docker/.env"]
    for path in files:
        path.write_bytes(b"else")
    found = backup.find(folder, "latest", str(project))
    assert backup.restore(found, folder, order, NOW + timedelta(hours=1))[0] == sorted(map(str, files))
    assert [path.read_bytes() for path in files] == [str(path).encode() for path in files]
