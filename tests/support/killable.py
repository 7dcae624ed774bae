# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module's work (``reencrypt``, or another one) in processes of their own that can be killed at any moment.

Run as a program it imports everything once and then forks for each line of JSON arguments it is given.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Killable"]

_ROOT = Path(__file__).parents[2]
_FAILED = 7
_CORE = "ansible_collections.keyturn.rotation.plugins.module_utils"


class Killable:
    """A forking runner.

    :param work: the part of the core whose ``run`` is run.
    """

    def __init__(self, work: str = "postgres.job") -> None:
        paths = [str(_ROOT), str(_ROOT / ".build")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killable", f"{_CORE}.{work}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            text=True,
        )

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the runner has no pipes")
        return self._process.stdin, self._process.stdout

    def run(self, params: dict[str, Any], kill_after: float | Callable[[], object] | None = None) -> str:
        """``ok``, ``killed``, or the code of the error that ended it.

        :param kill_after: seconds, or a call that returns when it is time.
        """
        send, receive = self._pipes()
        send.write(json.dumps(params) + "\n")
        send.flush()
        pid = int(receive.readline())
        timer = None
        if kill_after is not None:
            wait, seconds = (kill_after, 0.0) if callable(kill_after) else (lambda: None, kill_after)
            timer = threading.Timer(seconds, self._kill, (pid, wait))
            timer.start()
        answer = receive.readline().strip()
        if timer is not None:
            timer.cancel()
            timer.join()
        send.write("gone\n")  # the process number stays taken until nobody can kill it any more
        send.flush()
        return answer

    @staticmethod
    def _kill(pid: int, wait: Callable[[], object]) -> None:
        wait()
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the runner."""
        self._pipes()[0].close()
        self._process.wait(30)


def _child(run: Callable[[dict[str, Any], bool], object], params: dict[str, Any], result: int) -> None:
    random.seed()
    try:
        run(params, False)
        os.write(result, b"ok")
    except KeyturnError as error:
        os.write(result, error.code.encode())
        os._exit(_FAILED)
    os._exit(0)


def _serve(work: str) -> None:
    run = importlib.import_module(work).run
    for line in sys.stdin:
        params = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(run, params, writing)
        os.close(writing)
        print(pid, flush=True)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with os.fdopen(reading, "rb") as pipe:
            print(pipe.read().decode() or "killed", flush=True)
        sys.stdin.readline()
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _serve(sys.argv[1])
