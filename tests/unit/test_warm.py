# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that is handed to the server of ``warm.py`` runs as it would in a new Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import warm

_LOOKS = """
import json, os, signal, sys
import __main__
print(json.dumps({
    "name": __name__, "same": vars(__main__) is globals(), "argv": sys.argv, "folder": os.getcwd(),
    "umask": os.umask(0), "given": os.environ.get("GIVEN"), "warm": "psycopg" in sys.modules,
    "term": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "file": hasattr(__main__, "__file__"),
}))
"""


def _start(program: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, **environment},
        umask=0o027,
        text=True,
    )
    if process.stdin is None:
        raise RuntimeError("no pipe")
    process.stdin.write(program)
    process.stdin.close()
    process.stdin = None
    return process


def test_it_has_what_a_new_python_has(tmp_path: Path) -> None:
    cold = _start(_LOOKS, tmp_path, KEYTURN_WARM="", GIVEN="x y").communicate(timeout=60)
    hot = _start(_LOOKS, tmp_path, KEYTURN_WARM=warm.address(), GIVEN="x y").communicate(timeout=60)
    assert '"warm": true' in hot[0]
    assert '"warm": false' in cold[0]
    assert hot[0].replace('"warm": true', '"warm": false') == cold[0]
    assert str(tmp_path) in cold[0]
    assert hot[1] == cold[1] == ""


@pytest.mark.parametrize("end", ["raise SystemExit(7)", "import sys; sys.exit('no')", "1/0", "import os; os.abort()"])
def test_it_ends_as_a_new_python_ends(tmp_path: Path, end: str) -> None:
    runs = [_start(end, tmp_path, KEYTURN_WARM=path) for path in ("", warm.address())]
    outputs = [run.communicate(timeout=60) for run in runs]
    assert runs[0].returncode == runs[1].returncode != 0
    assert outputs[0][1].splitlines()[-1:] == outputs[1][1].splitlines()[-1:]


def test_it_is_killed_with_the_one_that_waits(tmp_path: Path) -> None:
    program = "import os, time; open('pid', 'w').write(str(os.getpid())); open('begun', 'w'); time.sleep(600)"
    process = _start(program, tmp_path, KEYTURN_WARM=warm.address())
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    pid = int((tmp_path / "pid").read_text())
    assert pid != process.pid
    os.kill(pid, 0)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()
