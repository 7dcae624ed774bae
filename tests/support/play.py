# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play of a few tasks on local hosts, for actions that need more than their own arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.controller import Controller, Ended
from tests.support.local import LOCAL

__all__ = ["run_tasks"]


def run_tasks(
    folder: Path, hosts: Mapping[str, Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]], *arguments: str
) -> Ended:
    """Run tasks of the collection.

    :param folder: where the play and its home are made.
    :param hosts: by name the variables of each; the names of actions are given without the collection's.
    """
    inventory, playbook = folder / "inventory.json", folder / "play.json"
    inventory.write_text(json.dumps({"all": {"vars": LOCAL, "hosts": hosts}}))
    play = {"name": "P", "hosts": "all", "gather_facts": False, "any_errors_fatal": False, "tasks": list(tasks)}
    playbook.write_text(json.dumps([play]))
    controller = Controller(folder / "home")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(playbook), *arguments],
        cwd=controller.home,
        env=controller.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout)
