# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as a table: each secret with its files, hosts and services, when it was turned, and when it is due."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.plugin_utils.plan_table import plan_table


def _store(path: str, variable: str, **more: Any) -> dict[str, Any]:
    return {"type": "env_file", "path": path, "variable": variable, **more}


def _plan() -> dict[str, Any]:
    token = {"name": "TOKEN", "stores": [_store("/srv/.env", "TOKEN")]}
    password = {
        "name": "PASSWORD",
        "stores": [
            _store("/srv/.env", "PASSWORD"),
            _store("/srv/.env", "DATABASE_URL", inside="url"),
            {"type": "file", "path": "/srv/app.yml", "variable": "PASSWORD", "inside": {"pattern": "password: (.+)"}},
        ],
    }
    return {
        "secrets": [
            {"name": "TOKEN", "kind": "env_secret", "consumers": []},
            {"name": "PASSWORD", "kind": "env_secret", "consumers": ["api", "worker", "x" * 40]},
        ],
        "hosts": {"one": {"secrets": [token, password]}, "two": {"secrets": [token]}, "three": {"secrets": []}},
    }


def test_each_file_has_a_line_with_its_hosts() -> None:
    overview = [
        {"name": "TOKEN", "due": "fresh", "primary_since": "2026-11-01T10:00:00Z", "next_due": "2027-01-30T10:00:00Z"},
        {"name": "PASSWORD", "due": "due", "primary_since": "", "next_due": ""},
        {"name": "OTHER", "due": "no period", "primary_since": "", "next_due": ""},
    ]
    lines = plan_table(_plan(), overview)
    assert [line.split() for line in lines] == [
        ["SECRET", "KIND", "TURNED", "NEXT", "DUE", "HOSTS", "FILES", "SERVICES"],
        ["TOKEN", "env_secret", "2026-11-01", "2027-01-30", "one,", "two", "/srv/.env"],
        ["PASSWORD", "env_secret", "never", "now", "one", "/srv/.env", "api,", "worker,"],
        ["one", "/srv/.env", "(DATABASE_URL,", "inside", "url)", "x" * 40],
        ["one", "/srv/app.yml", "(inside", "a", "pattern)"],
    ]
    column = lines[0].index("FILES")
    assert [line[column:].startswith("/srv/") for line in lines[1:]] == [True] * 4


def test_what_has_no_store_and_no_period_still_has_a_line() -> None:
    plan = {"secrets": [{"name": "KEY", "kind": "example.kinds.key"}], "hosts": {}}
    assert [line.split() for line in plan_table(plan, [])[1:]] == [["KEY", "example.kinds.key", "never", "-"]]
