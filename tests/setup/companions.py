# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the collections that our roles call beside ours in ``.build``, and link the working tree there.

They come out of the ``ansible`` package of the Python package index, so that a test run needs no second kind of
registry. Which ones: those of ``requirements.yml`` and what they depend on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

__all__ = ["PACKAGE", "install", "link_working_tree", "wanted"]

#: The release that goes with the ansible-core of requirements-demo.txt.
PACKAGE = "ansible~=12.3"

_ROOT = Path(__file__).resolve().parents[2]
_TARGET = _ROOT / ".build" / "ansible_collections"


def wanted() -> list[str]:
    """Names (``namespace.name``) of the collections in ``requirements.yml``."""
    listed = yaml.safe_load((_ROOT / "requirements.yml").read_text(encoding="utf-8"))
    return [entry["name"] for entry in listed["collections"]]


def link_working_tree() -> None:
    """Make the working tree importable and callable as ``ansible_collections.keyturn.rotation``."""
    link = _TARGET / "keyturn" / "rotation"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(_ROOT, link.parent))


def _prefix(name: str) -> str:
    return f"ansible_collections/{name.replace('.', '/')}/"


def install(names: list[str]) -> list[str]:
    """Unpack ``names`` and their dependencies; returns what was unpacked. What is there already stays."""
    done: list[str] = []
    queue = [name for name in names if not (_TARGET.parent / _prefix(name) / "MANIFEST.json").is_file()]
    if not queue:
        return done
    with tempfile.TemporaryDirectory(prefix="keyturn-collections-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--dest", folder, PACKAGE], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("ansible-*.whl"))) as wheel:
            members = wheel.namelist()
            while queue:
                name = queue.pop()
                prefix = _prefix(name)
                manifest = json.loads(wheel.read(f"{prefix}MANIFEST.json"))
                # The manifest goes last: it is the mark of a whole collection.
                files = [member for member in members if member.startswith(prefix)]
                files.sort(key=lambda member: member == f"{prefix}MANIFEST.json")
                for member in files:
                    wheel.extract(member, _TARGET.parent)
                done.append(name)
                queue += [needed for needed in manifest["collection_info"]["dependencies"] if needed not in done]
    return sorted(done)


if __name__ == "__main__":
    link_working_tree()
    if sys.argv[1:] != ["--link"]:
        unpacked = install(wanted())
        if unpacked:
            print("Unpacked " + ", ".join(unpacked))
