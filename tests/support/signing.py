# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of signing keys as applications have them, and the calls that turn them."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import split_name
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys import job
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.forms import algorithm, make_key
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.mapping import parse_table
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import ECAlgorithm

if TYPE_CHECKING:
    from typing import LiteralString

__all__ = ["EC", "KEY", "SHAPES", "Keys", "published_jwks"]

KEY = base64.b64encode(bytes([7]) * 32).decode()
EC = {"type": "ec", "curve": "P-256"}
_CREATE = {
    "newest": """
        CREATE TABLE jwks_keys (
            id uuid PRIMARY KEY, account_id uuid NOT NULL, kid uuid NOT NULL UNIQUE, public_jwk jsonb, private_jwk text,
            created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz)""",
    "flags": """
        CREATE TABLE signing_keys (
            kid varchar(64) PRIMARY KEY, alg varchar(16) NOT NULL DEFAULT 'ES256', public_pem text NOT NULL,
            private_pem_enc bytea NOT NULL, is_current boolean NOT NULL DEFAULT false,
            enabled boolean NOT NULL DEFAULT true, created_at timestamp NOT NULL DEFAULT now());
        CREATE UNIQUE INDEX one_current ON signing_keys (is_current) WHERE is_current""",
    "status": """
        CREATE TYPE phase AS ENUM ('pending', 'active', 'retiring', 'revoked');
        CREATE SCHEMA "odd %s";
        CREATE TABLE "odd %s"."Keys" (
            realm integer, name text, status phase, pub text, priv jsonb, purpose text NOT NULL,
            PRIMARY KEY (realm, name));
        CREATE UNIQUE INDEX one_active ON "odd %s"."Keys" (realm) WHERE status = 'active'""",
}
#: By name: how a table is declared. The third is one that no preset knows.
SHAPES: Mapping[str, dict[str, Any]] = {
    "newest": {"shape": "newest"},
    "flags": {"shape": "flags"},
    "status": {
        "table": '"odd %s"."Keys"',
        "columns": {"kid": "name", "private": "priv", "public": "pub", "tenant": "realm"},
        "kid": "thumbprint",
        "private": "jwk",
        "public": "jwk",
        "jwk_with": ["kid", "use"],
        "envelope": "aes256gcm-b64",
        "current": {"column": "status", "is": "active", "else": "retiring", "next": "pending"},
        "usable": [{"column": "status", "is": ["pending", "active", "retiring"], "else": "revoked"}],
        "set": {"purpose": "100% signing"},
    },
}


def published_jwks(link: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Every enabled key of a table of the shape ``flags``, as its issuer publishes it."""
    rows = link.execute("SELECT kid, public_pem FROM signing_keys WHERE enabled").fetchall()
    return [{**_public_jwk(pem), "kid": kid, "use": "sig", "alg": "ES256"} for kid, pem in rows]


def _public_jwk(pem: str) -> dict[str, Any]:
    public = load_pem_public_key(pem.replace("\\n", "\n").encode())
    assert isinstance(public, EllipticCurvePublicKey)
    return ECAlgorithm.to_jwk(public, as_dict=True)


class Keys:
    """One table in one database, and calls of the modules' work with all arguments as Ansible would fill them in.

    :param shape: one of :data:`SHAPES`.
    :param create: whether the table is made; otherwise it is there.
    """

    def __init__(self, dsn: str, state_dir: Path, shape: str, *, create: bool = True) -> None:
        self.dsn, self.state_dir, self.shape = dsn, state_dir, shape
        self.entry = dict(SHAPES[shape])
        self.declared = parse_table({"database": "app", **self.entry})
        schema, name = split_name(self.declared.table)
        self.table = identifier(*filter(None, (schema, name)))
        self.sql = psycopg.connect(dsn, autocommit=True)
        if create:
            self.sql.execute(_CREATE[shape])
        self.envelope = Envelope(self.declared.envelope, KEY.encode())
        self.defaults: dict[str, Any] = {}

    @property
    def has_tenants(self) -> bool:
        """Whether each tenant has keys of its own."""
        return self.shape != "flags"

    def tenant(self, number: int) -> str:
        """The name of a tenant."""
        return {"newest": str(uuid.UUID(int=number)), "flags": "", "status": str(number)}[self.shape]

    def fill(self, tenants: int = 3) -> list[str]:
        """Each tenant with a current key and an older one that is still accepted; the kids of the current ones."""
        kids = []
        for number in range(1, (tenants if self.has_tenants else 1) + 1):
            self.add(number, current=False)
            kids.append(self.add(number, current=True))
        return kids

    def add(self, number: int, current: bool, usable: bool = True, cell: bytes | None = None) -> str:
        """A row; its kid."""
        key = make_key(EC, self.declared.form)
        raw = self.envelope.seal(key.private) if cell is None else cell
        age = 1 if current else 2
        rows: dict[str, tuple[LiteralString, Sequence[Any]]] = {
            "newest": (
                "INSERT INTO jwks_keys VALUES (gen_random_uuid(), %s, %s, %s, %s, now() - %s * interval '1 day', %s)",
                (self.tenant(number), key.kid, key.public, raw.decode("latin-1"), age, None if usable else "-infinity"),
            ),
            "flags": (
                "INSERT INTO signing_keys VALUES (%s, %s, %s, %s, %s, %s, now() - %s * interval '1 day')",
                (key.kid, algorithm(EC), key.public, raw, current, usable, age),
            ),
            "status": (
                "INSERT INTO {} VALUES (%s, %s, %s, %s, %s, 'sign')",
                (
                    number,
                    key.kid,
                    "active" if current else "retiring" if usable else "revoked",
                    key.public,
                    json.dumps(raw.decode("latin-1")),
                ),
            ),
        }
        query, values = rows[self.shape]
        self.sql.execute(self._sql(query), values)
        return key.kid

    def _sql(self, query: LiteralString, **names: str) -> psycopg.sql.Composed:
        """A statement about this table; further names in it are columns."""
        return psycopg.sql.SQL(query).format(self.table, **{key: identifier(name) for key, name in names.items()})

    def ask(self, query: LiteralString, values: Sequence[Any] = (), **names: str) -> list[tuple[Any, ...]]:
        """The answer to a query about this table, which it calls ``{}``."""
        return self.sql.execute(self._sql(query, **names), values).fetchall()

    def params(self, state: str, **more: Any) -> dict[str, Any]:
        """The arguments of ``signing_key``, or without a state those of ``signing_key_info``."""
        return {
            "state_dir": str(self.state_dir),
            "session_dir": None,
            "rotation_id": "r1",
            "epoch": 1,
            "state": state,
            "name": "SIGNING",
            "database": "app",
            "dsn": {"value": self.dsn},
            "key_table": self.entry,
            "key": {"value": KEY},
            "under": "",
            "tenants": [],
            "initial": False,
            "schema": "keyturn",
            "listed": 100,
            "seal_to": [],
            "generate": EC,
            "overlap_s": 0,
            "early": False,
            "disable": "previous",
            "workers": 1,
            "lock_timeout_ms": 50,
            "max_wait_s": 20,
            "expect": "nothing",
            **self.defaults,
            **more,
        }

    def run(self, state: str, check: bool = False, **more: Any) -> dict[str, Any]:
        """Call ``signing_key``; the result must be JSON."""
        result = job.run(self.params(state, **more), check)
        json.dumps(result)
        return result

    def info(self, **more: Any) -> dict[str, Any]:
        """Call ``signing_key_info``."""
        result = job.run_info(self.params("", **more), False)
        json.dumps(result)
        return result

    def rows(self) -> list[tuple[Any, ...]]:
        """Everything in the table, with the versions of its rows."""
        return sorted(self.ask("SELECT c::text, c.xmin::text FROM {} c"))

    def signing(self) -> dict[str, str]:
        """By tenant the kid that a service of this shape would sign with."""
        queries: dict[str, LiteralString] = {
            "newest": "SELECT DISTINCT ON (account_id) account_id::text, kid::text FROM {} "
            "ORDER BY account_id, created_at DESC",
            "flags": "SELECT '', kid FROM {} WHERE is_current AND enabled",
            "status": "SELECT realm::text, name FROM {} WHERE status = 'active'",
        }
        return dict(self.ask(queries[self.shape]))

    def published(self) -> set[str]:
        """The kids that a service of this shape would publish."""
        queries: dict[str, LiteralString] = {
            "newest": "SELECT kid::text FROM {} WHERE public_jwk IS NOT NULL",
            "flags": "SELECT kid FROM {} WHERE enabled",
            "status": "SELECT name FROM {} WHERE status <> 'revoked'",
        }
        return {row[0] for row in self.ask(queries[self.shape])}

    def private(self, kid: str) -> bytes:
        """The private part of a key, decrypted as the service does it."""
        columns = self.declared.columns
        query: LiteralString = "SELECT {private} FROM {} WHERE {kid}::text = %s"
        ((raw,),) = self.ask(query, (kid,), private=columns["private"], kid=columns["kid"])
        opened = self.envelope.open(raw.encode() if isinstance(raw, str) else bytes(raw))
        if opened is None:
            raise ValueError("does not open")
        return opened

    def private_key(self, kid: str) -> PrivateKeyTypes:
        """The same of a table of PEMs, as a key."""
        return load_pem_private_key(self.private(kid), None)

    def clear(self) -> None:
        """Take away everything, whoever still works on it, and let go of the database."""
        others = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
        )
        self.sql.execute(others, (self.sql.info.backend_pid,))
        self.sql.execute('DROP SCHEMA IF EXISTS public, keyturn, "odd %s" CASCADE; CREATE SCHEMA public')
        self.sql.close()
