# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that are made from another secret's value: who depends on whom, and in what order they are made. Pure."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["in_order", "parent_of", "root_of", "spec_of", "with_dependents"]


def parent_of(secret: Mapping[str, Any]) -> str:
    """The name of the secret that this one is made from, or an empty text."""
    return str((secret.get("derive") or {}).get("from") or "")


def spec_of(derive: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`generate.generate` makes for this field."""
    spec: dict[str, Any] = {"type": "jwt", "payload": dict(derive.get("claims") or {}), "lifetime": derive["lifetime"]}
    if derive.get("allow_weak"):
        spec["allow_weak"] = True
    return spec


def in_order(parents: Mapping[str, str]) -> list[str]:
    """Names with every parent before its children; parents that are no key are not in the result.

    :param parents: name to the name of its parent, or to an empty text.
    :raises KeyturnError: ``catalog-invalid`` for a circle.
    """
    graph = {name: [parent] if parent in parents else [] for name, parent in parents.items()}
    try:
        return list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        ring = list(reversed(error.args[1]))
        raise KeyturnError(
            "catalog-invalid",
            f"these are made from each other in a circle ({' -> '.join(ring)})",
            where=f"keyturn_secrets.{ring[0]}.derive.from",
            hint="Take one of these out",
        ) from None


def root_of(secrets: Mapping[str, Mapping[str, Any]], name: str, among: Iterable[str]) -> str:
    """The first of the chain of parents of ``name`` that lies unbroken within ``among``."""
    inside = set(among)
    while parent_of(secrets[name]) in inside:
        name = parent_of(secrets[name])
    return name


def with_dependents(secrets: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """These names and all that is made from them, directly or not; sorted."""
    found = set(names)
    for name in in_order({name: parent_of(secret) for name, secret in secrets.items()}):
        if parent_of(secrets[name]) in found:
            found.add(name)
    return sorted(found)
