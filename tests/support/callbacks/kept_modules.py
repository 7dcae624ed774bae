# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback that keeps the zips of modules between runs; Ansible makes them anew in each.

The collection's own code for the controller is compiled once as well (``tests/support/compiled.py``); Ansible compiles
it in each run, a tenth of a short one. The search for cycles, another tenth, is off: a run of a test is short.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import os
import shutil
import zipimport
from pathlib import Path
from types import CodeType

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.release import __version__
from ansible.utils.collection_loader import _collection_finder

DOCUMENTATION = """
name: kept_modules
type: notification
short_description: Keep the zips of modules between runs
description: Zips are kept in the folder in KEYTURN_ZIPS, for these very sources.
"""

_ENDING = "-none"  # no debugger, no coverage


def _sources() -> str:
    """Changes with each change of the collection's plugins, and of Ansible."""
    plugins = Path(importlib.import_module("ansible_collections.keyturn.rotation.plugins").__path__[0])
    found = hashlib.sha256(f"{constants.__file__} {__version__}".encode())
    for path in sorted(plugins.rglob("*.py")):
        at = path.stat()
        found.update(f"{path} {at.st_mtime_ns} {at.st_size} {at.st_ino}\n".encode())
    return found.hexdigest()


def _copy(source: Path, target: Path) -> None:
    """What is there already stays; no half a file is ever seen."""
    for path in source.iterdir() if source.is_dir() else ():
        if path.name.endswith(_ENDING) and not (target / path.name).exists():
            part = target / f"{path.name}.{os.getpid()}"
            shutil.copyfile(path, part)
            os.replace(part, target / path.name)


def _compile(source: bytes | str, filename: str, **_how: object) -> CodeType:
    """As ``compile``, for what is a whole module."""
    text = source.encode() if isinstance(source, str) else source
    code: CodeType = vars(zipimport)["_compile_source"](filename, text)
    return code


class CallbackModule(CallbackBase):
    """Puts what is kept where Ansible looks first, and keeps what it has made."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "kept_modules"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Before the first task."""
        super().__init__()
        gc.disable()
        vars(_collection_finder)["compile"] = _compile
        self._kept = Path(os.environ["KEYTURN_ZIPS"]) / _sources()
        self._used = Path(vars(constants)["DEFAULT_LOCAL_TMP"]) / "ansiballz_cache"
        self._used.mkdir(exist_ok=True)
        _copy(self._kept, self._used)

    def v2_playbook_on_stats(self, _stats: object) -> None:
        """After the last task."""
        with contextlib.suppress(OSError):
            self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(self._used, self._kept)
