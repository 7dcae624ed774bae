# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of ``server_password`` and ``server_password_info``: from arguments to servers to the state asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS
from ansible_collections.keyturn.rotation.plugins.module_utils.servers import scram
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.kept import Kept
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.logins import Side, prove, rows
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.postgres import PostgresLogin, role_of
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.redis import RedisLogin
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS, resolve

__all__ = ["ARGUMENTS", "INFO_ARGUMENTS", "run", "run_info"]

_REFERENCE = {"type": "dict", "no_log": False, "options": VALUE_OPTIONS}
_SERVER: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "required": True, "choices": ["postgres", "redis"]},
    "database": {"type": "str"},
    "role": {"type": "str"},
    "dsn": _REFERENCE,
    "host": {"type": "str"},
    "port": {"type": "int"},
    "dbname": {"type": "str"},
    "address": {"type": "str"},
    "user": {"type": "str", "default": "default"},
    "tls": {"type": "bool", "default": False},
    "ca_file": {"type": "path"},
    "cert_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "admin_user": {"type": "str"},
    "admin_password": _REFERENCE,
    "new": _REFERENCE,
    "old": _REFERENCE,
}
#: Arguments of ``server_password_info``.
INFO_ARGUMENTS: dict[str, dict[str, Any]] = {
    **SESSION_ARGUMENTS,
    "servers": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": _SERVER,
        "required_if": [["type", "postgres", ["database", "role", "dsn"]], ["type", "redis", ["address"]]],
    },
}
#: Arguments of ``server_password``.
ARGUMENTS: dict[str, dict[str, Any]] = {
    **INFO_ARGUMENTS,
    "state": {"type": "str", "required": True, "choices": ["changed", "verified", "retired", "rolled_back"]},
    "direction": {"type": "str", "choices": ["forward", "back"], "default": "forward"},
}

_IDENTITY = ("type", "database", "role", "host", "port", "address", "user")
Login = Union[PostgresLogin, RedisLogin]


@dataclass(frozen=True)
class _Server:
    """One login with its values; without ``new`` nothing has been staged, or all is over."""

    secret: str
    type: str
    login: Login
    new: Side | None
    old: Side | None


def _open_all(session: Session, entries: Sequence[Mapping[str, Any]]) -> list[_Server]:
    sides = [{version: _side(session, entry, version) for version in ("new", "old")} for entry in entries]
    dsns = [_value(session, entry, "dsn", f"database/{entry.get('database')}") for entry in entries]
    # the admin of a database may be one of the roles that turn in this call: it has either password then
    turning: dict[tuple[str, str], list[bytes]] = {}
    for entry, pair in zip(entries, sides):
        if entry["type"] == "postgres":
            found = turning.setdefault((entry["database"], entry["role"]), [])
            found += [side.value for side in pair.values() if side is not None]
    opened = []
    for entry, pair, dsn in zip(entries, sides, dsns):
        login: Login
        name = str(entry["name"])
        kept = Kept(session, name, "|".join(str(entry.get(part) or "") for part in _IDENTITY))
        known = [side.value for side in pair.values() if side is not None]
        if entry["type"] == "postgres":
            for value in known:
                scram.check_password(value, f"the password {name}")
            own = turning.get((entry["database"], role_of(dsn or b"")), [])
            login = PostgresLogin(entry, dsn or b"", own, kept, os.urandom)
        else:
            admin = _value(session, entry, "admin_password", f"server/{name}/admin")
            login = RedisLogin(entry, known if admin is None else [admin], kept)
        opened.append(_Server(name, entry["type"], login, pair["new"], pair["old"]))
    return opened


def _value(session: Session, entry: Mapping[str, Any], field: str, context: str) -> bytes | None:
    reference = entry.get(field)
    return resolve(session, reference, f"{session.rotation_id}/{context}") if reference else None


def _side(session: Session, entry: Mapping[str, Any], version: str) -> Side | None:
    value = _value(session, entry, version, f"{entry['name']}/{version}")
    return None if value is None else Side(version, value)


def run_info(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The work of ``server_password_info``: each server is reached, a password is valid, the admin may change it."""
    del check_mode
    session = Session.from_params(params)
    answers = []
    for server in _open_all(session, params["servers"]):
        sides = {side.version: side.value for side in (server.old, server.new) if side is not None}
        if not sides:
            raise KeyturnError(
                "value-missing",
                f"{server.secret} has no present value, so there would be no way back",
                where=server.login.place,
                hint="Put the password that is valid now into the store",
            )
        found = server.login.look(sides)
        if not found["accepted"]:
            raise KeyturnError(
                "password-drifted",
                f"the server refuses the password that {server.secret} holds",
                where=server.login.place,
                hint="Put the password that is valid now into the store",
            )
        answers.append({**_base(server), "accepted": found["accepted"], **_persistence(server)})
    return {"changed": False, "servers": answers}


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The work of ``server_password``; see its RETURN for the result."""
    session = Session.from_params(params)
    state, is_back = params["state"], params["direction"] == "back"
    answers = []
    with session.changing(check_mode):
        servers = _open_all(session, params["servers"])
        for server in reversed(servers) if state == "rolled_back" else servers:
            answers.append(_reach(server, state, is_back, check_mode))
    changed = any(answer["changed"] for answer in answers)
    return {"changed": changed, "servers": answers, "diff": [_diff(answer, state) for answer in answers]}


def _reach(server: _Server, state: str, is_back: bool, check_mode: bool) -> dict[str, Any]:
    login, new, old = server.login, server.new, server.old
    started = time.perf_counter()
    changed = False
    keep, drop = (old, new) if is_back or state == "rolled_back" else (new, old)
    if keep is None:
        raise KeyturnError(
            "value-missing",
            f"the value of {server.secret} that shall be valid is not here",
            where=login.place,
            hint="Run the playbook from its start",
        )
    if state == "changed":
        changed = login.change(keep, drop, check_mode)
    elif state == "rolled_back":
        changed = login.back(drop, keep, check_mode)
    elif state == "retired" and login.both_valid:
        changed = login.finish(keep, drop, check_mode)
    elapsed = round(1000 * (time.perf_counter() - started))
    shown: list[dict[str, Any]] = []
    if not (check_mode and changed):
        # beside each other both are valid until one is taken away, which is the last step of either way
        both = login.both_valid and state != "retired"
        prove(login.ask, keep, None if both else drop, login.place)
        shown = rows(keep, None if both else drop)
    if state == "retired" and not login.both_valid:
        changed = login.finish(keep, drop, check_mode)  # what was kept for the way back goes after the proof
    return {**_base(server), "changed": changed, "logins": shown, "took_ms": elapsed, **_persistence(server)}


def _base(server: _Server) -> dict[str, Any]:
    return {"secret": server.secret, "type": server.type, "place": server.login.place}


def _persistence(server: _Server) -> dict[str, str]:
    """Only Redis can forget a password when it restarts."""
    return {"kept_in": server.login.persistence()} if isinstance(server.login, RedisLogin) else {}


def _diff(answer: Mapping[str, Any], state: str) -> dict[str, str]:
    after = f"{state}\n" if answer["changed"] else "as before\n"
    return {"before_header": answer["place"], "after_header": answer["place"], "before": "as before\n", "after": after}
