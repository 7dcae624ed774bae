# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the sample service, and their first content."""

from __future__ import annotations

import json
import random
import secrets
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import bcrypt
import psycopg
from psycopg import sql

from demo import cells, jws

__all__ = ["Seed", "Token", "create_tables", "fill", "generate_jwks"]

_TABLES = """
CREATE TABLE jwks_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id uuid NOT NULL,
    kid uuid NOT NULL UNIQUE,
    public_jwk jsonb NOT NULL,
    private_jwk text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX jwks_keys_account_idx ON jwks_keys (account_id, created_at DESC, id DESC);
CREATE TABLE api_tokens (
    token_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    token_sha256 text NOT NULL,
    token_lookup text,
    account_id uuid NOT NULL,
    scopes text[] NOT NULL DEFAULT '{}',
    expires_at timestamptz,
    revoked_at timestamptz
);
"""
_ROWS_PER_ACCOUNT = 4
_BCRYPT_EVERY = 25  # the others hold the digest itself, as older rows do
_BCRYPT_ROUNDS = 4


@dataclass(frozen=True)
class Token:
    """One API token as its owner knows it."""

    token_id: str
    token: str
    account_id: str


@dataclass(frozen=True)
class Seed:
    """What lies in the tables after the fill.

    :param rows: id of each row of ``jwks_keys`` to the counter ``v`` in its JWK.
    :param accounts: every account.
    :param tokens: every API token, in clear.
    """

    rows: dict[str, int]
    accounts: list[str]
    tokens: list[Token]

    def save(self, path: Path) -> None:
        """Write it as JSON; the file holds tokens, so it is private from the start."""
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Seed:
        """Read what :meth:`save` wrote."""
        value = json.loads(path.read_text(encoding="utf-8"))
        return cls(value["rows"], value["accounts"], [Token(**token) for token in value["tokens"]])


def generate_jwks(count: int) -> list[dict[str, str]]:
    """Fresh RSA 2048 keys; the slow part of a fill, so make them once and use them for several."""
    with ThreadPoolExecutor(2) as workers:
        return list(workers.map(lambda _: jws.generate_jwk(), range(count)))


def create_tables(owner_dsn: str, app_role: str) -> None:
    """Create the tables as their owner, and let the application's role read and write rows."""
    with psycopg.connect(owner_dsn) as connection:
        connection.execute(_TABLES)
        connection.execute(
            sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON jwks_keys, api_tokens TO {}").format(
                sql.Identifier(app_role)
            )
        )


def _cell(jwk: dict[str, Any], key: bytes | None, number: int, plain: int) -> str:
    """The cell of row ``number``; the first ``plain`` rows are in clear, marked and bare in turn."""
    if number >= plain:
        return cells.write_jwk(jwk, key)
    return cells.write_jwk(jwk, None) if number % 2 == 0 else json.dumps(jwk)


def _key_rows(
    jwks: Sequence[dict[str, str]], key: bytes | None, accounts: Sequence[str], ids: Sequence[str], plain: int
) -> Iterator[tuple[object, ...]]:
    oldest = datetime.now(timezone.utc) - timedelta(days=30)
    for number, row_id in enumerate(ids):
        jwk: dict[str, Any] = {**jwks[number % len(jwks)], "kid": str(uuid.uuid4()), "v": number}
        yield (
            row_id,
            accounts[number % len(accounts)],
            jwk["kid"],
            json.dumps(jws.public_part(jwk)),
            _cell(jwk, key, number, plain),
            oldest + timedelta(seconds=number),
        )


def _token_rows(tokens: Sequence[Token], key: bytes | None) -> Iterator[tuple[object, ...]]:
    """Every second token has its lookup; some digests are under bcrypt."""
    for number, token in enumerate(tokens):
        digest = cells.token_digest(token.token)
        if number % _BCRYPT_EVERY == 0:
            digest = bcrypt.hashpw(digest.encode(), bcrypt.gensalt(_BCRYPT_ROUNDS)).decode()
        lookup = cells.token_lookup(token.token, key) if key is not None and number % 2 else None
        yield token.token_id, digest, lookup, token.account_id


def fill(
    owner_dsn: str,
    key: bytes | None,
    jwks: Sequence[dict[str, str]],
    *,
    rows: int = 20_000,
    plain: int | None = None,
    tokens: int = 200,
) -> Seed:
    """Fill empty tables in one transaction.

    :param key: what encrypts the rows; None leaves all of them in clear.
    :param jwks: the key pairs that the rows share; each row has its own ``kid`` and ``v``.
    :param plain: rows in clear although there is a key, half of them marked; one in a hundred (at least 2) if None.
    """
    shuffled = random.SystemRandom()
    ids = [str(uuid.UUID(int=shuffled.getrandbits(128), version=4)) for _ in range(rows)]
    accounts = [str(uuid.uuid4()) for _ in range(max(1, rows // _ROWS_PER_ACCOUNT))]
    made = [
        Token(str(uuid.uuid4()), f"d2_{secrets.token_urlsafe(32)}", accounts[number % len(accounts)])
        for number in range(tokens)
    ]
    if plain is None:
        plain = max(2, rows // 100)
    with psycopg.connect(owner_dsn) as connection, connection.cursor() as cursor:
        columns = "id, account_id, kid, public_jwk, private_jwk, created_at"
        with cursor.copy(sql.SQL("COPY jwks_keys ({}) FROM STDIN").format(sql.SQL(columns))) as copy:
            for row in _key_rows(jwks, key, accounts, ids, plain):
                copy.write_row(row)
        with cursor.copy("COPY api_tokens (token_id, token_sha256, token_lookup, account_id) FROM STDIN") as copy:
            for row in _token_rows(made, key):
                copy.write_row(row)
        cursor.execute("ANALYZE jwks_keys, api_tokens")
    return Seed({row_id: number for number, row_id in enumerate(ids)}, accounts, made)
