# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A catalog file on the controller: found, and read without trusting it."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["find", "parse"]


class _Loader(yaml.SafeLoader):
    """Plain data only; a key that stands twice in one mapping is an error, not a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As the base does, after a look at the keys."""
        keys = [str(key.value) for key, _value in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            problem = f"{twice[0]} stands twice in one mapping"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def parse(content: str, where: str) -> Any:
    """The data in a YAML text.

    :raises KeyturnError: ``catalog-unreadable`` with the line.
    """
    try:
        return _Loader(content).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "no YAML"
        raise KeyturnError(
            "catalog-unreadable", f"{line}{problem}", where=where, hint="Correct this line of the file"
        ) from None


def find(path: str, task_vars: Mapping[str, Any]) -> str:
    """The file's path: as it is, or below the folder of the inventory, of the playbook, or the present one.

    :raises KeyturnError: ``catalog-missing``.
    """
    folders = [task_vars.get("inventory_dir"), task_vars.get("playbook_dir"), os.getcwd()]
    tried = [os.path.join(str(folder), os.path.expanduser(path)) for folder in folders if folder]
    for place in tried:
        if os.path.isfile(place):
            return place
    raise KeyturnError(
        "catalog-missing",
        f"there is no such file; looked for {', '.join(dict.fromkeys(tried))}",
        where="keyturn_catalog_file",
        hint="Name it relative to the inventory's folder",
    )
