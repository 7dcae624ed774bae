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


def copy() -> Path:
    """Make the copy anew and return its path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT,
        check=True,
        capture_output=True,
    )
    shutil.rmtree(_TARGET, ignore_errors=True)
    for name in sorted(set(os.fsdecode(listed.stdout).split("\0")) - {""}):
        source, target = _ROOT / name, _TARGET / name
        if not name.startswith("demo/") and source.exists():  # a file may be deleted and not committed yet
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
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
