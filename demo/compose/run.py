# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The second demo: all secrets of two Compose projects turn under traffic, then everything goes back."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from demo.compose.client import Client
from demo.compose.judge import judge, mark
from demo.compose.stack import SECRETS, Stack
from demo.dockerd import Dockerd
from demo.run import QUIET

__all__ = ["demonstrate", "playbook"]

_ROOT = Path(__file__).resolve().parents[2]


def _say(text: str = "") -> None:
    print(text, flush=True)


def playbook(stack: Stack, name: str, *arguments: str) -> int:
    """Run one of the collection's playbooks as a person would; its exit code."""
    command = ["ansible-playbook", "-i", str(stack.inventory), f"keyturn.rotation.{name}", *arguments]
    environment = {**os.environ, **{key: value for key, value in QUIET.items() if value}}
    environment.setdefault("ANSIBLE_COLLECTIONS_PATH", str(_ROOT / ".build"))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}"
    _say(f"$ {shlex.join(command)}")
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


def _turn(stack: Stack, name: str, *arguments: str, turned: tuple[str, ...]) -> bool:
    """Run a playbook under traffic and judge the stack afterwards."""
    with Client(stack.gateway) as client:
        time.sleep(1)
        code = playbook(stack, name, *arguments)
        time.sleep(1)
    verdict = judge(stack, turned)
    _say(f"  {client}")
    _say(f"  checked     {verdict}".replace("; ", "\n              "))
    _say()
    return code == 0 and verdict.ok and client.served > 0 and not client.failed


def demonstrate(folder: Path, cache: Path) -> bool:
    """Start the stack, turn everything, go back, remove the stack. Whether everything was right.

    :param cache: keeps the images, so that they are made once.
    """
    started = time.monotonic()
    with ExitStack() as ends:
        docker_host = os.environ.get("DOCKER_HOST", "")
        if not docker_host:
            _say("Starting a Docker daemon of our own (the first time, its images are made: some minutes)")
            docker_host = ends.enter_context(Dockerd(cache)).host
        Stack(folder, docker_host).down()  # what a killed run has left
        _say("Starting the stack")
        stack = ends.enter_context(Stack(folder, docker_host))
        mark(stack)
        _say("  host core   project keyturn-shop: PostgreSQL, Redis, an API that verifies tokens, nginx in front")
        _say("  host jobs   project keyturn-jobs: a worker, which has three of the secrets too")
        _say(f"  secrets     {', '.join(SECRETS)}")
        _say(f"It took {time.monotonic() - started:.0f} s.")
        _say()
        good = playbook(stack, "plan", "-e", "keyturn_only=all") == 0
        _say()
        good = good and _turn(stack, "rotate", "-e", "keyturn_only=all", "-e", "keyturn_reason=demo", turned=SECRETS)
        if good:
            _say("Now the way back, with the command that the summary names")
            only = f"keyturn_only={','.join(SECRETS)}"
            good = _turn(stack, "rollback", "-e", only, turned=())
    _say(f"The demo took {time.monotonic() - started:.0f} s. Nothing of it is left but the images, in {cache}")
    if not good:
        _say("Something went wrong: see above.")
    return good
