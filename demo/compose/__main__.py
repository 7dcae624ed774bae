# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m demo.compose``: the demo; or its stack, step by step, on the daemon of ``DOCKER_HOST``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from demo.compose.judge import judge, mark
from demo.compose.run import demonstrate
from demo.compose.stack import SECRETS, Stack

_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.compose", description="Secrets of two Compose projects turn.")
    parser.add_argument("--dir", type=Path, default=_ROOT / ".demo" / "compose", help="where the stack lives")
    parser.add_argument("do", nargs="?", choices=["demo", "up", "down", "mark", "judge"], default="demo")
    parser.add_argument("turned", nargs="*", help="for judge: what should have another value than at mark, or all")
    options = parser.parse_args(arguments)
    if options.do == "demo":
        return 0 if demonstrate(options.dir, _ROOT / ".cache" / "molecule") else 1
    stack = Stack(options.dir, os.environ.get("DOCKER_HOST", ""))
    if options.do == "judge":
        verdict = judge(stack, SECRETS if options.turned == ["all"] else options.turned)
        print(verdict)
        return 0 if verdict.ok else 1
    if options.do == "up":
        stack.up()
    elif options.do == "down":
        stack.down()
    else:
        mark(stack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
