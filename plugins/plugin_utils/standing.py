# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How every secret stands, as a table for people; and what a schedule has to do. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.gates import CLOCK_SECONDS
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import ALL
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest
from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import job_lines
from ansible_collections.keyturn.rotation.plugins.plugin_utils.figures import table

__all__ = ["agenda_lines", "evidence_words", "notes_of", "only_these", "span", "standing", "status_lines"]

_DAY = 86400
_HEAD = ("SECRET", "KIND", "STATE", "TURNED", "AGE", "NEXT DUE", "ROTATION", "LAST EVIDENCE")
#: How urgent each state is.
_ORDER = ("overdue", "due", "fresh", "no period")


def span(seconds: float) -> str:
    """A time as it is said of secrets: ``12 d`` or, within two days, ``31 h``; ``5 min`` within two hours."""
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} d"


def _state(row: Mapping[str, Any], grace: float) -> str:
    late = row.get("late_s") or 0
    return "overdue" if late > grace else str(row["due"])


def _cells(row: Mapping[str, Any], state: str) -> tuple[str, ...]:
    age, period = row.get("age_s"), row.get("period_s")
    aged = "" if age is None else span(age) + (f" of {span(period)}" if period else "")
    late = f" by {span(row['late_s'])}" if state == "overdue" else ""
    turned = row["primary_since"][:10] if row["primary_since"] else "never turned"
    rotation = str(row["status"]) if row["rotation_id"] else "-"
    due = (row.get("next_due") or "-")[:10]
    return (row["name"], row["kind"], state + late, turned, aged or "-", due, rotation, evidence_words(row) or "-")


def evidence_words(row: Mapping[str, Any]) -> str:
    """The last evidence of a secret in few words: ``rotated 2026-11-21``; empty where there is none."""
    last = row.get("evidence") or {}
    return f"{last['event'].replace('_', ' ')} {last['at'][:10]}".strip() if last else ""


def notes_of(row: Mapping[str, Any], jobs: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[str]:
    """What is open for a secret, and what is to be done about it; each line is set in by four."""
    waits = [f"    held back: {row['held_back']}"] if row.get("held_back") else []
    if (row.get("ahead_s") or 0) > CLOCK_SECONDS:
        waits.append(
            f"    turned at {row['primary_since']}, which has not come yet: the state host's clock was wrong then, or "
            "is now. Once it is right, turn this once more, or it is due too late"
        )
    if not row["rotation_id"]:
        return waits
    phase = f" in {row['phase']}" if row["status"] == "open" else ""
    lines = [*waits, f"    rotation {row['rotation_id']}: {row['status']}{phase}"]
    for host, running in sorted(jobs.items()):
        lines += job_lines(host, [job for job in running if job["secret"] == row["name"]])
    if row["retire_after"] and row["status"] == "overlap":
        lines.append(f"    the previous version may be retired after {row['retire_after']}")
    if row["status"] == "replacing":
        lines.append("    a compromised version is being replaced: the emergency playbook goes on, nothing goes back")
    if row["status"] == "replaced":
        until = row.get("exposed_until")
        accepted = f"; caches may accept it until {until}" if until else ""
        lines.append(f"    the version before was compromised and is disabled{accepted}; there is no way back")
    for key, text in (
        ("waived", "still to catch up"),
        ("lost", "still to be brought back"),
        ("held", "the version before is still in"),
    ):
        if row.get(key):
            lines.append(f"    {text}: {', '.join(row[key])}")
    return lines


def standing(planned: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    """Every secret with ``overdue``, ``due``, ``fresh`` or ``no period``, the most urgent first."""
    grace = planned.get("grace_s", 0)
    found = [(row, _state(row, grace)) for row in planned["secrets"]]
    found.sort(key=lambda entry: (_ORDER.index(entry[1]), -(entry[0].get("late_s") or 0), _next(entry[0])))
    return found


def only_these(rows: Sequence[Mapping[str, Any]], names: Collection[str]) -> list[Mapping[str, Any]]:
    """The rows of these secrets, of those that ``rotation_plan`` returned; all where none is named.

    :raises KeyturnError: ``secret-unknown``.
    """
    known = [row["name"] for row in rows]
    if not names or (ALL in names and ALL not in known):
        return list(rows)
    for name in names:
        if name not in known:
            raise KeyturnError("secret-unknown", f"no secret {name!r}", where="keyturn_only", hint=nearest(name, known))
    return [row for row in rows if row["name"] in names]


def status_lines(planned: Mapping[str, Any], jobs: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[str]:
    """Every secret in a table, the most urgent first, each with what is open and what to do about it.

    :param planned: what ``rotation_plan`` returned.
    :param jobs: the re-encryptions that run, by host.
    """
    found = standing(planned)
    head, *rows = table([_HEAD, *(_cells(row, state) for row, state in found)])
    lines = ["", "Secrets", head]
    for line, (row, _kept) in zip(rows, found):
        lines += [line, *notes_of(row, jobs)]
    return lines


def _next(row: Mapping[str, Any]) -> tuple[str, str]:
    return (row.get("next_due") or "", row["name"])


def agenda_lines(agenda: Mapping[str, Any]) -> list[str]:
    """What a schedule has to do."""
    lines = [f"  {run['playbook']:9} {', '.join(run['only'])}" for run in agenda["runs"]]
    lines += [
        f"  {'waits':9} {', '.join(entry['secrets'])}: rotation {entry['rotation_id']} is {entry['status']}"
        for entry in agenda["waiting"]
    ]
    lines += [f"  {'overdue':9} {name}" for name in agenda["overdue"]]
    return ["", "To do", *(lines or ["  nothing"])]
