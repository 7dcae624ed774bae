# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured: one JSON object a line as it comes, a table for people at the end, a picture for the docs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Figure", "Report", "draw"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 400, 70, 30, 190, 50
_COLORS = ("#1b6ca8", "#c8553d", "#588157", "#8f5aa8", "#b08900", "#555555")


@dataclass(frozen=True)
class Figure:
    """One measurement: the median over its runs.

    :param ratio: times what ``against`` took in the same run; milliseconds where the name ends in ``_ms``.
    :param rss_mb: memory of the largest process.
    :param growth: by how much the table grew, as a share of its size.
    """

    name: str
    ratio: float
    against: str
    runs: int
    rss_mb: float | None = None
    growth: float | None = None


class Report:
    """Figures in the order they came."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, figure: Figure) -> None:
        """Keep a figure and print it."""
        self.figures.append(figure)
        print(json.dumps(asdict(figure)), flush=True)

    def table(self) -> str:
        """All figures for people."""
        rows = [("what", "ratio", "against", "runs", "memory", "growth")]
        for figure in self.figures:
            memory = "" if figure.rss_mb is None else f"{figure.rss_mb:.0f} MB"
            growth = "" if figure.growth is None else f"{100 * figure.growth:.0f} %"
            rows.append((figure.name, f"{figure.ratio:.2f}", figure.against, str(figure.runs), memory, growth))
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low)) * (end - start)


def draw(series: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> None:
    """Rows a second against rows of the table, both logarithmic, as SVG.

    :param series: by name, points ``(rows, rows a second)``.
    """
    sizes = sorted({size for points in series.values() for size, _rate in points})
    rates = [rate for points in series.values() for _size, rate in points]
    low, high = 10 ** math.floor(math.log10(min(rates))), 10 ** math.ceil(math.log10(max(rates)))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(size: float) -> float:
        return _scale(size, sizes[0], sizes[-1], _LEFT, right)

    def y(rate: float) -> float:
        return _scale(rate, low, high, bottom, _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="18">rows a second, by rows in the table</text>',
    ]
    rate = float(low)
    while rate <= high:
        parts.append(f'<path d="M{_LEFT} {y(rate):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate:,.0f}</text>')
        rate *= 10
    for size in sizes:
        parts.append(f'<text x="{x(size):.1f}" y="{bottom + 20}" text-anchor="middle">{size:,}</text>')
    for number, (name, points) in enumerate(series.items()):
        color = _COLORS[number % len(_COLORS)]
        line = " ".join(f"{x(size):.1f},{y(speed):.1f}" for size, speed in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(size):.1f}" cy="{y(speed):.1f}" r="3" fill="{color}"/>' for size, speed in points]
        parts.append(f'<text x="{right + 10}" y="{y(points[-1][1]) + 4:.1f}" fill="{color}">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
