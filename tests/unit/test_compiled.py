# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Code that tests keep is that of the source at hand, and only where it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_COMPILED = Path(__file__).resolve().parents[1] / "support/compiled.py"


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A copy of its own, so that what is kept is under the test's folder."""
    copy = tmp_path / "tests/support/compiled.py"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(_COMPILED, copy)
    return copy


def _said(folder: Path, source: str, compiled: str) -> str:
    with zipfile.ZipFile(folder / "modules.zip", "w") as file:
        file.writestr("some.py", source)
    environment = {**os.environ, "PYTHONPATH": str(folder / "modules.zip"), "KEYTURN_COMPILED": compiled}
    return subprocess.run(
        [sys.executable, "-c", "import some"], env=environment, capture_output=True, text=True, check=True
    ).stdout


def _kept(folder: Path) -> list[Path]:
    return sorted((folder / ".cache/compiled").glob("*"))


def test_it_is_kept_and_taken_again(tmp_path: Path, compiled: Path) -> None:
    assert _said(tmp_path, "print('one')", str(compiled)) == "one\n"
    (kept,) = _kept(tmp_path)
    other = _kept_of(tmp_path, "print('two')", compiled)
    assert _said(tmp_path, "print('two')", str(compiled)) == "two\n"
    shutil.copyfile(other, kept)
    assert _said(tmp_path, "print('one')", str(compiled)) == "two\n", "it was not taken"


def _kept_of(folder: Path, source: str, compiled: Path) -> Path:
    before = set(_kept(folder))
    _said(folder, source, str(compiled))
    (new,) = set(_kept(folder)) - before
    return new


def test_what_is_broken_is_made_anew(tmp_path: Path, compiled: Path) -> None:
    kept = _kept_of(tmp_path, "print('one')", compiled)
    for wrong in (b"", b"no code", kept.read_bytes()[:-9]):
        kept.write_bytes(wrong)
        assert _said(tmp_path, "print('one')", str(compiled)) == "one\n"


def test_nothing_is_kept_unless_asked_for(tmp_path: Path) -> None:
    assert _said(tmp_path, "print('one')", "") == "one\n"
    assert _kept(tmp_path) == []
