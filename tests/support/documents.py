# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table of signed policies and the calls that sign it again, as the module makes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from ansible_collections.keyturn.rotation.plugins.module_utils.documents import job
from ansible_collections.keyturn.rotation.plugins.module_utils.jws import Signer, head, load_signer, read, sign
from psycopg.types.json import Jsonb

__all__ = ["ACCOUNT", "NEW", "OLD", "RUN", "VECTOR", "PolicyRig", "keys", "policy", "published", "signer"]

VECTOR: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "vectors" / "000_policy_jws_rs256.json").read_text()
)
RUN: dict[str, Any] = VECTOR["resign_run"]
OLD: str = RUN["old_kid"]
NEW: str = RUN["new_kid"]
ACCOUNT: str = RUN["account_id"]

_TABLE = """
    CREATE TABLE policies (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), account_id uuid NOT NULL, app_name text, version int NOT NULL,
        bundle jsonb, jws text, is_draft bool NOT NULL DEFAULT false, active bool NOT NULL DEFAULT true,
        revocation_time timestamptz, resigned_at timestamptz, resigned_count int, rotation_id text,
        signed_with_kid uuid, UNIQUE (account_id, app_name, version))"""
_DOCUMENTS: dict[str, Any] = {
    "table": "policies",
    "document": "bundle",
    "signature": "jws",
    "tenant": None,
    "kid": "signed_with_kid",
    "version": "version",
    "version_per": ["account_id", "app_name"],
    "stamps": {"rotation_id": "rotation_id", "at": "resigned_at", "count": "resigned_count"},
    "where": [
        {"column": "active", "is": True},
        {"column": "is_draft", "is": False},
        {"column": "revocation_time", "is": None},
    ],
    "unsigned": "keep",
    "claims": {"iss": "d2-policy-service", "aud": "d2-policy:{account_id}:{app_name}"},
    "lifetime": "1y",
    "header": {
        "typ": "JWT",
        "jwks_refresh": True,
        "refresh_reason": "automated_key_rotation",
        "refresh_timestamp": "{now}",
        "rotation_id": "{rotation_id}",
    },
    "allow_claims": [],
    "may_be_empty": False,
}


@cache
def keys() -> Mapping[str, str]:
    """The private keys of the vectors as JWK texts, by kid."""
    return {key["kid"]: base64.b64decode(key["private_jwk_base64_json"]).decode() for key in VECTOR["key"]["keys"]}


def published() -> str:
    """Their public halves as a JWK set."""
    return json.dumps({"keys": [{**key["public_jwk"], "kid": key["kid"]} for key in VECTOR["key"]["keys"]]})


@cache
def signer(kid: str) -> Signer:
    """One of the vectors' keys."""
    return load_signer(keys()[kid].encode(), kid, "vector")


def policy(kid: str, bundle: Mapping[str, Any], app: str = "app") -> str:
    """A policy as the service signs it."""
    now = int(datetime.now(timezone.utc).timestamp())
    claims = {"iat": now, "exp": now + 31536000, "iss": "d2-policy-service", "aud": f"d2-policy:{ACCOUNT}:{app}"}
    return sign(signer(kid), head(signer(kid), {"typ": "JWT"}), {**claims, **bundle}).text.decode()


class PolicyRig:
    """One database with policies, and calls of the module's work with all arguments as Ansible would fill them in."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder = dsn, folder
        self.sql = psycopg.connect(dsn, autocommit=True)
        self.sql.execute(_TABLE)
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(published())
        self.documents: dict[str, Any] = {**_DOCUMENTS}
        self.defaults: dict[str, Any] = {}

    def fill(self, count: int, kid: str = OLD) -> None:
        """Active policies whose bundle says ``{"n": <row>, "edit": 0}``."""
        query = """INSERT INTO policies (account_id, app_name, version, bundle, jws, signed_with_kid)
                   VALUES (%s, %s, 1, %s, %s, %s)"""
        with self.sql.cursor() as cursor:
            cursor.executemany(query, [self.row(number, kid) for number in range(count)])

    @staticmethod
    def row(number: int, kid: str, edit: int = 0) -> tuple[Any, ...]:
        """Account, app, bundle, signature and kid of one policy."""
        bundle, app = {"n": number, "edit": edit}, f"app-{number}"
        return (ACCOUNT, app, Jsonb(bundle), policy(kid, bundle, app), kid)

    def params(self, state: str, **more: Any) -> dict[str, Any]:
        """The module's arguments."""
        return {
            "state_dir": str(self.folder / "state"),
            "session_dir": None,
            "rotation_id": "r1",
            "epoch": 1,
            "state": state,
            "name": "POLICIES",
            "database": "app",
            "dsn": {"value": self.dsn},
            "documents": [self.documents],
            "turns": [{"tenant": None, "new": NEW, "old": [OLD]}],
            "keys": {"new": {"value": keys()[NEW]}, "old": None},
            "key_table": None,
            "jwks": {"file": str(self.jwks), "url": None, "headers": {}, "ca_file": None, "timeout": 5},
            "workers": 1,
            "batch_rows": 7,
            "batch_bytes": 2_097_152,
            "rate": 0,
            "max_lag": 0,
            "progress_path": None,
            "schema": "keyturn",
            "lock_timeout_ms": 50,
            "max_wait_s": 20,
            **self.defaults,
            **more,
        }

    def run(self, state: str, check: bool = False, **more: Any) -> dict[str, Any]:
        """Call ``jws_resign``; the result must be JSON."""
        result = job.run(self.params(state, **more), check)
        json.dumps(result)
        return result

    def rows(self) -> dict[str, dict[str, Any]]:
        """All policies by id, as JSON has them."""
        return {row[0]: row[1] for row in self.sql.execute("SELECT id::text, to_jsonb(p) FROM policies p").fetchall()}

    def kids(self) -> dict[str, int]:
        """How many policies that are meant are under which kid; only signatures that hold count."""
        found: dict[str, int] = {}
        for row in self.rows().values():
            if row["active"] and not row["is_draft"] and not row["revocation_time"] and row["jws"]:
                compact = read(row["jws"].encode())
                is_whole = compact is not None and compact.holds(signer(compact.kid).verifier)
                kid = compact.kid if compact is not None and is_whole else "broken"
                found[kid] = found.get(kid, 0) + 1
        return found

    def left_behind(self) -> list[str]:
        """Our tables that are still there, but for the fence."""
        query = """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'keyturn' AND c.relkind = 'r' AND c.relname <> 'fence'"""
        return [row[0] for row in self.sql.execute(query).fetchall()]
