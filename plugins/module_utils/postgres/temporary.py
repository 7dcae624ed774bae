# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The right to make temporary tables (TEMPORARY on the database): what may hold text in clear goes through one."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import Target
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link

__all__ = ["check_may_stage", "temporary_missing"]


def temporary_missing(where: str) -> KeyturnError:
    """The refusal of a role that may not make temporary tables.

    :param where: the columns whose values need one.
    """
    return KeyturnError(
        "privilege-missing",
        "this role may not make temporary tables, and what may hold text in clear goes through one",
        where=where,
        hint="GRANT TEMPORARY ON DATABASE ... TO ...",
    )


def check_may_stage(link: Link, targets: Iterable[Target], way: str) -> None:
    """Refuse a role that may not make the temporary table which the way forward or the way back needs.

    :param way: how the columns are cut over, if they are.
    :raises KeyturnError: ``privilege-missing``.
    """
    places = [target.place for target in targets if _is_staged(target, way)]
    if not places:
        return
    row = link.execute("SELECT has_database_privilege(current_database(), 'TEMPORARY')").fetchone()
    if not (row and row[0]):
        raise temporary_missing(", ".join(places))


def _is_staged(target: Target, way: str) -> bool:
    """Values with text around their cells always are; on the way back what was in clear before the first encryption.

    Of large objects all that is kept or written without having been encrypted: no version of a row guards it.
    """
    if target.shape is not None or target.is_adoption:
        return True
    return target.column.is_large_object and (target.plaintext == "encrypt" or way == "rows")
