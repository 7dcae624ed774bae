# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening and closing a run on a host."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import host_facts
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

__all__ = ["run"]


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``rotation_host``."""
    session = Session.from_params(params)
    if params["state"] == "closed":
        return {"changed": _close(session, check_mode)}
    missing = host_facts.missing_libraries(params["libraries"])
    public = ""
    if not any(entry["library"] == "cryptography" for entry in missing):
        with session.changing(check_mode):
            public = session.offer()
    return {
        "changed": False,
        "public": public,
        "missing": missing,
        "compose": "docker" not in params["libraries"] or host_facts.has_compose(),
        "disk_free": host_facts.disk_free(session.state_dir),
        "loose": host_facts.loose_folder(session.state_dir),
        "clock": host_facts.clock(),
        "python": platform.python_version(),
    }


def _close(session: Session, check_mode: bool) -> bool:
    gone = session.close()
    if check_mode and os.path.basename(session.session_dir).startswith("keyturn-check-"):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(session.session_dir)
    return gone and not check_mode
