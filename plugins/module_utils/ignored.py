# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders with secrets that lie in a git work tree tell git to leave them alone."""

from __future__ import annotations

import os

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import private_dir, read_file, write_file

__all__ = ["in_work_tree", "keep_out_of_git"]

_EVERYTHING = b"*"


def in_work_tree(folder: str) -> bool:
    """Whether git has a work tree around this folder."""
    here = os.path.realpath(folder)
    while True:
        if os.path.lexists(os.path.join(here, ".git")):
            return True
        above = os.path.dirname(here)
        if above == here:
            return False
        here = above


def keep_out_of_git(folder: str, *, check_mode: bool = False) -> bool:
    """Make sure that git ignores everything in ``folder``, with a file in the folder itself; says whether it changed.

    Nothing else of the work tree is touched, and what a person wrote into that file stays.
    """
    if not in_work_tree(folder):
        return False
    path = os.path.join(folder, ".gitignore")
    content = read_file(path) if os.path.lexists(path) else b""
    if _EVERYTHING in content.split():
        return False
    if not check_mode:
        private_dir(folder)
        before = content + b"\n" if content and not content.endswith(b"\n") else content
        write_file(path, before + _EVERYTHING + b"\n")
    return True
