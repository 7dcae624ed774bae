# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which envelopes open samples of named columns. Nothing is written, and no value is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import PRESETS, Opener, load_spec, openers
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import NEW
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.conditions import parse_conditions
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import check_objects
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.samples import extent_of, take
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.search import require_keys
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shapes import parse_shape
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import (
    check_columns_beside,
    find_column,
    find_table,
)

__all__ = ["detect_columns"]

_SHAPES = ("paths", "list", "pattern")


def detect_columns(link: Link, params: Mapping[str, Any], keys: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """For each column (and each path, where strings inside of JSON open), the envelopes that open samples of it.

    Tried are all presets, also those that prove nothing and those that are slow, and the envelopes that the columns
    declare; not those that lack a field or are bound to the row.

    :param params: ``columns``, of whose entries only the table and the column have to be there.
    :param keys: the old and the new one, as their stores hold them.
    :raises KeyturnError: ``keys-missing``, and those of ``tables``, ``conditions`` and ``shapes``.
    """
    require_keys(keys)
    declared = {load_spec(entry["envelope"]): entry for entry in params["columns"] if entry.get("envelope")}
    own = [(spec.name, spec) for spec in declared if PRESETS.get(spec.name) != spec]
    tried = openers([*own, *PRESETS.items()], keys, (NEW,))
    return [one for entry in params["columns"] for one in _detect(link, entry, tried)]


def _detect(link: Link, entry: Mapping[str, Any], tried: list[Opener]) -> list[dict[str, Any]]:
    table = find_table(link, entry["table"], ("SELECT",), needs_key=False)
    column = find_column(link, table, entry["column"])
    column = replace(column, conditions=parse_conditions(entry.get("where"), str(column)))
    check_columns_beside(link, column)
    if column.is_large_object:
        check_objects(link, column, ("SELECT",))
    is_declared = any(entry.get(field) not in (None, []) for field in _SHAPES)
    shape = parse_shape(entry, column.type_name, str(column)) if is_declared else None
    cells = take(link, column, extent_of(link, table), shape).cells
    place = {"table": str(table), "column": column.name}
    told = [
        {**place, "path": path, "sampled": len(some), "envelopes": _opening(tried, some)}
        for path, some in cells.items()
    ]
    opening = [one for one in told if one["envelopes"]]
    return opening or [{**place, "path": "", "sampled": len(cells.get("", ())), "envelopes": []}]


def _opening(tried: list[Opener], cells: list[bytes]) -> list[dict[str, Any]]:
    return [
        {"envelope": opener.name, "authenticated": opener.spec.authenticated, **one._asdict()}
        for opener in tried
        for one in opener.count(cells)
    ]
