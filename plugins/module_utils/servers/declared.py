# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog's field ``server``: which servers check a password, and which host talks to each. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape, nearest

__all__ = ["KINDS", "SERVER", "check_servers", "entries", "resolved_servers", "talkers", "work_of"]

_PASSWORD = Shape(
    "where the admin's password comes from, on the controller",
    {
        "file": Field("str", "A file of mode 0600 on the controller"),
        "env": Field("str", "A variable of the controller's environment"),
        "variable": Field("str", "An Ansible variable (vaulted)"),
    },
)
SERVER = Shape(
    "server",
    {
        "type": Field("str", "What checks the password", required=True, choices=("postgres", "redis")),
        "database": Field("str", "PostgreSQL: a name from keyturn_databases, the admin's connection"),
        "role": Field("str", "PostgreSQL: the role whose password it is"),
        "host": Field("str", "PostgreSQL: where a login is tried over TCP; the admin's server by default"),
        "port": Field("int", "PostgreSQL: the port of that login", minimum=1),
        "dbname": Field("str", "PostgreSQL: the database of that login"),
        "hosts": Field("str|list", "Redis: the host that talks to it, or each of several to its own"),
        "address": Field("str", "Redis: host:port, or the path of a socket", pattern=r"^(/.+|[^/\s]+:[0-9]+)$"),
        "user": Field("str", "Redis: the ACL user; default by default, whose password is requirepass"),
        "tls": Field("bool", "Redis: whether to speak TLS"),
        "ca_file": Field("str", "Redis: certificates to trust, on its host", pattern=r"^/"),
        "cert_file": Field("str", "Redis: a client certificate, on its host", pattern=r"^/"),
        "key_file": Field("str", "Redis: its key, on its host", pattern=r"^/"),
        "admin_user": Field("str", "Redis: who may change the user; the user itself by default"),
        "admin_password": Field("map", "Redis: the admin's password", shape=_PASSWORD),
    },
)
_NEEDED = {"postgres": ("database", "role"), "redis": ("hosts", "address")}
_FOREIGN = {
    "postgres": ("hosts", "address", "user", "tls", "ca_file", "cert_file", "key_file", "admin_user", "admin_password"),
    "redis": ("database", "role", "host", "port", "dbname"),
}
#: Kinds whose role changes passwords in servers; one of another collection may do it too.
KINDS = ("database_login", "env_secret", "redis_login")
_NAME = re.compile(r"[^\x00]{1,63}")


def entries(secret: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The servers of a secret as a list, however they are written."""
    said = secret.get("server") or []
    return [said] if isinstance(said, Mapping) else list(said)


def check_servers(secret: Mapping[str, Any], databases: Mapping[str, Any], where: str) -> None:
    """Refuse the first entry that could not work.

    :raises KeyturnError: ``catalog-invalid``.
    """
    if entries(secret) and secret["kind"] not in KINDS and "." not in secret["kind"]:
        raise _invalid(f"kind {secret['kind']!r} changes no server", f"{where}.server", f"Kinds: {', '.join(KINDS)}")
    for index, entry in enumerate(entries(secret)):
        place = f"{where}.server[{index}]"
        kind = entry["type"]
        for field in _NEEDED[kind]:
            if not entry.get(field):
                raise _invalid(f"field {field!r} is missing", place, str(SERVER.fields[field].text))
        for field in _FOREIGN[kind]:
            if field in entry:
                raise _invalid(f"field {field!r} is not for {kind}", place, "Take it away")
        if kind == "postgres" and entry["database"] not in databases:
            raise _invalid(
                f"database {entry['database']!r} is not defined", place, nearest(entry["database"], databases)
            )
        if not _NAME.fullmatch(str(entry.get("role") or entry.get("user") or "default")):
            raise _invalid("this is no name of a login", place, "Check it")
        if ("admin_user" in entry) != ("admin_password" in entry):
            raise _invalid("admin_user and admin_password go together", place, "Give both or neither")
        if "admin_password" in entry and len(entry["admin_password"]) != 1:
            raise _invalid("must name exactly one source", f"{place}.admin_password", "file, env or variable")


def _invalid(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("catalog-invalid", message, where=where, hint=hint)


def resolved_servers(
    secret: Mapping[str, Any], resolve: Callable[[Any, str], list[str]], where: str
) -> list[dict[str, Any]]:
    """The servers as a list, host patterns resolved.

    :param resolve: from a host pattern and its place to host names.
    """
    return [
        {**entry, "hosts": resolve(entry["hosts"], f"{where}.server[{index}].hosts")} if "hosts" in entry else {**entry}
        for index, entry in enumerate(entries(secret))
    ]


def talkers(entry: Mapping[str, Any], databases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The hosts that talk to a server: for PostgreSQL the one that leads the work in its database."""
    if entry["type"] == "postgres":
        return [databases[entry["database"]]["hosts"][0]]
    return list(entry["hosts"])


def work_of(name: str, secret: Mapping[str, Any], databases: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What each host does at servers for a secret of a resolved catalog; entries as the plan holds them."""
    work: dict[str, list[Any]] = {}
    for entry in secret.get("server", ()):
        job = {"secret": name, "kind": secret["kind"], **{k: v for k, v in entry.items() if k != "hosts"}}
        if entry["type"] == "postgres":
            job["dsn_file"] = databases[entry["database"]].get("dsn_file", "")
        for host in talkers(entry, databases):
            work.setdefault(host, []).append(job)
    return work
