# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced: who may read them, and what is written on them, stays."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic

from tests.support.access_lists import INHERITED, LIST, LIST_AND_MODE, give


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
