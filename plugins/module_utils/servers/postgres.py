# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password of a PostgreSQL role: one is valid at a time, so it is altered in one statement and shown at once.

The statement carries a SCRAM verifier. What the role had before is kept beside it, durable before the change, so that
the way back is exact also for a password that nobody here knows in clear.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    HAS_PSYCOPG,
    Limits,
    Link,
    check_primary,
    connect,
    explained,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.servers import scram
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.kept import Kept
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.logins import (
    ACCEPTED,
    REFUSED,
    UNCHECKED,
    UNREACHABLE,
    Answer,
    Side,
    held,
)

try:
    import psycopg
    from psycopg import conninfo, sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["PostgresLogin", "role_of"]

_LIMITS = Limits(lock_ms=5000, statement_s=30)
_FIRST_WITH_SCRAM = 100000
#: Of the admin's connection string these belong to the admin, not to the login that is tried.
_ADMINS_OWN = ("user", "password", "passfile", "options", "application_name", "connect_timeout", "require_auth")
_WRONG = "password authentication failed"
#: The role, whether its verifier may be read, and whether the admin may set its password (ALTER ROLE, "Description").
_ROLE = """
    SELECT r.rolcanlogin, has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT'),
           r.oid = me.oid OR me.rolsuper OR me.rolcreaterole AND NOT r.rolsuper AND
               (current_setting('server_version_num')::int < 160000
                OR pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION')),
           coalesce(current_setting('scram_iterations', true)::int, %(iterations)s),
           current_setting('server_version_num')::int
    FROM pg_catalog.pg_roles r, pg_catalog.pg_roles me
    WHERE r.rolname = %(role)s AND me.rolname = current_user"""


def role_of(dsn: bytes) -> str:
    """The role that a connection string logs in as; empty where it does not say."""
    try:
        return str(conninfo.conninfo_to_dict(dsn.decode().strip()).get("user") or "")
    except (psycopg.Error, UnicodeDecodeError):
        return ""


class PostgresLogin:
    """One role on one server.

    :param entry: ``role``, ``database`` (what errors call the admin's connection), and ``host``, ``port``, ``dbname``
        of the login that is tried, by default those of ``dsn``.
    :param dsn: the admin's connection string.
    :param passwords: further passwords that the admin may have by now: it may be one of the roles that turn.
    :param kept: what is kept for the way back.
    :param randbytes: random bytes.
    """

    both_valid = False

    def __init__(
        self,
        entry: Mapping[str, Any],
        dsn: bytes,
        passwords: Sequence[bytes],
        kept: Kept,
        randbytes: Callable[[int], bytes],
    ) -> None:
        if not HAS_PSYCOPG:
            raise KeyturnError("libraries-missing", "needs psycopg 3", hint="Install psycopg[binary]")
        self.role: str = entry["role"]
        self._admin_place = f"database {entry['database']}"
        self._dsn, self._passwords, self._kept, self._randbytes = dsn, passwords, kept, randbytes
        try:
            self._login = _login_of(conninfo.conninfo_to_dict(dsn.decode().strip()), entry)
        except (psycopg.Error, UnicodeDecodeError):
            raise KeyturnError(
                "dsn-failed", "the connection string does not work", where=self._admin_place, hint="Check it"
            ) from None
        address = ":".join(str(self._login[part]) for part in ("host", "port") if self._login.get(part))
        self.place = f"role {self.role} on PostgreSQL {address}"

    # -- logins --------------------------------------------------------------------------------------------------

    def ask(self, password: bytes) -> Answer:
        """Log in once, as a client does. A refusal is told from other failures whatever language the server speaks."""
        answer, text = self._try(password)
        if answer.said == REFUSED and _WRONG not in text:
            _surely_wrong, reference = self._try(secrets.token_urlsafe(24).encode())
            if text != reference:
                return Answer(UNREACHABLE, "the server ended the login for another reason than the password")
        return answer

    def _try(self, password: bytes) -> tuple[Answer, str]:
        try:
            link = psycopg.connect(
                **{**self._login, "user": self.role, "password": password.decode("ascii"), "connect_timeout": 10},
                application_name="keyturn",
            )
        except psycopg.Error as error:
            asked = error.pgconn is not None and error.pgconn.used_password
            said = Answer(REFUSED, "the password is refused") if asked else Answer(UNREACHABLE, _unreached(str(error)))
            return said, str(error)
        checked = link.pgconn.used_password
        link.close()
        if not checked:
            return Answer(UNCHECKED, "trust, a certificate or the system's user, see pg_hba.conf"), ""
        return Answer(ACCEPTED, "logged in"), ""

    # -- states --------------------------------------------------------------------------------------------------

    def look(self, sides: Mapping[str, bytes]) -> dict[str, Any]:
        """What stands in the way; the versions that are accepted now."""
        for value in sides.values():
            scram.check_password(value, self.place)
        link = self._admin()
        try:
            self._rights(link)
        finally:
            link.close()
        return {"accepted": held(self.ask, sides, self.place)}

    def change(self, new: Side, old: Side | None, check_mode: bool) -> bool:
        """Make the new password the valid one."""
        scram.check_password(new.value, self.place)
        accepted = held(self.ask, _values(new, old), self.place)
        if "new" in accepted:
            return False
        if "old" not in accepted:
            raise _drifted(self.place)
        link = self._admin()
        try:
            iterations, readable = self._rights(link)
            if not check_mode:
                made = scram.verifier(new.value, self._randbytes(scram.SALT_BYTES), iterations)
                self._kept.save({"former": self._read(link) if readable else "", "made": made})
                self._alter(link, made)
        finally:
            link.close()
        return True

    def back(self, new: Side | None, old: Side, check_mode: bool) -> bool:
        """Make the old password the valid one again, by what the role had before where that is known."""
        kept = self._kept.load()
        accepted = held(self.ask, _values(new, old), self.place)
        if "old" in accepted and not kept:
            return False
        link = self._admin()
        try:
            iterations, readable = self._rights(link)
            # a server that asks a directory accepts the old one all the time; what the role has tells
            is_ours = readable and bool(kept) and self._read(link) == kept["made"]
            if "new" not in accepted and not is_ours:
                if "old" in accepted:
                    return False
                raise _drifted(self.place)
            if not check_mode:
                self._alter(link, kept.get("former") or self._made_anew(old, iterations))
        finally:
            link.close()
        return True

    def finish(self, keep: Side, drop: Side | None, check_mode: bool) -> bool:
        """Forget what was kept for the way back; nothing is left to take away in the server."""
        del keep, drop
        return self._kept.remove(check_mode)

    # -- the admin's side ----------------------------------------------------------------------------------------

    def _admin(self) -> Link:
        """A connection of the admin, who may be the role itself, with any of its passwords."""
        dsns = [conninfo.make_conninfo(self._dsn.decode().strip(), password=p.decode()) for p in self._passwords]
        failure: KeyturnError | None = None
        for dsn in [*dsns, self._dsn.decode()]:
            try:
                link = connect(dsn.encode(), self._admin_place, _LIMITS)
            except KeyturnError as error:
                failure = error
                continue
            with explained(self._admin_place):
                check_primary(link, self._admin_place)
            return link
        raise failure or KeyturnError("dsn-failed", "no connection string", where=self._admin_place, hint="Set dsn")

    def _rights(self, link: Link) -> tuple[int, bool]:
        """Iterations to use and whether the present verifier can be read.

        :raises KeyturnError: ``role-missing``, ``role-without-login``, ``privilege-missing``, ``server-too-old``.
        """
        with explained(self._admin_place):
            row = link.execute(_ROLE, {"role": self.role, "iterations": scram.ITERATIONS}).fetchone()
        if row is None:
            raise KeyturnError("role-missing", "there is no such role", where=self.place, hint="Check its name")
        can_login, readable, permitted, iterations, version = row
        if version < _FIRST_WITH_SCRAM:
            raise KeyturnError(
                "server-too-old", "this server knows no SCRAM", where=self.place, hint="PostgreSQL 10 is the first"
            )
        if not can_login:
            raise KeyturnError("role-without-login", "may not log in", where=self.place, hint="Name another role")
        if not permitted:
            raise KeyturnError(
                "privilege-missing",
                "the admin connection may not set its password",
                where=self.place,
                hint="Connect as the role itself, as a superuser, or as a role with CREATEROLE and ADMIN on it",
            )
        return int(iterations), bool(readable)

    def _read(self, link: Link) -> str:
        with explained(self._admin_place):
            query = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = %s"
            row = link.execute(query, (self.role,)).fetchone()
        return str(row[0]) if row and row[0] else ""

    def _made_anew(self, old: Side, iterations: int) -> str:
        password = scram.check_password(old.value, self.place)
        return scram.verifier(password, self._randbytes(scram.SALT_BYTES), iterations)

    def _alter(self, link: Link, text: str) -> None:
        """One statement. A server takes no parameter here; the verifier is base64 and signs, and no password."""
        with explained(self._admin_place):
            statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self.role), sql.Literal(text))
            link.execute(statement)


def _values(*sides: Side | None) -> dict[str, bytes]:
    return {side.version: side.value for side in sides if side is not None}


def _drifted(where: str) -> KeyturnError:
    return KeyturnError(
        "password-drifted",
        "the server accepts neither the old nor the new password, so somebody changed it",
        where=where,
        hint="Put the password that is valid into the store, or the store's into the server; nothing was changed",
    )


def _login_of(admin: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a login over TCP: those of the admin's connection, and what the catalog says."""
    login = {key: value for key, value in admin.items() if key not in _ADMINS_OWN and value is not None}
    said = {key: entry[key] for key in ("host", "port", "dbname") if entry.get(key)}
    if "host" in said:
        login.pop("hostaddr", None)
        login.pop("service", None)
    login.update(said)
    host = str(login.get("host") or "")
    if (not host and "hostaddr" not in login and "service" not in login) or host.startswith(("/", "@")):
        login["host"] = "127.0.0.1"  # a socket asks for no password, as a rule
    return login


def _unreached(text: str) -> str:
    known = {
        "Connection refused": "nothing listens there",
        "pg_hba.conf": "the server does not admit this login from here",
        "timeout": "the server does not answer in time",
        "resolve host": "the host name does not resolve",
        "translate host": "the host name does not resolve",
        "SSL": "the TLS settings do not match the server's",
        "starting up": "the server is starting up",
        "shutting down": "the server is shutting down",
    }
    return next((ours for theirs, ours in known.items() if theirs in text), "the server does not let anybody in")
