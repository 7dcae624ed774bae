# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions of every secret in time, as one picture. Pure; time is passed in."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import page
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp
from ansible_collections.keyturn.rotation.plugins.module_utils.registry import turned_in

__all__ = ["STYLE", "Version", "picture", "versions_of"]

_DAY = 86400.0
_STEPS = (1, 2, 7, 14, 30, 61, 91, 182, 365, 730, 1825, 3650)  # days between two marks of the axis
_MARKS = 7
_LONGEST = 3650 * _DAY
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BAR = 1000.0, 200.0, 12.0, 26.0, 30.0, 12.0
_NAME_LENGTH = 26
_OVER = ("retired", "closed", "replaced")

STYLE = """
.timeline{display:block;width:100%;min-width:44rem;height:auto}
.timeline text{font:12px system-ui,sans-serif;fill:var(--ink)}.timeline .axis{fill:var(--soft)}
.timeline .grid{stroke:var(--line)}.timeline .now{stroke:var(--ink);stroke-width:1.5}
.timeline .period{fill:none;stroke:var(--soft);stroke-dasharray:3 3}.timeline .period.bad{stroke:var(--bad)}
.timeline .version{fill:var(--bar)}.timeline .version.back{fill:var(--warn)}.timeline .version.before{opacity:.45}
.timeline .late{fill:var(--bad)}.timeline .overlap{fill:var(--good)}
.key{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:.75rem 0 0}
.key svg{width:1.6rem;height:.7rem;margin-right:.4rem}
"""


@dataclass(frozen=True)
class Version:
    """One version of a secret, seconds since 1970 UTC.

    :param began: when it became primary.
    :param ended: when it was followed by another one, or rolled back; None while it is primary.
    :param kept_until: until when the one before was, or is to be, accepted beside it.
    """

    rotation_id: str
    began: float
    ended: float | None
    kept_until: float | None
    rolled_back: bool


def _time(rotation: Mapping[str, Any], name: str) -> float | None:
    return parse_stamp(str(rotation[name])) if rotation.get(name) else None


def _went_back(name: str, rotation: Mapping[str, Any]) -> bool:
    """Whether it did with this secret, which may have turned again before."""
    return rotation["status"] == "rolled_back" and name in rotation["secrets"]


def versions_of(name: str, rotations: Mapping[str, Mapping[str, Any]]) -> list[Version]:
    """The versions of a secret, the oldest first, as the register knows them."""
    turned = []
    for rotation_id, rotation in rotations.items():
        began = _time(rotation, "turned_at")
        if began is None and rotation["status"] in ("overlap", "superseded"):
            began = _time(rotation, "ended_at")
        if began is not None and name in turned_in(rotation):
            turned.append((began, rotation_id, rotation))
    turned.sort(key=lambda entry: entry[:2])
    lasting = [began for began, _id, rotation in turned if not _went_back(name, rotation)]
    found = []
    for began, rotation_id, rotation in turned:
        back = _went_back(name, rotation)
        after = [moment for moment in lasting if moment > began]
        ended = _time(rotation, "ended_at") if back else (after[0] if after else None)
        kept = _time(rotation, "ended_at" if back or rotation["status"] in _OVER else "retire_after")
        if kept is not None and ended is not None:
            kept = min(kept, ended)
        found.append(Version(rotation_id, began, ended, kept, back))
    return found


@dataclass(frozen=True)
class _Scale:
    start: float
    end: float

    def x(self, moment: float) -> float:
        share = (min(max(moment, self.start), self.end) - self.start) / (self.end - self.start)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def marks(self) -> list[float]:
        """Where the axis has its dates: midnights, UTC."""
        days = (self.end - self.start) / _DAY
        step = next((step for step in _STEPS if days / step <= _MARKS), _STEPS[-1]) * _DAY
        first = -(-self.start // step) * step
        return [first + number * step for number in range(_MARKS + 2) if first + number * step <= self.end]


def _scale(rows: Sequence[Mapping[str, Any]], versions: Sequence[Sequence[Version]], now: float) -> _Scale:
    begins = [version.began for each in versions for version in each]
    begins += [parse_stamp(row["primary_since"]) for row in rows if row.get("primary_since")]
    ends = [parse_stamp(row["next_due"]) for row in rows if row.get("next_due")]
    ends += [version.kept_until for each in versions for version in each if version.kept_until]
    start = max(min([now - 7 * _DAY, *begins]), now - _LONGEST)
    end = min(max([now + _DAY, *ends]), now + max(now - start, 30 * _DAY) * 2)
    margin = (end - start) * 0.02
    return _Scale(start - margin, end + margin)


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d")


def _bar(scale: _Scale, kind: str, began: float, ended: float, y: float, height: float, title: str) -> str:
    x = scale.x(began)
    width = max(scale.x(ended) - x, 2.0)
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{page.text(title)}</title></rect>"
    )


def _row(scale: _Scale, row: Mapping[str, Any], versions: Sequence[Version], now: float, y: float) -> str:
    name = str(row["name"])
    shown = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "\u2026"
    parts = [f'<text x="0" y="{y + _BAR - 1:.1f}">{page.text(shown)}<title>{page.text(name)}</title></text>']
    for version in versions:
        ended = now if version.ended is None else version.ended
        kind = "version back" if version.rolled_back else "version" if version.ended is None else "version before"
        what = "rolled back" if version.rolled_back else "primary"
        title = f"{name}, {version.rotation_id}: {what} from {_day(version.began)} to {_day(ended)}"
        parts.append(_bar(scale, kind, version.began, ended, y, _BAR, title))
        if version.kept_until is not None and not version.rolled_back:
            title = f"{name}: the version before was kept until {_day(version.kept_until)}"
            parts.append(_bar(scale, "overlap", version.began, version.kept_until, y + _BAR + 1, 3, title))
    if row.get("primary_since") and not versions:
        since = parse_stamp(row["primary_since"])
        parts.append(_bar(scale, "version", since, now, y, _BAR, f"{name}: primary from {_day(since)}"))
    if row.get("next_due") and row.get("primary_since"):
        since, due = parse_stamp(row["primary_since"]), parse_stamp(row["next_due"])
        tone = "period bad" if due < now else "period"
        parts.append(_bar(scale, tone, since, due, y - 2, _BAR + 4, f"{name}: due on {_day(due)}"))
        if due < now:
            parts.append(_bar(scale, "late", due, now, y + 3, _BAR - 6, f"{name}: late since {_day(due)}"))
    return "".join(parts)


def _key() -> str:
    drawn = (
        ("version", "primary"),
        ("version before", "primary before"),
        ("version back", "rolled back"),
        ("overlap", "the version before was kept beside it"),
        ("late", "late"),
        ("period", "cryptoperiod"),
    )
    items = "".join(
        f'<span class="soft small"><svg class="timeline-key" viewBox="0 0 32 14" aria-hidden="true">'
        f'<g class="timeline"><rect class="{kind}" x="1" y="2" width="30" height="10"/></g></svg>{words}</span>'
        for kind, words in drawn
    )
    return f'<p class="key">{items}</p>'


def picture(rows: Sequence[Mapping[str, Any]], rotations: Mapping[str, Mapping[str, Any]], now: float) -> str:
    """An inline SVG: a row for each secret, a bar for each version, its cryptoperiod, and the present day.

    :param rows: the secrets of the status, in the order in which they are shown.
    :param rotations: the register's.
    :param now: seconds since 1970 UTC.
    """
    versions = [versions_of(row["name"], rotations) for row in rows]
    scale = _scale(rows, versions, now)
    height = _TOP + _ROW * len(rows) + 6
    grid = "".join(
        f'<line class="grid" x1="{scale.x(mark):.1f}" x2="{scale.x(mark):.1f}" y1="{_TOP - 6}" y2="{height:.1f}"/>'
        f'<text class="axis" x="{scale.x(mark):.1f}" y="12" text-anchor="middle">{_day(mark)}</text>'
        for mark in scale.marks()
        if _LEFT + 30 < scale.x(mark) < _WIDTH - _RIGHT - 30
    )
    bars = "".join(
        _row(scale, row, each, now, _TOP + _ROW * number + 6) for number, (row, each) in enumerate(zip(rows, versions))
    )
    line = scale.x(now)
    label = html.escape(f"The versions of {len(rows)} secrets in time, until {_day(now)}")
    return (
        f'<div class="scroll"><svg class="timeline" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="{label}">{grid}{bars}'
        f'<line class="now" x1="{line:.1f}" x2="{line:.1f}" y1="{_TOP - 6}" y2="{height:.1f}"><title>now</title></line>'
        f"</svg></div>{_key()}"
    )
