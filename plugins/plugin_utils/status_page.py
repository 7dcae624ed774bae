# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How every secret stands, as one page for people: the most urgent first, and all versions in time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import page
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp
from ansible_collections.keyturn.rotation.plugins.plugin_utils.standing import evidence_words, notes_of, span, standing
from ansible_collections.keyturn.rotation.plugins.plugin_utils.timeline import STYLE, picture

__all__ = ["status_page"]

_TONES = {"overdue": "bad", "due": "warn", "fresh": "good", "no period": "plain"}
_STYLE = """
main{max-width:72rem}#secrets td{overflow-wrap:break-word}
#secrets td:nth-child(5),.whole{white-space:nowrap}
"""
_Row = tuple[Mapping[str, Any], str]


def _cards(found: Sequence[_Row]) -> str:
    counts = {state: sum(1 for _row, each in found if each == state) for state in _TONES}
    opened = sum(1 for row, _state in found if row["open"])
    cards = [("secrets", len(found), ""), ("overdue", counts["overdue"], "bad"), ("due", counts["due"], "warn")]
    cards += [("fresh", counts["fresh"], ""), ("without a cryptoperiod", counts["no period"], "")]
    cards += [("with an open rotation", opened, "warn")] if opened else []
    items = "".join(
        f'<div class="card {tone if number else ""}"><b>{number}</b><span>{page.text(label)}</span></div>'
        for label, number, tone in cards
        if number or label in ("secrets", "overdue")
    )
    return f'<div class="cards">{items}</div>'


def _age(row: Mapping[str, Any], tone: str) -> page.Html:
    """The age against the cryptoperiod, in words and as a bar."""
    age, period = row.get("age_s"), row.get("period_s")
    if age is None:
        return page.Html("never turned")
    said = page.text(span(age) + (f" of {span(period)}" if period else ""))
    if not period:
        return page.Html(said)
    width = min(100.0 * age / period, 100.0)
    return page.Html(
        f'{said}<svg class="track" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="back" width="100" height="4"/><rect class="bar {tone}" width="{width:.1f}" height="4"/></svg>'
    )


def _evidence(row: Mapping[str, Any]) -> page.Html:
    """The last evidence in words; only the day stays on one line."""
    event, space, day = evidence_words(row).rpartition(" ")
    if not space:
        return page.Html(page.text(day))  # a chain that cannot be read has no day; no evidence has neither
    return page.Html(f'{page.text(event)} <span class="whole">{page.text(day)}</span>')


def _cells(row: Mapping[str, Any], state: str) -> tuple[Any, ...]:
    tone = _TONES[state]
    late = f" by {span(row['late_s'])}" if state == "overdue" else ""
    return (
        page.Html(f"<b>{page.text(row['name'])}</b>"),
        page.words(row["kind"]),
        page.tag(state + late, tone),
        _age(row, tone if state in ("overdue", "due") else ""),
        (row.get("next_due") or "")[:10],
        row["status"] if row["rotation_id"] else "",
        _evidence(row),
    )


_HEADS = ("Secret", "Kind", "State", "Age", "Next due", "Rotation", "Last evidence")


def _notes(found: Sequence[_Row], jobs: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """What is open or waits, for secrets of which there is more to say than that they have turned."""
    parts = []
    for row, _state in found:
        if row["open"] or row.get("held_back") or row["status"] in ("overlap", "replaced") or row.get("held"):
            items = "".join(f"<li>{page.text(line.strip())}</li>" for line in notes_of(row, jobs))
            parts.append(f"<h3>{page.text(row['name'])}</h3><ul>{items}</ul>")
    return page.section("notes", "What is open or waits", "".join(parts))


def status_page(planned: Mapping[str, Any], jobs: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """The page: HTML5, one file, no script, nothing loaded.

    :param planned: what ``rotation_plan`` returned.
    :param jobs: the re-encryptions that run, by host.
    """
    found = standing(planned)
    late = sum(1 for _row, state in found if state == "overdue")
    tone, word = ("bad", f"{late} overdue") if late else ("good", "Nothing is overdue")
    header = (
        f"<header>{page.tag(word, tone)}<h1>Secrets</h1>"
        f'<p class="soft">As of {page.text(page.moment(planned["now"]))}. Overdue after '
        f"{page.text(span(planned.get('grace_s', 0)))} of grace.</p></header>"
    )
    rows = [row for row, _state in found]
    drawn = picture(rows, planned["rotations"], parse_stamp(planned["now"])) if rows else ""
    parts = (
        header,
        _cards(found),
        page.section("secrets", "Secrets", page.table(_HEADS, [_cells(row, state) for row, state in found])),
        page.section("timeline", "Versions in time", drawn),
        _notes(found, jobs),
    )
    return page.document(f"Secrets: {word}", "\n".join(part for part in parts if part), _STYLE + STYLE)
