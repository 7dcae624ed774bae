# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records for tests of the evidence: a full one, as a rotation of two secrets leaves it, and a small one."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["NOW", "full_record", "small_record"]

NOW = "2026-11-21T10:03:00Z"


def _phase(name: str, minute: int, seconds: float, result: str = "ok") -> dict[str, Any]:
    return {
        "name": name,
        "started_at": f"2026-11-21T10:{minute:02d}:00Z",
        "ended_at": f"2026-11-21T10:{minute:02d}:59Z",
        "seconds": seconds,
        "result": result,
    }


_FULL: dict[str, Any] = {
    "schema_version": 1,
    "rotation_id": "2026-11-jwk",
    "event": "rotated",
    "secrets": [
        {
            "name": "JWK_AES_KEY",
            "kind": "encryption_key",
            "strategy": "cutover",
            "versions": [
                {"version": "new", "state": "primary", "at": "2026-11-21T10:01:20Z"},
                {"version": "old", "state": "previous", "at": "2026-11-21T10:01:20Z"},
            ],
            "fingerprint_changed": True,
        },
        {
            "name": "AGENT_TOKEN",
            "kind": "token",
            "strategy": "overlap",
            "versions": [
                {"version": "new", "state": "primary", "at": "2026-11-21T10:01:22Z"},
                {"version": "old", "state": "previous", "at": "2026-11-21T10:01:22Z"},
            ],
            "fingerprint_changed": True,
        },
    ],
    "who": {
        "user": "anna",
        "controller": "deploy1.example.org",
        "sudo_user": None,
        "awx": {"job_id": 4711, "user": "anna.svensson", "template": "rotate keys"},
        "ci": None,
    },
    "when": {"started_at": "2026-11-21T10:00:00Z", "ended_at": "2026-11-21T10:02:41Z"},
    "why": "due: 92 days old, the cryptoperiod is 90 days",
    "plan_digest": "5b2f0c1de64a7b9c0a6f31d9f20bb1c6a1f6e0c8d6be3d8f8f2a4d2b4e4b9a10",
    "runs": [
        {
            "run_id": "run-1",
            "epoch": 1,
            "user": "anna",
            "started_at": "2026-11-21T10:00:00Z",
            "interrupted": True,
        },
        {
            "run_id": "run-2",
            "epoch": 2,
            "user": "anna",
            "started_at": "2026-11-21T10:00:50Z",
            "interrupted": False,
        },
    ],
    "phases": [
        _phase("plan", 0, 1.4),
        _phase("preflight", 0, 6.2),
        _phase("backup", 0, 4.05),
        _phase("stage", 0, 3.3),
        _phase("migrate", 0, 74.0),
        _phase("promote", 1, 2.1),
        _phase("restart", 1, 31.5),
        _phase("verify", 2, 18.25),
        _phase("retire", 2, 0, "skipped"),
    ],
    "hosts": {
        "expected": ["api-1", "api-2", "agent-1", "agent-2"],
        "done": ["api-1", "api-2", "agent-1"],
        "waived": [
            {"host": "agent-2", "reason": "in the workshop until Monday", "until": "2026-11-30T00:00:00Z"},
        ],
        "lost": [],
    },
    "coverage": [
        {
            "host": "db-1",
            "database": "app",
            "table": "jwks_keys",
            "column": "private_jwk",
            "total": 248117,
            "new": 248101,
            "old": 0,
            "plaintext": 0,
            "null": 16,
            "unknown": 0,
        },
        {
            "host": "db-1",
            "database": "app",
            "table": "integration_connections",
            "column": "encrypted_credentials",
            "total": 912,
            "new": 912,
            "old": 0,
            "plaintext": 0,
            "null": 0,
            "unknown": 0,
        },
    ],
    "cleared": [{"host": "db-1", "database": "app", "table": "api_tokens", "column": "token_lookup", "rows": 5230}],
    "probes": [
        {
            "name": "sign with the new key",
            "type": "http",
            "version": "new",
            "expected": "accepted",
            "result": "accepted",
            "host": "api-1",
        },
        {
            "name": "agents accept the new token",
            "type": "http",
            "version": "new",
            "expected": "accepted",
            "result": "accepted",
            "host": "agent-1",
        },
        {
            "name": "a token from before still works",
            "type": "token",
            "version": "old",
            "expected": "accepted",
            "result": "accepted",
            "host": "api-2",
        },
    ],
    "signing_keys": [
        {
            "name": "JWK_AES_KEY",
            "tenants": 2,
            "keys": [
                {"tenant": "", "kid": "h4j0n8KJOE4b7lvn", "state": "primary", "public_sha256": "0" * 64},
                {"tenant": "", "kid": "G0tg-IlFm-rMs5PE", "state": "retired", "public_sha256": None},
            ],
        }
    ],
    "health": {
        "before": {"api": {"status": "running", "health": "healthy"}, "agents": "active"},
        "after": {"api": {"status": "running", "health": "healthy"}, "agents": "active"},
        "worse": [],
    },
    "gap_ms": 840,
    "promised": {"seconds": 240, "gap_ms": 1500},
    "taken": {"seconds": 161, "gap_ms": 840},
    "backups": [
        {
            "host": "api-1",
            "path": "/var/lib/keyturn/backups/secrets-backup-20261121-100012",
            "expires": "2026-12-21T10:00:12Z",
        },
        {
            "host": "api-2",
            "path": "/var/lib/keyturn/backups/secrets-backup-20261121-100012",
            "expires": None,
        },
    ],
    "software": {"ansible": "2.19.14", "collection": "0.1.0", "python": "3.11.2", "postgresql": "15.14"},
    "messages": ["agent-2 catches up when it returns, until 30 November 2026."],
}


def full_record(**changes: Any) -> dict[str, Any]:
    """A record with every field, a copy of its own; ``changes`` replace its top fields."""
    return {**copy.deepcopy(_FULL), **changes}


def small_record(rotation_id: str = "r1", event: str = "rotated", *secrets: str, **changes: Any) -> dict[str, Any]:
    """A record with the fields that have to be there, and no more."""
    return {
        "schema_version": 1,
        "rotation_id": rotation_id,
        "event": event,
        "secrets": [{"name": name, "kind": "env_secret"} for name in secrets or ("API_KEY",)],
        "who": {"user": "anna"},
        "when": {"started_at": "2026-11-21T10:00:00Z", "ended_at": "2026-11-21T10:01:00Z"},
        "why": "asked for",
        **changes,
    }
