# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of itself for somebody who looks into a fault: versions, space, what lies in its state folder.

Names, modes and sizes only. No file that may hold a value is opened.
"""

from __future__ import annotations

import json
import os
import platform
import stat
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import host_facts
from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import read_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.store import EVIDENCE, folders
from ansible_collections.keyturn.rotation.plugins.module_utils.session import check_name
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import read_journal

__all__ = ["LIBRARIES", "library_versions", "run"]

#: What the collection may use, by the name it is distributed under.
LIBRARIES = ("cryptography", "psycopg", "PyJWT", "docker", "jmespath")
_MOST_FILES = 500
_MOST_LINES = 100


def library_versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """The installed versions; one that is not installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _files(folder: str) -> Iterator[dict[str, Any]]:
    """Everything below a folder, by name; symbolic links are named and not followed."""
    for here, names, files in os.walk(folder):
        names.sort()
        for name in sorted([*files, *(name for name in names if os.path.islink(os.path.join(here, name)))]):
            path = os.path.join(here, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            yield {
                "path": os.path.relpath(path, folder),
                "mode": stat.filemode(status.st_mode),
                "uid": status.st_uid,
                "size": status.st_size,
                "modified": int(status.st_mtime),
            }


def _listing(folder: str) -> list[dict[str, Any]]:
    found = []
    for entry in _files(folder):
        found.append(entry)
        if len(found) == _MOST_FILES:
            break
    return found


def _evidence(state_dir: str, rotation_id: str) -> dict[str, Any]:
    """The last record of a rotation, by its folder."""
    directory = os.path.join(state_dir, "evidence")
    mine = (
        [name for name in folders(directory) if name.startswith(f"{rotation_id}.")] if os.path.isdir(directory) else []
    )
    paths = [os.path.join(directory, name, EVIDENCE) for name in mine]
    whole = sorted((os.lstat(path).st_mtime, path) for path in paths if os.path.isfile(path))
    if not whole:
        return {}
    path = whole[-1][1]
    return {os.path.basename(os.path.dirname(path)): json.loads(read_file(path))}


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """One call of the module ``diagnose_info``."""
    state_dir = params["state_dir"]
    rotations = [check_name(name, "rotation_id") for name in params["rotations"]]
    evidence: dict[str, Any] = {}
    problems = []
    for rotation_id in rotations:
        try:
            evidence.update(_evidence(state_dir, rotation_id))
        except (KeyturnError, OSError, ValueError) as error:
            problems.append(f"evidence of {rotation_id}: {type(error).__name__}")
    journals = {rotation_id: read_journal(state_dir, rotation_id)[-_MOST_LINES:] for rotation_id in rotations}
    return {
        "changed": False,
        "system": {
            "name": host_facts.system_name(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "libraries": library_versions(),
        },
        "disk_free": host_facts.disk_free(state_dir),
        "clock": host_facts.clock(),
        "uid": os.geteuid(),
        "state": _listing(state_dir),
        "journals": {name: entries for name, entries in journals.items() if entries},
        "evidence": evidence,
        "problems": problems,
    }
