# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that a person brings, and connection strings: read on the controller, sealed before they go anywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import check_plain_file, read_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["bring", "public_key", "render", "sealed_dsn", "syslog_choice"]


def public_key(task_vars: Mapping[str, Any]) -> str:
    """The public half that the task's host offered in this run.

    :raises KeyturnError: ``session-missing``.
    """
    session = task_vars.get("__rotation_session") or {}
    public = session.get("public") if isinstance(session, Mapping) else None
    if not isinstance(public, str) or not public:
        raise KeyturnError(
            "session-missing", "this host has no open session", where="", hint="Run the playbook from its start"
        )
    return public


def bring(source: Mapping[str, Any], templar: Any, task_vars: Mapping[str, Any], where: str) -> bytes:
    """The value behind ``{file: …}``, ``{env: …}`` or ``{variable: …}`` on the controller.

    :raises KeyturnError: ``source-missing``, ``file-loose``.
    """
    if "file" in source:
        path = os.path.expanduser(source["file"])
        if check_plain_file(path).st_mode & 0o077:
            raise KeyturnError("file-loose", "others can read it", where=path, hint=f"chmod 600 {path}")
        return read_file(path).rstrip(b"\n")
    if "env" in source:
        name, value = source["env"], os.environ.get(source["env"])
    else:
        name = source["variable"]
        value = render(templar, task_vars.get(name), where)
    if not isinstance(value, str) or not value:
        raise KeyturnError(
            "source-missing", f"{name} is not set on the controller", where=where, hint="Set it for this run"
        )
    return value.encode()


def render(templar: Any, raw: Any, where: str) -> Any:
    """Template a value; a failure names the place only, since the error's text may show the source."""
    try:
        return templar.template(raw)
    except Exception:
        raise KeyturnError(
            "template-failed", "cannot be templated", where=where, hint="Look at its definition"
        ) from None


def sealed_dsn(name: str, rotation_id: str, templar: Any, task_vars: Mapping[str, Any]) -> str:
    """The connection string of ``keyturn_databases.<name>`` in a box for the task's host.

    :raises KeyturnError: ``dsn-missing``.
    """
    where = f"keyturn_databases.{name}"
    databases = task_vars.get("keyturn_databases")
    if isinstance(databases, str):
        databases = render(templar, databases, "keyturn_databases")
    raw = (databases or {}).get(name)
    if isinstance(raw, str):
        raw = render(templar, raw, where)
    dsn = render(templar, (raw or {}).get("dsn"), where)
    if not isinstance(dsn, str) or not dsn:
        raise KeyturnError("dsn-missing", "no connection string", where=where, hint="Set dsn, or dsn_file on its host")
    return sealed.seal(dsn.encode(), public_key(task_vars), f"{rotation_id}/database/{name}")


def syslog_choice(templar: Any, task_vars: Mapping[str, Any]) -> dict[str, bool]:
    """Whether steps also go to the state host's system log, as an argument of ``rotation_state``."""
    return {"syslog": boolean(render(templar, task_vars.get("keyturn_syslog", True), "keyturn_syslog"), strict=False)}
