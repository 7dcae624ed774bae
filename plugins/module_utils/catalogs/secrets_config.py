# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ``secrets-config.yaml`` (secrets, service_dependencies, backup) as catalog variables. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import check_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape, nearest
from ansible_collections.keyturn.rotation.plugins.module_utils.waves import restart_waves

__all__ = ["PROJECT", "translate"]

#: Where the file's relative paths lie: the variable ``keyturn_project``.
PROJECT = Shape(
    "project",
    {
        "hosts": Field("str|list", "A group, a host, or a list of them", required=True),
        "directory": Field("str", "The folder that the file's paths are relative to", required=True, pattern=r"^/"),
        "files": Field("list", "The Compose files of its services, relative to directory"),
    },
)
_SECRET = Shape(
    "secret",
    {
        "type": Field("str", "What it is", required=True, choices=("random", "jwt-token", "static")),
        "length": Field("int", "Number of characters of a random one", minimum=1),
        "role": Field("str", "The role in a token"),
        "depends_on": Field("str", "The secret that signs a token"),
        "files": Field("list", "The dotenv files that hold it", required=True),
        "auto_rotate": Field("bool", "Whether it turns without being named"),
        "description": Field("str", "For people"),
        "restart_services": Field("list", "Services that read it"),
    },
)
_BACKUP = Shape(
    "backup",
    {
        "directory": Field("str", "Where backups lie"),
        "retention_days": Field("int", "For how many days", minimum=1),
        "filename_format": Field("str", "The name of a backup's folder"),
    },
)
_SECTIONS = ("secrets", "service_dependencies", "backup")
#: Fields that a type needs.
_NEEDS = {"random": ("length",), "jwt-token": ("role", "depends_on"), "static": ()}
#: The life of a token where the overlay says nothing.
_LIFETIME = "5y"


def _invalid(where: str, message: str, hint: str) -> KeyturnError:
    return KeyturnError("catalog-invalid", message, where=where, hint=hint)


def _checked_path(path: Any, where: str) -> str:
    if not isinstance(path, str) or not path:
        raise _invalid(where, "must be a path", "Write a path below the project's directory")
    if path.startswith("/") or ".." in path.split("/") or posixpath.normpath(path) in (".", ".."):
        raise _invalid(where, "leads out of the project's directory", "Write a path below it, without ..")
    return posixpath.normpath(path)


def _paths(entries: Sequence[Any], where: str) -> list[str]:
    paths = [_checked_path(path, f"{where}[{index}]") for index, path in enumerate(entries)]
    if len(set(paths)) < len(paths):
        raise _invalid(where, "a file is named twice", "Name each file once")
    return paths


def _names(value: Any, where: str) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
        raise _invalid(where, "must be a list of names", "Write a list")
    return list(value)


def _check(name: str, entry: Any, secrets: Mapping[str, Any], where: str) -> None:
    _SECRET.check(entry, where)
    for field in _NEEDS[entry["type"]]:
        if field not in entry:
            raise _invalid(where, f"field {field!r} is missing", f"A secret of type {entry['type']} needs it")
    parent = entry.get("depends_on")
    if entry["type"] == "jwt-token" and parent not in secrets:
        raise _invalid(f"{where}.depends_on", f"there is no secret {parent!r}", nearest(str(parent), secrets))
    if not entry["files"]:
        raise _invalid(f"{where}.files", f"{name} is written nowhere", "Name the files that hold it")


def _secret(entry: Mapping[str, Any], project: Mapping[str, Any], where: str) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": "env_secret"}
    if entry["type"] == "random":
        made["generate"] = {"type": "string", "length": entry["length"], "charset": "alnum"}
        check_spec(made["generate"], where)
    elif entry["type"] == "jwt-token":
        claims = {"role": entry["role"], "iss": "supabase"}
        made["derive"] = {"type": "jwt", "from": entry["depends_on"], "claims": claims, "lifetime": _LIFETIME}
    else:
        made["generate"] = {"type": "none"}
    made["auto_rotate"] = entry.get("auto_rotate", True) and entry["type"] != "static"
    if "description" in entry:
        made["description"] = entry["description"]
    made["consumers"] = _names(entry.get("restart_services", []), f"{where}.restart_services")
    made["stores"] = [
        {"hosts": project["hosts"], "type": "env_file", "path": posixpath.join(project["directory"], path)}
        for path in _paths(entry["files"], f"{where}.files")
    ]
    return made


def _services(data: Mapping[str, Any], used: Sequence[str], project: Mapping[str, Any], where: str) -> dict[str, Any]:
    needs = {
        name: _names([] if others is None else others, f"{where}.service_dependencies.{name}")
        for name, others in data.items()
    }
    needs.update({name: [] for name in used if name not in needs})
    try:
        restart_waves(needs, ())
    except KeyturnError as error:
        raise _invalid(f"{where}.service_dependencies", error.message, error.hint) from None
    files = _paths(project.get("files", ()), "keyturn_project.files")
    return {
        name: {
            "hosts": project["hosts"],
            "manager": "compose",
            "project_dir": project["directory"],
            **({"files": files} if files else {}),
            "depends_on": others,
        }
        for name, others in needs.items()
    }


def translate(data: Any, project: Any, where: str) -> dict[str, dict[str, Any]]:
    """``keyturn_secrets``, ``keyturn_services`` and ``keyturn_backup`` for such a file.

    :param data: the file's content.
    :param project: see :data:`PROJECT`.
    :param where: how errors call the file.
    :raises KeyturnError: ``catalog-invalid``, ``generate-invalid``: the first thing that is wrong, with its place.
    """
    if not isinstance(data, Mapping):
        raise _invalid(where, "must be a mapping", "It has secrets, service_dependencies and backup")
    for section in data:
        if section not in _SECTIONS:
            raise _invalid(where, f"unknown section {str(section)!r}", nearest(str(section), _SECTIONS))
    for section in _SECTIONS:
        if not isinstance(data.get(section) or {}, Mapping):
            raise _invalid(f"{where}: {section}", "must be a mapping", "Write names, each with its entry")
    PROJECT.check(project, "keyturn_project")
    entries: Mapping[str, Any] = data.get("secrets") or {}
    secrets: dict[str, dict[str, Any]] = {}
    for name, entry in entries.items():
        place = f"{where}: secrets.{name}"
        _check(str(name), entry, entries, place)
        secrets[str(name)] = _secret(entry, project, place)
    used = sorted({service for secret in secrets.values() for service in secret["consumers"]})
    _BACKUP.check(data.get("backup") or {}, f"{where}: backup")
    return {
        "keyturn_secrets": secrets,
        "keyturn_services": _services(data.get("service_dependencies") or {}, used, project, where),
        "keyturn_backup": dict(data.get("backup") or {}),
    }
