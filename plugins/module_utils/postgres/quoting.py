# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and texts of others inside our statements.

psycopg looks for ``%`` placeholders in the finished statement, so a percent sign in a name is doubled here. Every
statement that holds such a name is run with parameters (an empty tuple at least), which takes the doubling out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["NO_PARAMETERS", "aliased", "identifier", "literal", "server_text"]

NO_PARAMETERS: tuple[object, ...] = ()


def identifier(*names: str) -> sql.Composable:
    """A quoted name, with its schema before it where two are given."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def aliased(alias: str, name: str) -> sql.Composable:
    """``alias.name``, quoted."""
    return sql.SQL("{}.{}").format(identifier(alias), identifier(name))


def literal(text: str) -> sql.Composable:
    """A quoted text, for statements that take no parameters."""
    return sql.Literal(text.replace("%", "%%"))


def server_text(text: str) -> sql.Composable:
    """SQL that the server itself wrote: a type or a collation, already quoted."""
    return sql.SQL(text.replace("%", "%%"))
