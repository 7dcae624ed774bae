# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy the working tree, as git would commit it, to ``.build/sanity/ansible_collections/keyturn/rotation``.

ansible-test wants a real folder at that kind of path, and asks git which files belong to it: the copy is a repository
of its own, or the ``.gitignore`` of the working tree would hide it. The demo stays out: it is no
part of the collection.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["copy", "offer_pip"]

_ROOT = Path(__file__).resolve().parents[2]
_TARGET = _ROOT / ".build" / "sanity" / "ansible_collections" / "keyturn" / "rotation"

# ansible-test fetches a bootstrap script for pip unless it finds one here. Every Python that can make a virtual
# environment brings pip along, so the script we leave installs that one, and nothing is downloaded.
_PIP_SCRIPT = "get_pip_24_2.py"
_PIP_BOOTSTRAP = '''\
"""Stand-in for get-pip.py: installs the pip that comes with this Python."""

import ensurepip

ensurepip.bootstrap(default_pip=True)
'''


def _names() -> set[str]:
    """The files that git tracks or would take, relative to the top."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT,
        check=True,
        capture_output=True,
    )
    names = set(os.fsdecode(listed.stdout).split("\0")) - {""}
    # A file may be deleted and the deletion not committed yet.
    return {name for name in names if not name.startswith("demo/") and (_ROOT / name).exists()}


def copy() -> Path:
    """Bring the copy in line with the working tree and return its path. What is in use there stays in place."""
    _TARGET.mkdir(parents=True, exist_ok=True)
    names = _names()
    for path in sorted(_TARGET.rglob("*"), reverse=True):
        name = path.relative_to(_TARGET).as_posix()
        if name.startswith((".git/", "tests/output/")) or name in {".git", "tests/output"}:
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in names:
            path.unlink()
    for name in sorted(names):
        target = _TARGET / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(_ROOT / name, target, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet"], cwd=_TARGET, check=True)
    return _TARGET


def offer_pip() -> None:
    """Leave the bootstrap script where ansible-test looks for it, unless one is there."""
    script = Path.home() / ".ansible" / "test" / "cache" / _PIP_SCRIPT
    if not script.exists():
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(_PIP_BOOTSTRAP, encoding="utf-8")


if __name__ == "__main__":
    offer_pip()
    print(copy())
