# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long to wait between two looks: short at first, since users wait for the end of a restart too."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["pauses"]

_FIRST = 0.1
_GROWTH = 1.5
_SHORTEST = 0.05


def pauses(longest: float) -> Iterator[float]:
    """Seconds, without end: 0.1 first, each half as long again as the one before, up to ``longest`` (at least 0.05)."""
    longest = max(longest, _SHORTEST)
    pause = min(_FIRST, longest)
    while True:
        yield pause
        pause = min(pause * _GROWTH, longest)
