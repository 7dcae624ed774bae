# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password of a Redis user: a user may have several, so the new one is added first and the old one taken away last.

Passwords are added and taken away by their SHA-256 (``#<hash>``, ``!<hash>``), so ``ACL SETUSER`` never carries one.
Only ``requirepass`` and ``masterauth``, which Redis keeps in clear, are set as they are; Redis hides both from MONITOR
and from its slow log (6.2 and later).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
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
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:
    if TYPE_CHECKING:
        raise
    HAS_REDIS = False
else:
    HAS_REDIS = True

__all__ = ["HAS_REDIS", "RedisLogin"]

_SECONDS = 10


class _Link(Protocol):
    """What is used of a connection; the library's own types differ from release to release."""

    def execute_command(self, *words: Any) -> Any: ...
    def acl_getuser(self, user: str) -> dict[str, Any] | None: ...
    def config_get(self, name: str) -> dict[str, Any]: ...
    def info(self, section: str) -> dict[str, Any]: ...
    def pipeline(self, transaction: bool) -> Any: ...
    def ping(self) -> Any: ...
    def close(self) -> Any: ...


_FIRST_WITH_PROTOCOL = 5


class RedisLogin:
    """One user on one server.

    :param entry: ``address`` (``host:port`` or a socket's path), ``user``, ``tls``, ``ca_file``, ``cert_file``,
        ``key_file``, ``admin_user``.
    :param passwords: passwords that the admin may have; without ``admin_user`` the user changes itself.
    :param kept: says that this rotation has changed the server, so that an interrupted call is finished.
    """

    both_valid = True

    def __init__(self, entry: Mapping[str, Any], passwords: Sequence[bytes], kept: Kept) -> None:
        if not HAS_REDIS:
            raise KeyturnError("libraries-missing", "needs the Python library redis", hint="Install redis")
        self.user: str = entry.get("user") or "default"
        self._admin_user: str = entry.get("admin_user") or self.user
        self._passwords, self._kept = passwords, kept
        self._where = _connection(entry)
        self.place = f"user {self.user} on Redis {entry['address']}"

    # -- logins --------------------------------------------------------------------------------------------------

    def ask(self, password: bytes) -> Answer:
        """Log in once; a user that needs no password is found out with one that is surely wrong."""
        answer = self._try(password)
        if answer.said == ACCEPTED and self._try(secrets.token_urlsafe(24).encode()).said == ACCEPTED:
            return Answer(UNCHECKED, "nopass")
        return answer

    def _try(self, password: bytes) -> Answer:
        link = self._open(self.user, password)
        try:
            link.ping()
        except redis.exceptions.NoPermissionError:
            return Answer(ACCEPTED, "logged in, may not PING")
        except (redis.RedisError, OSError) as error:
            if _is_refusal(error):
                return Answer(REFUSED, "the password is refused")
            return Answer(UNREACHABLE, f"the server does not answer ({type(error).__name__})")
        finally:
            link.close()
        return Answer(ACCEPTED, "logged in")

    # -- states --------------------------------------------------------------------------------------------------

    def look(self, sides: Mapping[str, bytes]) -> dict[str, Any]:
        """What stands in the way; the versions that are accepted now."""
        accepted = held(self.ask, sides, self.place)
        if accepted:
            link = self._admin()
            try:
                self._hashes(link)
            finally:
                link.close()
        return {"accepted": accepted}

    def change(self, new: Side, old: Side | None, check_mode: bool) -> bool:
        """Make the new password valid beside the old one."""
        sides = {side.version: side.value for side in (new, old) if side is not None}
        accepted = held(self.ask, sides, self.place)
        if not accepted:
            raise KeyturnError(
                "password-drifted",
                "the server accepts neither the old nor the new password, so somebody changed it",
                where=self.place,
                hint="Put the password that is valid into the store, or the store's into the server",
            )
        return self._add(new, old, check_mode, begin=True)

    def back(self, new: Side | None, old: Side, check_mode: bool) -> bool:
        """Make the old password valid beside the new one, which goes when no store holds it any more."""
        return self._add(old, new, check_mode, begin=False)

    def _add(self, keep: Side, other: Side | None, check_mode: bool, begin: bool) -> bool:
        link = self._admin()
        try:
            is_missing = _hash(keep.value) not in self._hashes(link)
            if check_mode or not (begin or is_missing or self._kept.load()):
                return is_missing
            if begin:
                self._kept.save({"former": "", "made": ""})
            with _Explained(self.place):
                if is_missing:
                    link.execute_command("ACL", "SETUSER", self.user, "#" + _hash(keep.value))
                if other is not None:
                    _follow(link, other.value, keep.value)
            self._persist(link)
        finally:
            link.close()
        return is_missing

    def finish(self, keep: Side, drop: Side | None, check_mode: bool) -> bool:
        """Take the other password away."""
        changed = self._only(keep, drop, check_mode, bool(self._kept.load()))
        return self._kept.remove(check_mode) or changed

    # -- the admin's side ----------------------------------------------------------------------------------------

    def _only(self, keep: Side, drop: Side | None, check_mode: bool, persist: bool) -> bool:
        link = self._admin()
        try:
            with _Explained(self.place):
                hashes = self._hashes(link)
                to_add = _hash(keep.value) not in hashes
                to_drop = drop is not None and drop.value != keep.value and _hash(drop.value) in hashes
                if drop is not None and not check_mode:
                    self._swap(link, keep, drop, hashes, to_add, to_drop)
                    _follow(link, drop.value, keep.value)
            if (persist or to_add or to_drop) and not check_mode:
                self._persist(link)
        finally:
            link.close()
        return to_add or to_drop

    def _swap(self, link: _Link, keep: Side, drop: Side, hashes: Sequence[str], to_add: bool, to_drop: bool) -> None:
        """One step. Setting ``requirepass`` takes every other password away, so those of others come back with it."""
        if self.user == "default" and _setting(link, "requirepass") == _text(drop.value):
            others = ["#" + known for known in hashes if known not in (_hash(keep.value), _hash(drop.value))]
            step = link.pipeline(transaction=True)
            step.execute_command("CONFIG", "SET", "requirepass", keep.value)
            if others:
                step.execute_command("ACL", "SETUSER", self.user, *others)
            step.execute()
            return
        rules = ["#" + _hash(keep.value)] if to_add else []
        rules += ["!" + _hash(drop.value)] if to_drop else []
        if rules:
            link.execute_command("ACL", "SETUSER", self.user, *rules)

    def _hashes(self, link: _Link) -> list[str]:
        """The SHA-256 of each password of the user.

        :raises KeyturnError: ``user-missing``, ``login-unchecked``, ``privilege-missing``.
        """
        with _Explained(self.place):
            found = link.acl_getuser(self.user)
        if not found:
            raise KeyturnError("user-missing", "there is no such user", where=self.place, hint="Check its name")
        if "nopass" in found["flags"]:
            raise KeyturnError(
                "login-unchecked",
                "this user needs no password, so no check proves anything",
                where=self.place,
                hint="Give it a password first (requirepass, or ACL SETUSER)",
            )
        return [str(known) for known in found["passwords"]]

    def _persist(self, link: _Link) -> None:
        """Write it where the server reads it when it starts; nothing to do where it is started without a file."""
        with _Explained(self.place):
            if _setting(link, "aclfile"):
                link.execute_command("ACL", "SAVE")
            if self.keeps_file(link):
                link.execute_command("CONFIG", "REWRITE")

    @staticmethod
    def keeps_file(link: _Link) -> bool:
        """Whether the server was started with a configuration file."""
        return bool(link.info("server").get("config_file"))

    def persistence(self) -> str:
        """Where the server keeps passwords: ``acl_file``, ``config_file``, or ``none``: it must be started with it."""
        link = self._admin()
        try:
            with _Explained(self.place):
                if _setting(link, "aclfile"):
                    return "acl_file"
                return "config_file" if self.keeps_file(link) else "none"
        finally:
            link.close()

    def _admin(self) -> _Link:
        for password in self._passwords:
            link = self._open(self._admin_user, password)
            try:
                with _Explained(self.place):
                    link.execute_command("ACL", "WHOAMI")
            except KeyturnError as error:
                link.close()
                if error.code == "admin-refused":
                    continue
                raise
            return link
        raise KeyturnError(
            "admin-refused",
            f"the admin's login ({self._admin_user}) is refused",
            where=self.place,
            hint="Check admin_user and admin_password",
        )

    def _open(self, user: str, password: bytes) -> _Link:
        link: Any = redis.Redis(**{**self._where, "username": user, "password": password})
        opened: _Link = link
        return opened


class _Explained:
    """Errors in our words; the server's text repeats what it was sent."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Turn what Redis said into one of our errors."""
        del kind, trace
        if error is not None and _is_refusal(error):
            raise KeyturnError(
                "admin-refused", "the admin's login is refused", where=self._place, hint="Check its password"
            ) from None
        if isinstance(error, redis.exceptions.NoPermissionError):
            raise KeyturnError(
                "privilege-missing",
                "this login may not change it",
                where=self._place,
                hint="Name an admin_user that may use ACL, CONFIG and INFO",
            ) from None
        if isinstance(error, redis.ResponseError):
            raise KeyturnError(
                "redis-refused",
                "the server refused a command, or could not write its file",
                where=self._place,
                hint="Redis 6 is the first with ACL; see the server's log, and whether it may write its configuration",
            ) from None
        if isinstance(error, (redis.RedisError, OSError)):
            raise KeyturnError(
                "server-unreachable",
                f"the server does not answer ({type(error).__name__})",
                where=self._place,
                hint="Check the address and the server, then run again",
            ) from None


def _is_refusal(error: BaseException) -> bool:
    """Whether the server says that user and password do not fit (older libraries have no class for its word)."""
    if isinstance(error, redis.AuthenticationError):
        return True
    return isinstance(error, redis.ResponseError) and str(error).startswith("WRONGPASS")


def _hash(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _setting(link: _Link, name: str) -> str:
    return str(link.config_get(name).get(name) or "")


def _follow(link: _Link, before: bytes, after: bytes) -> None:
    """A replica that logs in to its primary with this password follows."""
    if _setting(link, "masterauth") == _text(before):
        link.execute_command("CONFIG", "SET", "masterauth", after)


def _connection(entry: Mapping[str, Any]) -> dict[str, Any]:
    address = str(entry["address"])
    options: dict[str, Any] = {
        "socket_timeout": _SECONDS,
        "socket_connect_timeout": _SECONDS,
        "single_connection_client": False,
        "retry": Retry(NoBackoff(), 0),  # one question, one answer: what failed is told at once
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
    }
    if int(redis.__version__.split(".")[0]) >= _FIRST_WITH_PROTOCOL:
        options["protocol"] = 2  # logs in with AUTH, which Redis hides from MONITOR
    if address.startswith("/"):
        return {**options, "unix_socket_path": address}
    host, _colon, port = address.rpartition(":")
    options.update(host=host.strip("[]") or "127.0.0.1", port=int(port))
    if entry.get("tls"):
        names = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}
        options["ssl"] = True
        options.update({theirs: entry[ours] for ours, theirs in names.items() if entry.get(ours)})
    return options
