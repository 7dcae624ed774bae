# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn what is due, retire what may be retired, finish what was interrupted; say what could not be done.

Each rotation is a run of ``ansible-playbook`` of its own, one after the other: one that fails leaves the others alone.
Exits with 0 when everything was done, with 1 when something could not be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLLECTION = "keyturn.rotation"


class Schedule:
    """One round.

    :param command: ``ansible-playbook`` with its inventories and further options.
    """

    def __init__(self, command: Sequence[str], folder: Path, grace: str, reason: str) -> None:
        self._command = list(command)
        self._folder = folder
        self._grace = grace
        self._reason = reason

    def _run(self, playbook: str, **variables: Any) -> int:
        extra = json.dumps({f"keyturn_{name}": value for name, value in variables.items()})
        command = [*self._command, f"{_COLLECTION}.{playbook}", "-e", extra]
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        except OSError as error:
            print(f"keyturn-schedule: {command[0]} cannot be started ({error.strerror})", file=sys.stderr)
            return 127

    def _due(self) -> dict[str, Any] | None:
        """What there is to do; None when nobody can say."""
        path = self._folder / "due.json"
        path.unlink(missing_ok=True)
        code = self._run("due", grace=self._grace, due_to=str(path))
        if code or not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _tell(self, event: str, names: Sequence[str], commands: Sequence[str]) -> None:
        self._run("tell", event=event, only=",".join(sorted(set(names))), commands=list(commands))

    def round(self) -> bool:
        """Do everything once and say whether all of it could be done."""
        first = self._due()
        if first is None:
            self._tell("failed", [], ["see what is due"])
            return False
        failed: list[tuple[list[str], str, dict[str, str]]] = []
        before, tried = first["ended"], set[str]()
        for run in first["runs"]:
            only = ",".join(run["only"])
            if tried & set(run["only"]):  # what ended before this run is no word about this one
                before = (self._due() or first)["ended"]
            tried |= set(run["only"])
            extra = {"reason": self._reason} if run["playbook"] == "rotate" else {}
            code = self._run(run["playbook"], only=only, **extra)
            if code:
                failed.append((run["only"], f"{run['playbook']} {only} (exit code {code})", before))
                print(f"keyturn-schedule: {failed[-1][1]}", file=sys.stderr, flush=True)
        last = self._due() if first["runs"] else first
        # A rotation that came to its end meanwhile has told of it itself. Its end is another one than before: by the
        # clock it may be long to come, where that was wrong once
        ended = last["ended"] if last else {}
        silent = [entry for entry in failed if any(ended.get(name) == entry[2].get(name) for name in entry[0])]
        if silent or last is None:
            names = [name for only, _text, _before in silent for name in only]
            unseen = ["see what is due"] if last is None else []
            self._tell("failed", names, [*(text for _only, text, _before in silent), *unseen])
        overdue = (last or first)["overdue"]
        if overdue:
            self._tell("overdue", overdue, [])
        return not failed and last is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do one round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", default="ansible-playbook", help="the program")
    parser.add_argument("-i", "--inventory", action="append", default=[], help="as for ansible-playbook")
    parser.add_argument("--grace", default="7d", help="how long a secret may be due before it is overdue")
    parser.add_argument("--reason", default="scheduled", help="why, for the evidence")
    parser.add_argument("options", nargs="*", help="further options for ansible-playbook, after --")
    given = parser.parse_args(arguments)
    inventories = [word for path in given.inventory for word in ("-i", path)]
    with tempfile.TemporaryDirectory(prefix="keyturn-schedule-") as folder:
        command = [given.command, *inventories, *given.options]
        return 0 if Schedule(command, Path(folder), given.grace, given.reason).round() else 1


if __name__ == "__main__":
    sys.exit(main())
