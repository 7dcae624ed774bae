# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers, names and tables as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["duration", "have_turned", "progress", "table", "thousands"]


def thousands(number: int) -> str:
    """``120 000``."""
    return f"{number:,}".replace(",", " ")


def duration(seconds: float) -> str:
    """``2.5 s``, ``4 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def have_turned(names: Sequence[str]) -> str:
    """What is said of them after their names."""
    return "have turned" if len(names) > 1 else "has turned"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with straight columns, the head first."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def progress(said: Mapping[str, Any]) -> str:
    """How far a re-encryption is, from its progress file: rows, rate, and the time that is left."""
    done, total, rate, left = (said.get(key) or 0 for key in ("done", "total", "rate", "left_s"))
    rows = f"{thousands(int(done))} of {thousands(int(total))} rows ({100 * done // total} %)" if total else ""
    parts = [f"{said.get('table')}.{said.get('column')} {rows or thousands(int(done)) + ' rows'}"]
    if said.get("paused"):
        parts.append("paused")
    elif said.get("behind"):
        parts.append("waits for a standby that is behind")
    elif rate:
        parts.append(f"{thousands(round(rate))}/s")
        if said.get("left_s") is not None:
            parts.append(f"{duration(left) if left >= 120 else f'{left:.0f} s'} left")
    return ", ".join(parts)
