# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the status playbook knows of a few secrets: one that is overdue, one that is open, one that never turned."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import stamp_of

__all__ = ["HOSTILE", "planned", "row", "turned"]

_DAY = 86400
_SINCE = "2026-11-01T00:00:00Z"
_NOW = "2026-11-21T00:00:00.000Z"
HOSTILE = "<script>alert(1)</script>&\"'\u202e\u0000\u2028</style></svg><b onload=x>"


def row(name: str, period: int | None, due_in: int | None, **fields: Any) -> dict[str, Any]:
    """A secret of the status.

    :param period: its cryptoperiod in days.
    :param due_in: in how many days it is due; None when it never turned.
    """
    now = parse_stamp(_NOW)
    due = None if due_in is None or period is None else now + due_in * _DAY
    since = None if due is None or period is None else due - period * _DAY
    return {
        "name": name, "kind": "encryption_key", "hosts": ["api1", "api2"], "databases": [], "open": False,
        "due": "no period" if period is None else "fresh" if due is not None and due > now else "due",
        "held_back": "", "age_s": None if since is None else int(now - since),
        "period_s": None if period is None else period * _DAY,
        "next_due": "" if due is None else stamp_of(due)[:19] + "Z",
        "late_s": 0 if due is None else max(0, int(now - due)),
        "primary_since": "" if since is None else stamp_of(since),
        "rotation_id": "", "status": "never turned", "phase": "", "retire_after": "", "waived": [], "lost": [],
        "held": [], "evidence": {}, **fields,
    }  # fmt: skip


def turned(day: str, *secrets: str, **fields: Any) -> dict[str, Any]:
    """A rotation that turned secrets on a day."""
    stamp = f"{day}T00:00:00.000Z"
    rotation = {
        "secrets": list(secrets),
        "status": "overlap",
        "started_at": stamp,
        "turned_at": stamp,
        "ended_at": stamp,
    }
    return {**rotation, **fields}


def _sealed(event: str, day: str) -> dict[str, Any]:
    return {"event": event, "at": f"{day}T00:00:00Z", "folder": f"r.{event}", "record": "ab" * 32}


_PLANNED: dict[str, Any] = {
    "now": _NOW,
    "grace_s": 7 * _DAY,
    "secrets": [
        row("FRESH_KEY", 90, 60, rotation_id="r-fresh", status="overlap", retire_after="2026-11-25T00:00:00.000Z",
            evidence=_sealed("rotated", "2026-10-22")),
        row("DUE_TOKEN", 30, -2, kind="token", rotation_id="r-token", status="retired",
            evidence=_sealed("retired", "2026-10-21")),
        row("LATE_KEY", 90, -110, rotation_id="r-late", status="superseded", evidence=_sealed("rotated", "2026-05-05")),
        row("NEVER_KEY", 30, None, kind="database_login"),
        row("NO_PERIOD", None, None, kind="example.kinds.token"),
        row("OPEN_KEY", 365, 200, rotation_id="r-open", status="open", open=True, phase="stage"),
    ],
    "rotations": {
        "r-first": turned("2026-02-01", "LATE_KEY", status="closed", ended_at="2026-02-10T00:00:00.000Z"),
        "r-back": turned("2026-04-01", "LATE_KEY", status="rolled_back", ended_at="2026-04-20T00:00:00.000Z"),
        "r-late": turned("2026-05-05", "LATE_KEY", status="closed", ended_at="2026-06-05T00:00:00.000Z"),
        "r-before": turned("2026-07-20", "FRESH_KEY", status="superseded"),
        "r-fresh": turned("2026-10-22", "FRESH_KEY", retire_after="2026-11-25T00:00:00.000Z"),
        "r-token": turned("2026-10-20", "DUE_TOKEN", status="retired", ended_at="2026-10-21T00:00:00.000Z"),
        "r-open": {
            "secrets": ["OPEN_KEY"], "status": "open", "started_at": "2026-11-20T09:00:00.000Z", "entered": ["stage"],
        },
    },
    "evidence": {
        "JWT": {
            **_sealed("captured", "2026-11-01"),
            "keyset": {
                "name": "JWT",
                "active_kid": "k2",
                "keys": [
                    {"kid": "k1", "state": "previous", "since": _SINCE, "fingerprint": "fedcba9876543210"},
                    {"kid": "k2", "state": "primary", "since": _SINCE, "fingerprint": "0123456789abcdef"},
                    {"kid": "k9", "state": "inactive", "since": None},
                ],
            },
        },
        "LATE_KEY": {**_sealed("rotated", "2026-05-05"), "keyset": None},
    },
}  # fmt: skip


def planned() -> dict[str, Any]:
    """What ``rotation_plan`` returns with the mode ``status``, a copy of its own."""
    return copy.deepcopy(_PLANNED)
