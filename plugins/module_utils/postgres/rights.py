# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only later steps need, asked for before the first one writes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.gate import check_may_hold
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.replicated import check_may_be_updated
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.temporary import check_may_stage
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.wipe import check_may_sanitize

__all__ = ["check_rights"]


def check_rights(link: Link, targets: Sequence[Target], params: Mapping[str, Any], way: str = "") -> None:
    """Refuse tables that nobody may update, and what this role may not do later.

    Such as to hold back writes at the swap, to make temporary tables in both directions, and to make tables anew.

    :param params: ``quiesce``, ``sanitize``.
    :param way: how the columns are cut over, if they are; by ``columns`` the way's own check says all.
    :raises KeyturnError: ``privilege-missing``, ``replica-identity-missing``.
    """
    check_may_be_updated(link, [target.column for target in targets])
    check_may_stage(link, targets, way)
    tables = [target.column.table for target in targets]
    if way == "rows" and params["quiesce"] == "writes":
        check_may_hold(link, tables)
    if params["sanitize"]:
        check_may_sanitize(link, tables)
