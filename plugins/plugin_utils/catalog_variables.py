# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog's variables as an inventory has them: templated, with a catalog file, without connection strings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.overlay import lay_over
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.secrets_config import translate
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils import catalog_file
from ansible_collections.keyturn.rotation.plugins.plugin_utils.known_variables import FRAGMENTED
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import render

__all__ = ["catalog_services", "catalog_variables"]

_SERVICES = ("keyturn_services", "keyturn_services_overlay")
_NAMES = (*_SERVICES, "keyturn_state_host", "keyturn_backup", "keyturn_escrow", "keyturn_project")


def _meant(name: str) -> bool:
    return name in _NAMES or any(name == main or name.startswith(f"{main}_") for main in FRAGMENTED)


def catalog_variables(templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """What ``load_catalog`` takes, and ``keyturn_backup``.

    :raises KeyturnError: ``template-failed``, ``catalog-missing``, ``catalog-unreadable``, ``catalog-invalid``,
        ``dsn-missing``.
    """
    variables = {name: render(templar, task_vars[name], name) for name in task_vars if _meant(name)}
    _add_file(variables, templar, task_vars)
    databases = task_vars.get("keyturn_databases") or {}
    if isinstance(databases, str):
        databases = render(templar, databases, "keyturn_databases")
    variables["keyturn_databases"] = {
        name: _without_dsn(templar, entry, f"keyturn_databases.{name}") for name, entry in databases.items()
    }
    return variables


def catalog_services(templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """The services alone, with what is laid over them.

    :raises KeyturnError: as :func:`catalog_variables`.
    """
    names = (name for name in (*_SERVICES, "keyturn_project") if name in task_vars)
    variables = {name: render(templar, task_vars[name], name) for name in names}
    _add_file(variables, templar, task_vars)
    services, over = (variables.get(name) or {} for name in _SERVICES)
    return lay_over(services, over, "keyturn_services_overlay")


def _add_file(variables: dict[str, Any], templar: Any, task_vars: Mapping[str, Any]) -> None:
    """What the catalog file says, where there is one."""
    path = render(templar, task_vars.get("keyturn_catalog_file") or "", "keyturn_catalog_file")
    if path:
        place = catalog_file.find(path, task_vars)
        content = catalog_file.parse(Path(place).read_text(encoding="utf-8"), path)
        _add(variables, translate(content, variables.get("keyturn_project"), path), path)


def _add(variables: dict[str, Any], translated: Mapping[str, Mapping[str, Any]], path: str) -> None:
    """The file's entries beside those of the inventory; a name that both have is an error."""
    variables[f"keyturn_secrets_ of {path}"] = dict(translated["keyturn_secrets"])
    services = variables.get("keyturn_services") or {}
    for name in services:
        if name in translated["keyturn_services"]:
            raise KeyturnError(
                "service-twice",
                f"{name} is defined in {path} too",
                where=f"keyturn_services.{name}",
                hint="Change it with keyturn_services_overlay",
            )
    variables["keyturn_services"] = {**translated["keyturn_services"], **services}
    said = variables.get("keyturn_backup") or {}
    if isinstance(said, Mapping):
        variables["keyturn_backup"] = {**translated["keyturn_backup"], **said}


def _without_dsn(templar: Any, entry: Any, where: str) -> Any:
    if not isinstance(entry, Mapping):
        return render(templar, entry, where)
    rest = render(templar, {key: value for key, value in entry.items() if key != "dsn"}, where)
    if "dsn" not in entry and "dsn_file" not in rest:
        raise KeyturnError("dsn-missing", "no connection string", where=where, hint="Set dsn, or dsn_file on its host")
    return rest
