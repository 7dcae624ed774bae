# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge: is every row there, readable under the key, and what its writer last made of it?"""

from __future__ import annotations

import collections
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

import psycopg
from psycopg.rows import TupleRow

from demo import cells
from demo.schema import Token

__all__ = ["Model", "Report", "verify", "verify_lookups"]

#: Row id to the counters it may have; None stands for no such row. Several where the answer to a change was lost.
Model = Mapping[str, Iterable[Optional[int]]]


@dataclass(frozen=True)
class Report:
    """What was found.

    :param rows: how many rows (or tokens) there are.
    :param problems: id of each row that is not right to what is wrong with it: ``unreadable``, ``plaintext``,
        ``wrong-kid``, ``lost``, ``extra``, ``lost-update``; for tokens ``lost`` and ``stale-lookup``.
    """

    rows: int
    problems: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        counts = collections.Counter(self.problems.values())
        found = ", ".join(f"{count} {problem}" for problem, count in sorted(counts.items()))
        return f"{self.rows} rows: {found or 'all right'}"


def _snapshot(connection: psycopg.Connection[TupleRow]) -> None:
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _problem(
    cell: str, kid: uuid.UUID, allowed: Iterable[int | None] | None, key: bytes | None, plaintext_ok: bool
) -> str:
    """What is wrong with one row; empty when nothing is."""
    try:
        jwk: dict[str, Any] = cells.read_jwk(cell, key)
    except cells.CellError:
        return "unreadable"
    if key is not None and not plaintext_ok and cells.is_plaintext(cell):
        return "plaintext"
    if jwk.get("kid") != str(kid):
        return "wrong-kid"
    if allowed is None:
        return "extra"
    known = set(allowed)
    if jwk.get("v") in known:
        return ""
    return "extra" if known == {None} else "lost-update"


def verify(model: Model, dsn: str, key: bytes | None, *, plaintext_ok: bool = False) -> Report:
    """Compare the table ``jwks_keys`` in one snapshot with what its writers know.

    :param model: of every row that ever was, or should be.
    :param key: the primary key, which alone is tried; None when all rows must be in clear.
    :param plaintext_ok: whether rows in clear are right although there is a key.
    """
    problems: dict[str, str] = {}
    seen = set()
    with psycopg.connect(dsn) as connection:
        _snapshot(connection)
        with connection.cursor(name="verify") as cursor:
            cursor.itersize = 1000
            cursor.execute("SELECT id, kid, private_jwk FROM jwks_keys")
            for found, kid, cell in cursor:
                row_id = str(found)
                seen.add(row_id)
                problem = _problem(cell, kid, model.get(row_id), key, plaintext_ok)
                if problem:
                    problems[row_id] = problem
    problems.update({row_id: "lost" for row_id, allowed in model.items() if row_id not in seen and None not in allowed})
    return Report(len(seen), problems)


def verify_lookups(tokens: Iterable[Token], dsn: str, key: bytes | None) -> Report:
    """Check that every ``api_tokens.token_lookup`` is null or right under the key."""
    with psycopg.connect(dsn) as connection:
        _snapshot(connection)
        rows = connection.execute("SELECT token_id, token_lookup FROM api_tokens").fetchall()
    stored = {str(token_id): lookup for token_id, lookup in rows}
    problems = {}
    for token in tokens:
        if token.token_id not in stored:
            problems[token.token_id] = "lost"
            continue
        right = {None} if key is None else {None, cells.token_lookup(token.token, key)}
        if stored[token.token_id] not in right:
            problems[token.token_id] = "stale-lookup"
    return Report(len(stored), problems)
