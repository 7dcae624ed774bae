# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a restore."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.record import check_record
from ansible_collections.keyturn.rotation.plugins.plugin_utils.restored import restored_record

_PATHS = {"KEY": "/srv/app/.env", "OTHER": "/srv/other/.env"}
_PLAN: dict[str, Any] = {
    "secrets": [{"name": name, "kind": "env_secret"} for name in _PATHS],
    "hosts": {
        host: {"secrets": [{"name": name, "stores": [{"path": path}]} for name, path in _PATHS.items()]}
        for host in ("one", "two", "three")
    },
    "waived": [],
}
_PLAN["hosts"]["edge"] = {"secrets": []}
_ABOUT = {
    "rotation_id": "20261101T101010Z-abcdef",
    "who": {"user": "root", "controller": "c", "sudo_user": None, "ci": None, "awx": None},
    "why": "",
    "started_at": "2026-11-01T10:10:10Z",
    "now": "2026-11-01T10:11:10Z",
}


def said(**changes: Any) -> dict[str, Any]:
    backup = {"name": "secrets-backup-20261031-101010", "files": ["/srv/app/.env"]}
    return {"backup": backup, "restored": ["/srv/app/.env"], "replaced": "secrets-backup-x", "differing": []} | changes


def test_who_restored_what_where_from_which_backup() -> None:
    answers = {"one": said(differing=["KEY"]), "two": said(restored=[], replaced="")}
    failures = {"two": "api is unhealthy"}
    record = restored_record(_PLAN, answers, failures, _ABOUT)
    check_record(record)
    assert record["secrets"] == [{"name": "KEY", "kind": "env_secret", "fingerprint_changed": True}]
    assert record["hosts"] == {
        "expected": ["one", "three", "two"],
        "done": ["one", "two"],
        "waived": [],
        "lost": ["three"],
    }
    assert record["messages"] == [
        "one: /srv/app/.env as in secrets-backup-20261031-101010; what was there is in secrets-backup-x",
        "two: api is unhealthy",
    ]


@pytest.mark.parametrize("answers", [{}, {"one": said(restored=[])}])
def test_nothing_is_on_record_where_no_file_changed(answers: dict[str, Any]) -> None:
    assert restored_record(_PLAN, answers, {"two": "refused"}, _ABOUT) == {}


def test_a_file_whose_values_did_not_change_names_the_secrets_in_it() -> None:
    record = restored_record(_PLAN, {"one": said()}, {}, _ABOUT)
    assert record["secrets"] == [{"name": "KEY", "kind": "env_secret", "fingerprint_changed": False}]
    strange = said(backup={"name": "b", "files": ["/srv/else"]}, restored=["/srv/else"])
    names = [secret["name"] for secret in restored_record(_PLAN, {"one": strange}, {}, _ABOUT)["secrets"]]
    assert names == ["KEY", "OTHER"], "a record names at least one"


def test_what_looks_like_a_secret_in_a_reason_is_masked() -> None:
    record = restored_record(_PLAN, {"one": said()}, {}, {**_ABOUT, "why": "see postgres://app:hunter2hunter2@db/app"})
    assert "hunter2" not in str(record)
    check_record(record)
