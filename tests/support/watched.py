# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that keeps all that a run says and leaves: output, log, facts, results, temporary files, programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.canaries import decode_trace
from tests.support.controller import Controller, Ended

__all__ = ["ROOT", "Watched", "copy_collection"]

ROOT = Path(__file__).resolve().parents[2]
_LONGEST_ARGUMENT = 131_072  # MAX_ARG_STRLEN of Linux
_SECONDS = 600


class Watched(Controller):
    """Runs playbooks with everything on that may show a secret.

    :param folder: its home; what runs leave lies below ``left`` in it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.left = folder / "left"
        places = {name: self.left / name for name in ("facts", "local", "remote", "tmp", "async", "trace", "output")}
        for place in places.values():
            place.mkdir(parents=True)
        super().__init__(
            folder,
            {
                "ANSIBLE_ASYNC_DIR": str(places["async"]),
                "ANSIBLE_CACHE_PLUGIN": "jsonfile",
                "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(places["facts"]),
                "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/support/callbacks"),
                "ANSIBLE_CALLBACKS_ENABLED": "dump_results",
                "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1",
                "ANSIBLE_DISPLAY_TRACEBACK": "error,warning",
                "ANSIBLE_KEEP_REMOTE_FILES": "1",
                "ANSIBLE_LOCAL_TEMP": str(places["local"]),
                "ANSIBLE_LOG_PATH": str(self.left / "log"),
                "ANSIBLE_REMOTE_TMP": str(places["remote"]),
                "ANSIBLE_SHOW_CUSTOM_STATS": "1",
                "KEYTURN_DUMP": str(self.left / "dump"),
                "TMPDIR": str(places["tmp"]),
                **(environment or {}),
            },
            warm=False,
        )

    def watch(self, name: str, command: Sequence[str]) -> Ended:
        """Run a command to its end and keep its output and every program it started, with arguments and environment.

        The tracer stays with the services that a run has started, so the output goes to a file and not to a pipe.
        """
        strace = shutil.which("strace")
        if strace is None:
            raise FileNotFoundError("strace is not installed")
        what = ["-e", "trace=execve,execveat", "-v", "-xx", "-s", str(_LONGEST_ARGUMENT)]
        output = self.left / "output" / name
        with output.open("xb") as stream:
            code = subprocess.run(
                [strace, "-D", "-f", "--seccomp-bpf", *what, "-o", str(self.left / "trace" / name), "--", *command],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            ).returncode
        return Ended(code, output.read_text(encoding="utf-8", errors="replace"))

    def rotation(self, name: str, inventory: Path, playbook: str, *arguments: str, **variables: Any) -> Ended:
        """Run one of the collection's playbooks with ``-vvvv --diff``."""
        return self.watch(name, self.command(inventory, playbook, "-vvvv", "--diff", *arguments, **variables))

    def playbook(self, name: str, path: Path, inventory: Path) -> Ended:
        """Run any playbook with ``-vvvv --diff``."""
        program = str(Path(sys.executable).parent / "ansible-playbook")
        return self.watch(name, [program, "-i", str(inventory), "-vvvv", "--diff", str(path)])

    def programs(self, name: str) -> bytes:
        """Every program that a run has started, with arguments and environment."""
        return decode_trace((self.left / "trace" / name).read_bytes())


def copy_collection(folder: Path, additions: Mapping[str, str]) -> Path:
    """A copy of the collection, with lines of Python added to some of its files; the folder to look for it in."""
    copy = folder / "ansible_collections/keyturn/rotation"
    for part in ("meta", "playbooks", "plugins", "roles"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "galaxy.yml", copy)
    for path, lines in additions.items():
        with (copy / path).open("a", encoding="utf-8") as stream:
            stream.write(lines)
    return folder
