# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lose a host as soon as a file of it changes: ``lose.py FILE MARK``. The connection is lost while MARK is there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

__all__ = ["main"]

_SECONDS = 900.0


def main(watched: str, lost: str) -> int:
    """Wait for the change; 0 once it was there."""
    before = Path(watched).read_bytes()
    deadline = time.monotonic() + _SECONDS
    while Path(watched).read_bytes() == before:
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.02)
    Path(lost).parent.mkdir(exist_ok=True)
    Path(lost).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
