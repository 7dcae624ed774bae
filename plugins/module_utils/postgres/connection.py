# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of the rotator: every setting stated, no pooler in between, errors in our own words.

A server's error text may carry the values of a row, so it never leaves this file: SQLSTATE and our own sentence do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.strangers import FUNCTIONS, STRANGER

try:
    import psycopg
    from psycopg import sql
    from psycopg.types.string import ByteaBinaryLoader
except ImportError:
    if TYPE_CHECKING:
        raise
    HAS_PSYCOPG = False
else:
    HAS_PSYCOPG = True

if TYPE_CHECKING:
    Link = psycopg.Connection[tuple[Any, ...]]
    Rows = psycopg.Cursor[tuple[Any, ...]]
else:
    Link = Rows = object

__all__ = [
    "HAS_PSYCOPG",
    "Limits",
    "Link",
    "Rows",
    "check_direct",
    "check_primary",
    "connect",
    "explain",
    "explained",
    "is_retryable",
    "joined",
    "may_be_idle",
    "raw_cursor",
    "row_security",
    "snapshot",
    "transaction",
    "whole_tables",
]


@dataclass(frozen=True)
class Limits:
    """How long the server lets the rotator wait, work, and sit idle in a transaction (others wait for it then)."""

    lock_ms: int = 100
    statement_s: int = 3600
    idle_s: int = 5


_IDLE_SECONDS = 10  # within a snapshot
_PLANS = {
    "enable_tidscan": "on",
    "synchronize_seqscans": "off",
    "max_parallel_workers_per_gather": "0",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
_RETRYABLE = ("55P03", "40P01", "40001")
_CONFLICTS_INSIDE = ("simple_heap_update", "simple_heap_delete")

#: SQLSTATE (or its class) to code, sentence, hint.
_STATES: dict[str, tuple[str, str, str]] = {
    "42501": ("privilege-missing", "this database role lacks a privilege", "Use the owner of the tables"),
    "55P03": ("lock-unavailable", "a lock was not to be had in time", "Look for a long transaction, then run again"),
    "40P01": ("lock-unavailable", "a deadlock with another session", "Run again"),
    "40001": ("lock-unavailable", "a conflict with another session", "Run again"),
    "57014": ("statement-timeout", "a statement took too long or was cancelled", "Run again in a quieter hour"),
    "25006": ("database-read-only", "this server only reads", "Connect to the primary server"),
    "22001": ("cell-too-long", "a new value is longer than the column permits", "Widen the column"),
    "53100": ("database-full", "the server's disk is full", "Make room, then run again"),
    "42703": ("table-changed", "a column changed meanwhile", "See who else works on this table, then run again"),
    "42P01": ("table-changed", "a table is gone meanwhile", "See who else works on this table, then run again"),
    "25P03": ("connection-lost", "the server ended an idle transaction", "Run again: it goes on where it stopped"),
    "08": ("connection-lost", "the connection was lost", "Run again: it goes on where it stopped"),
    "57": ("connection-lost", "the server ended the connection", "Run again: it goes on where it stopped"),
    "23": ("constraint-refused", "a constraint or trigger of the table refuses a new value", "Look at its constraints"),
}

#: What a refused connection's text says, to what we say; the text itself repeats the address and the login.
_CONNECT_TEXTS = (
    ("password authentication failed", "the login is refused"),
    ("no password supplied", "the server wants a password and the connection string has none"),
    ("no pg_hba.conf entry", "the server does not admit this host"),
    ("does not exist", "the database or the role does not exist"),
    ("Connection refused", "nothing listens there"),
    ("could not translate host name", "the host name does not resolve"),
    ("failed to resolve host", "the host name does not resolve"),
    ("timeout", "the server does not answer in time"),
    ("SSL", "the TLS settings do not match the server's"),
    ("too many clients", "the server has no free connection"),
)


def explain(error: psycopg.Error, where: str) -> KeyturnError:
    """The error in our words: SQLSTATE, and never the server's text."""
    is_lost = isinstance(error, (psycopg.OperationalError, psycopg.InternalError))  # the latter in the middle of COMMIT
    state = error.sqlstate or ("08000" if is_lost else "")
    if state == "42501" and "row-level security" in str(error):
        return row_security(where)
    known = _STATES.get(state) or _STATES.get(state[:2])
    if known is None:
        kind = f"SQLSTATE {state}" if state else type(error).__name__
        return KeyturnError("sql-failed", f"the server refused a statement ({kind})", where=where, hint="See its log")
    code, message, hint = known
    return KeyturnError(code, message, where=where, hint=hint)


def row_security(where: str) -> KeyturnError:
    """The refusal of a table whose rows may be hidden from this role."""
    return KeyturnError(
        "row-security",
        "row-level security hides rows from this role",
        where=where,
        hint="Use a role with BYPASSRLS, or the owner where the policies are not forced",
    )


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn database errors inside into :class:`KeyturnError`."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(error, where) from None


def is_retryable(error: psycopg.Error) -> bool:
    """Whether a lock, deadlock or serialization conflict caused it: the same again may well succeed.

    Two who write the same large object conflict as well; the server calls that an internal error.
    """
    if error.sqlstate == "XX000":
        return error.diag.source_function in _CONFLICTS_INSIDE
    return error.sqlstate in _RETRYABLE


def check_direct(reported: int, actual: int, where: str) -> None:
    """Refuse a pooler: the process that greeted us must be the one that answers.

    :raises KeyturnError: ``pooler-refused``.
    """
    if reported != actual:
        raise KeyturnError(
            "pooler-refused",
            "a connection pooler stands before the server: settings and locks would leak to other clients",
            where=where,
            hint="Give a connection string that leads to PostgreSQL itself. The service may keep using the pooler",
        )


def check_primary(link: Link, where: str) -> None:
    """Refuse a standby, which cannot be written to.

    :raises KeyturnError: ``database-read-only``.
    """
    if link.execute("SELECT 1 WHERE pg_is_in_recovery()").fetchone():
        code, message, hint = _STATES["25006"]
        raise KeyturnError(code, message, where=where, hint=hint)


def connect(dsn: bytes, where: str, limits: Limits, is_known: bool = False) -> Link:
    """A connection with every setting that matters stated; statements outside of a transaction commit by themselves.

    :param dsn: a connection string or URL; never repeated in an error.
    :param where: what errors call the database.
    :param is_known: whether a connection of this call has been made before: strangers are not looked for again.
    :raises KeyturnError: ``libraries-missing``, ``dsn-failed``, ``pooler-refused``, ``search-path-unsafe``.
    """
    if not HAS_PSYCOPG:
        raise KeyturnError("libraries-missing", "needs psycopg 3", where=where, hint="Install psycopg[binary]")
    try:
        link = psycopg.connect(
            dsn.decode().strip(),
            autocommit=True,
            prepare_threshold=1_000_000,  # only what is asked for by name
            connect_timeout=10,
            application_name="keyturn",
        )
    except (psycopg.Error, UnicodeDecodeError) as error:
        raise _refused(str(error), where) from None
    try:
        with explained(where):
            _settle(link, where, limits, is_known)
    except BaseException:
        link.close()
        raise
    return link


def _refused(text: str, where: str) -> KeyturnError:
    message = next((ours for theirs, ours in _CONNECT_TEXTS if theirs in text), "the connection string does not work")
    return KeyturnError("dsn-failed", message, where=where, hint="Check the connection string and the server")


def _settle(link: Link, where: str, limits: Limits, is_known: bool) -> None:
    stranger, names = ("NULL", ()) if is_known else (f"({STRANGER})", (list(FUNCTIONS),))
    role = "pg_catalog.current_setting('session_replication_role')"
    row = link.execute(f"SELECT pg_catalog.pg_backend_pid(), {role}, {stranger}", names).fetchone()
    if row is None:
        raise KeyturnError("dsn-failed", "the server does not answer", where=where, hint="Check the server")
    check_direct(link.info.backend_pid, row[0], where)  # before any setting: it would stay in the pool
    settings = {
        "client_encoding": "UTF8",
        "row_security": "off",
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "off",
        "default_transaction_deferrable": "off",
        "lock_timeout": f"{limits.lock_ms}ms",
        "statement_timeout": f"{limits.statement_s}s",
        "idle_in_transaction_session_timeout": f"{limits.idle_s}s",
        "idle_session_timeout": "0",
        "transaction_timeout": "0",
        "DateStyle": "ISO",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "array_nulls": "on",
        **_PLANS,
    }
    if row[2]:
        raise KeyturnError(
            "search-path-unsafe",
            f"{row[2]} has the name of one of PostgreSQL's own and could run with our rights",
            where=where,
            hint="Drop or rename it, or take its schema out of the search_path of the rotator's role",
        )
    query = """
        SELECT set_config(s.name, v.setting, false) FROM unnest(%s::text[], %s::text[]) v(name, setting)
        JOIN pg_settings s ON lower(s.name) = lower(v.name)"""  # those that this version of the server knows
    link.execute(query, (list(settings), list(settings.values())))
    if row[1] != "origin":
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            link.execute("SELECT set_config('session_replication_role', 'origin', false)")
    link.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    link.read_only = False


def raw_cursor(link: Link) -> Rows:
    """A cursor whose text columns come as the bytes they are: no decoding, no surprises, half the time."""
    cursor = link.cursor(binary=True)
    for name in ("text", "varchar", "json"):
        cursor.adapters.register_loader(name, ByteaBinaryLoader)
    return cursor


@contextlib.contextmanager
def transaction(link: Link) -> Iterator[None]:
    """One READ COMMITTED transaction, stated as such whatever the role's default is."""
    with link.transaction():
        yield


@contextlib.contextmanager
def snapshot(link: Link, tables: Sequence[sql.Composable] = ()) -> Iterator[str]:
    """One REPEATABLE READ READ ONLY transaction: all of one moment; others can join it by the name that is given.

    :param tables: they are locked (ACCESS SHARE) before that moment: one that is made anew later shows no rows at all.
    """
    link.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        _settle_snapshot(link)
        for table in tables:
            link.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(table), ())
        row = link.execute("SELECT pg_export_snapshot()").fetchone()
        yield str(row[0]) if row else ""
    finally:
        if not link.closed:
            link.execute("ROLLBACK")


def _settle_snapshot(link: Link) -> None:
    """A process that is frozen while it reads must not keep tables from being changed for long."""
    link.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")


def may_be_idle(link: Link, seconds: float) -> None:
    """Let the present snapshot live while one window takes so long to work on, and as long as others besides."""
    if seconds > _IDLE_SECONDS / 4:
        link.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_SECONDS + int(4 * seconds)}s'")


@contextlib.contextmanager
def joined(link: Link, name: str) -> Iterator[None]:
    """The same moment on another connection, while the first one's transaction lasts."""
    link.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        _settle_snapshot(link)
        link.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(name)))
        yield
    finally:
        if not link.closed:
            link.execute("ROLLBACK")


def whole_tables(link: Link) -> None:
    """Let the planner read whole tables for the rest of this transaction (elsewhere it looks rows up by key)."""
    for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
        link.execute("SELECT set_config(%s, 'on', true)", (name,))
