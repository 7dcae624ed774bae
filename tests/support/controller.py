# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller: ``ansible-playbook`` with a home and a working folder of its own, and nothing from the caller's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import warm as warm_server

__all__ = ["COMPILED", "Controller", "Ended", "kept", "kill_marked", "registry"]

_ROOT = Path(__file__).resolve().parents[2]
#: What ``KEYTURN_COMPILED`` is in tests, and in campaigns.
COMPILED = str(_ROOT / "tests" / "support" / "compiled.py")
_MARK = "KEYTURN_TEST_CONTROLLER"
#: In tests, not in measurements: it looks for results fifty times a second instead of a thousand times, and the zips of
#: modules are kept between runs.
_CALM = f"""\
[defaults]
internal_poll_interval = 0.02
callback_plugins = {_ROOT}/tests/support/callbacks
callbacks_enabled = kept_modules
"""


def kept(warm: bool = True) -> dict[str, str]:
    """The part of a controller's environment by which tests keep from run to run what users' runs make anew."""
    return {
        "KEYTURN_COMPILED": os.environ.get("KEYTURN_COMPILED", ""),
        "KEYTURN_ZIPS": str(_ROOT / ".cache" / "zips"),
        "KEYTURN_WARM": warm_server.address() if warm else "",
    }


@dataclass(frozen=True)
class Ended:
    """How a playbook ended."""

    code: int
    output: str


class Controller:
    """A machine to run playbooks from.

    :param folder: its home; made new.
    :param warm: whether modules on this machine start from a process that has imported what they need.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, warm: bool = True) -> None:
        is_test = bool(os.environ.get("KEYTURN_COMPILED"))
        self.home = folder
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / ".ansible.cfg").write_text(_CALM if is_test else "")
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(_ROOT / ".build"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            **kept(warm),
            _MARK: str(folder),
            **(environment or {}),
        }

    def command(self, inventory: Path, playbook: str, *arguments: str, **variables: Any) -> list[str]:
        """The command line of one of the collection's playbooks; variables are given with ``-e``."""
        program = str(Path(sys.executable).parent / "ansible-playbook")
        extra = ["-e", json.dumps({f"keyturn_{name}": value for name, value in variables.items()})] if variables else []
        return [program, "-i", str(inventory), f"keyturn.rotation.{playbook}", *extra, *arguments]

    def start(self, inventory: Path, playbook: str, *arguments: str, **variables: Any) -> subprocess.Popen[str]:
        """Start a playbook in a session of its own."""
        return self._start(self.command(inventory, playbook, *arguments, **variables))

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, inventory: Path, playbook: str, *arguments: str, **variables: Any) -> Ended:
        """Run a playbook to its end."""
        return self.run_command(self.command(inventory, playbook, *arguments, **variables))

    def run_command(self, command: list[str]) -> Ended:
        """Run what :meth:`command` gave, perhaps with another playbook in it, to its end."""
        process = self._start(command)
        output = process.communicate(timeout=600)[0]
        return Ended(process.returncode, output)


def kill_marked(controller: Controller, keep: str = "demo.service") -> int:
    """SIGKILL every process that this controller started, wherever it went, but for the services it has started."""
    mark = f"{_MARK}={controller.home}".encode()
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            if mark in environment and keep.encode() not in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
    return killed


def registry(state_dir: Path) -> dict[str, Any]:
    """The register as it lies on the state host; empty before the first rotation."""
    try:
        content: dict[str, Any] = json.loads((state_dir / "registry.json").read_text())
    except FileNotFoundError:
        return {"secrets": {}, "rotations": {}}
    return content
