# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sample service does with a request; knows the database, nothing of HTTP connections.

It reads its key once, at start, and holds that one key: after a change of the key it must be restarted.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from demo import cells, jws
from demo.dotenv import read_env
from demo.pool import Connection, Pool

__all__ = ["Answer", "Application", "Request", "Settings", "SettingsError", "read_settings"]


class SettingsError(ValueError):
    """An .env that the service cannot start with; the text holds no value."""


class _RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(status, error)
        self.answer = Answer(status, {"error": error})


class _UncertainError(Exception):
    """The connection was lost while a change was being committed: it may have happened or not."""


@dataclass(frozen=True)
class Settings:
    """What the service needs to know.

    :param database_url: connection URL.
    :param key: the 32 bytes of JWK_AES_KEY; None for plaintext mode.
    """

    database_url: str
    key: bytes | None


@dataclass(frozen=True)
class Request:
    """One request, its body parsed."""

    method: str
    path: str
    token: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Status and JSON body."""

    status: int
    body: dict[str, Any]


def read_settings(path: Path) -> Settings:
    """The settings in a dotenv file.

    :raises SettingsError: when it cannot be read, has no DATABASE_URL, or its key is no key.
    """
    try:
        values = read_env(path)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    url = values.get("DATABASE_URL", "")
    if not url:
        raise SettingsError(f"{path}: DATABASE_URL is missing")
    text = values.get("JWK_AES_KEY", "")
    try:
        return Settings(url, cells.parse_key(text) if text else None)
    except cells.KeyTextError as error:
        raise SettingsError(f"{path}: JWK_AES_KEY: {error}") from None


def _uuid(value: object) -> uuid.UUID:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise _RefusedError(400, "id") from None


def _counter(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RefusedError(400, "v")
    return value


class Application:
    """Answers requests with what lies in the database.

    :param settings: what was read at start.
    :param log: takes one line; never given a key, a token or a JWK.
    """

    def __init__(self, settings: Settings, pool: Pool, log: Callable[[str], None]) -> None:
        self._key = settings.key
        self._pool = pool
        self._log = log

    def handle(self, request: Request) -> Answer:
        """Answer a request.

        500 ``decrypt``: a cell does not open under the key. 503 ``database``: nothing was changed, ask again.
        504 ``uncertain``: the connection was lost in a commit, the change may have happened.
        """
        try:
            return self._route(request)
        except _RefusedError as error:
            return error.answer
        except cells.CellError:
            return Answer(500, {"error": "decrypt"})
        except _UncertainError:
            return Answer(504, {"error": "uncertain"})
        except psycopg.Error as error:
            self._log(f"database error={type(error).__name__} sqlstate={error.sqlstate or '-'}")
            return Answer(503, {"error": "database"})

    def _route(self, request: Request) -> Answer:
        head, _, tail = request.path.strip("/").partition("/")
        route = (request.method, head, bool(tail))
        if route == ("GET", "health", False):
            return self._health()
        if route == ("POST", "sign", False):
            return self._sign(request)
        if route == ("POST", "keys", False):
            return self._create(request.body)
        if route == ("GET", "keys", True):
            return self._show(_uuid(tail))
        if route == ("PUT", "keys", True):
            return self._update(_uuid(tail), request.body)
        if route == ("DELETE", "keys", True):
            return self._delete(_uuid(tail))
        if route == ("GET", "jwks", True):
            return self._jwks(_uuid(tail))
        return Answer(404, {"error": "path"})

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction of one change, told apart: failed for certain, or lost in its commit."""
        with self._pool.connection() as connection:
            complete = False
            try:
                with connection.transaction():
                    yield connection
                    complete = True
            except psycopg.Error:
                if complete and connection.closed:
                    raise _UncertainError from None
                raise

    # -- health --------------------------------------------------------------------------------------------------

    def _health(self) -> Answer:
        try:
            with self._pool.connection() as connection:
                row = connection.execute(
                    "SELECT private_jwk FROM jwks_keys WHERE left(private_jwk, 1) <> '{' ORDER BY id LIMIT 1"
                ).fetchone()
            if row is not None:
                cells.read_jwk(row[0], self._key)
        except psycopg.Error:
            return Answer(503, {"status": "database"})
        except cells.CellError:
            return Answer(503, {"status": "decrypt"})
        return Answer(200, {"status": "ok"})

    # -- signing -------------------------------------------------------------------------------------------------

    def _sign(self, request: Request) -> Answer:
        account = _uuid(request.body.get("account_id"))
        payload = request.body.get("payload")
        if not isinstance(payload, dict):
            raise _RefusedError(400, "payload")
        with self._pool.connection() as connection:
            if self._account_of(connection, request.token) != account:
                raise _RefusedError(403, "account")
            jwk = self._newest(connection, account)
        if jwk is None:
            raise _RefusedError(404, "key")
        return Answer(200, {"jws": jws.sign(jwk, payload), "kid": jwk["kid"]})

    def _newest(self, connection: Connection, account: uuid.UUID) -> dict[str, Any] | None:
        """The account's active key: the newest one."""
        row = connection.execute(
            "SELECT private_jwk FROM jwks_keys WHERE account_id = %s AND (expires_at IS NULL OR expires_at > now())"
            " ORDER BY created_at DESC, id DESC LIMIT 1",
            [account],
        ).fetchone()
        return None if row is None else cells.read_jwk(row[0], self._key)

    def _account_of(self, connection: Connection, token: str) -> uuid.UUID:
        """The account of an API token: by its lookup, or by trying every token, which then gets its lookup."""
        lookup = cells.token_lookup(token, self._key) if self._key is not None else None
        if lookup is not None:
            found = connection.execute(
                "SELECT account_id, token_sha256 FROM api_tokens WHERE token_lookup = %s"
                " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
                [lookup],
            ).fetchone()
            if found is not None and cells.token_matches(token, found[1]):
                self._log("auth.token phase=fast_lookup hit=true")
                owner: uuid.UUID = found[0]
                return owner
        self._log("auth.token phase=full_scan")
        for token_id, account, stored in connection.execute(
            "SELECT token_id, account_id, token_sha256 FROM api_tokens"
            " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
        ).fetchall():
            if cells.token_matches(token, stored):
                if lookup is not None:
                    connection.execute(
                        "UPDATE api_tokens SET token_lookup = %s WHERE token_id = %s AND token_lookup IS NULL",
                        [lookup, token_id],
                    )
                found_owner: uuid.UUID = account
                return found_owner
        raise _RefusedError(401, "token")

    def _jwks(self, account: uuid.UUID) -> Answer:
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT public_jwk, extract(epoch FROM created_at)::bigint FROM jwks_keys WHERE account_id = %s",
                [account],
            ).fetchall()
        return Answer(200, {"keys": [{**public, "iat": created} for public, created in rows]})

    # -- rows ----------------------------------------------------------------------------------------------------

    def _create(self, body: dict[str, Any]) -> Answer:
        """A new row for the account, its id from the request or a fresh one.

        The key pair is copied from the account's newest key: making one takes long and shows nothing here.
        """
        account = _uuid(body.get("account_id"))
        row_id = _uuid(body["id"]) if "id" in body else uuid.uuid4()
        with self._transaction() as connection:
            pair = self._newest(connection, account) or jws.generate_jwk()
            kid = uuid.uuid4()
            jwk = {**pair, "kid": str(kid), "v": _counter(body.get("v", 0))}
            inserted = connection.execute(
                "INSERT INTO jwks_keys (id, account_id, kid, public_jwk, private_jwk) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT (id) DO NOTHING",
                [row_id, account, kid, json.dumps(jws.public_part(jwk)), cells.write_jwk(jwk, self._key)],
            ).rowcount
        if not inserted:
            raise _RefusedError(409, "id")
        return _described(201, row_id, jwk)

    def _show(self, row_id: uuid.UUID) -> Answer:
        with self._pool.connection() as connection:
            row = connection.execute("SELECT private_jwk FROM jwks_keys WHERE id = %s", [row_id]).fetchone()
        if row is None:
            raise _RefusedError(404, "id")
        return _described(200, row_id, cells.read_jwk(row[0], self._key))

    def _update(self, row_id: uuid.UUID, body: dict[str, Any]) -> Answer:
        """Read the row's JWK, change its counter, write it back under the held key."""
        counter = _counter(body.get("v"))
        with self._transaction() as connection:
            row = connection.execute("SELECT private_jwk FROM jwks_keys WHERE id = %s FOR UPDATE", [row_id]).fetchone()
            if row is None:
                raise _RefusedError(404, "id")
            jwk = {**cells.read_jwk(row[0], self._key), "v": counter}
            connection.execute(
                "UPDATE jwks_keys SET private_jwk = %s WHERE id = %s", [cells.write_jwk(jwk, self._key), row_id]
            )
        return _described(200, row_id, jwk)

    def _delete(self, row_id: uuid.UUID) -> Answer:
        with self._transaction() as connection:
            deleted = connection.execute("DELETE FROM jwks_keys WHERE id = %s", [row_id]).rowcount
        if not deleted:
            raise _RefusedError(404, "id")
        return Answer(200, {"id": str(row_id)})


def _described(status: int, row_id: uuid.UUID, jwk: dict[str, Any]) -> Answer:
    """What may be told of a row: never a private member."""
    return Answer(status, {"id": str(row_id), "kid": jwk.get("kid"), "v": jwk.get("v")})
