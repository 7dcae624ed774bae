# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: an AES key turns under live traffic, then everything goes back, with one command each."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from demo.client import Outcome
from demo.stack import SECRET, Stack

__all__ = ["QUIET", "main"]

_ROOT = Path(__file__).resolve().parent.parent
#: Calm output of ansible-playbook.
QUIET = {
    "ANSIBLE_DISPLAY_OK_HOSTS": "no",
    "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "no",
    "ANSIBLE_LOCALHOST_WARNING": "no",
    "ANSIBLE_PIPELINING": "yes",
    "ANSIBLE_INVENTORY_UNPARSED_WARNING": "no",
    "ANSIBLE_STDOUT_CALLBACK": "keyturn.rotation.calm",
    "ANSIBLE_FORCE_COLOR": "",
}


def _say(text: str = "") -> None:
    print(text, flush=True)


def _playbook(stack: Stack, name: str, *arguments: str) -> tuple[list[str], int]:
    command = [
        "ansible-playbook",
        "-i",
        str(stack.inventory),
        f"keyturn.rotation.{name}",
        "-e",
        f"keyturn_only={SECRET}",
    ]
    command += arguments
    environment = {**os.environ, **{key: value for key, value in QUIET.items() if value}}
    environment.setdefault("ANSIBLE_COLLECTIONS_PATH", str(_ROOT / ".build"))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}"
    _say(f"$ {' '.join(part if ' ' not in part else repr(part) for part in command)}")
    return command, subprocess.run(command, env=environment, check=False).returncode


def _traffic(outcome: Outcome) -> str:
    found: dict[str, Any] = outcome.summary
    gap = found["longest_gap_ms"]
    return f"requests    {found['served']} served, {found['failed']} failed, longest gap {gap:.0f} ms"


def _turn(stack: Stack, name: str, *arguments: str, model: Path | None = None, plaintext_ok: bool = False) -> bool:
    """Run one playbook while a client reads and writes, and judge every row afterwards."""
    client = stack.client(rate=60, workers=3, model=model)
    try:
        _command, code = _playbook(stack, name, *arguments)
    finally:
        outcome = client.stop()
    rows = stack.verify(outcome.model, plaintext_ok=plaintext_ok)
    lookups = stack.verify_lookups()
    _say(f"  {_traffic(outcome)}")
    _say(f"  checked     every row against what the client wrote: {rows}; lookups: {lookups}")
    _say()
    return code == 0 and rows.ok and lookups.ok and not outcome.summary["failed"]


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Turn an AES key under live traffic, and back.")
    parser.add_argument("--dir", type=Path, default=_ROOT / ".demo", help="where the demo lives")
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args(arguments)
    if (options.dir / "stack.json").exists():
        Stack.attach(options.dir).remove()
    shutil.rmtree(options.dir, ignore_errors=True)
    started = time.monotonic()
    _say("Starting PostgreSQL, two services and a client")
    with Stack(options.dir, rows=options.rows) as stack:
        _say(f"  hosts       api1 and api2 (services), db (database and state), all under {options.dir}")
        _say(f"  rows        {options.rows} private keys, some of them still in clear")
        _say()
        good = _turn(stack, "rotate", "-e", "keyturn_reason=demo")
        if good:
            _say("Now the way back, with the command that the summary names, while the client goes on writing")
            good = _turn(stack, "rollback", model=options.dir / "client.json", plaintext_ok=True)
    _say(f"The demo took {time.monotonic() - started:.0f} s. Evidence stays in {options.dir}/hosts/db/state/evidence")
    if not good:
        _say("Something went wrong: see above.")
    return 0 if good else 1
