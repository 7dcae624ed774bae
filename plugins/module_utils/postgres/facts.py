# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a cut-over stands, read from the database: the shadow of a column, whichever way made it."""

from __future__ import annotations

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.by_columns import ByColumns
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.by_rows import ByRows
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.columns import find_shadow_column
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import NONE, Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.sides import find_side
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Column
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.ways import Way

__all__ = ["WAYS", "find_shadow"]

#: The ways to cut over, by name.
WAYS: dict[str, Way] = {way.name: way for way in (ByRows(), ByColumns())}


def find_shadow(link: Link, schema: str, column: Column, way: Way) -> Shadow:
    """The shadow of a column; where there is none, none of this way.

    :raises KeyturnError: ``leftover-shadow``.
    """
    for shadow in (find_side(link, schema, column), find_shadow_column(link, schema, column)):
        if shadow.fact != NONE:
            return shadow
    return way.none(schema, column)
