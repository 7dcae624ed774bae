# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module in a process of its own, as Ansible runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Ran", "run_module_process"]

ROOT = Path(__file__).resolve().parents[2]


class Ran(dict[str, Any]):
    """The answer of a module, and all it printed."""

    printed = ""


def run_module_process(name: str, arguments: dict[str, Any], check: bool = False, **variables: str) -> Ran:
    """Run a module of this collection; ``variables`` are added to its environment."""
    given = {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.keyturn.rotation.plugins.modules.{name}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
        env={**os.environ, "PYTHONPATH": str(ROOT / ".build"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    answer = Ran(json.loads(done.stdout))
    answer.printed = done.stdout + done.stderr
    return answer
