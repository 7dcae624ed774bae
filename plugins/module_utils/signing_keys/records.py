# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rotation did to each tenant, in a table of our own: written in the transaction that does it, so it is a fact.

It holds kids and times, never a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    transaction,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS, identifier

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["DISABLED", "GONE", "PROMOTED", "STAGED", "WITHDRAWN", "Record", "Records"]

#: A new key is published; it signs; it signed and does not any more; the one before it is disabled; the tenant is gone.
STAGED, PROMOTED, WITHDRAWN, DISABLED, GONE = "staged", "promoted", "withdrawn", "disabled", "gone"

_TABLE = """
    CREATE TABLE {signing} (
        name text, rotation text, tenant text COLLATE "C", new_kid text NOT NULL, old_kid text, stage text NOT NULL,
        forward_only boolean NOT NULL, promoted_at timestamptz, PRIMARY KEY (name, rotation, tenant))"""


@dataclass(frozen=True)
class Record:
    """One tenant in one rotation; ``old_kid`` is None for a first key."""

    tenant: str
    new_kid: str
    old_kid: str | None
    stage: str


class Records:
    """The records of one secret.

    :param rotation: the present rotation.
    """

    def __init__(self, schema: str, name: str, rotation: str) -> None:
        self._schema, self._name, self._rotation = schema, name, rotation
        self._table = identifier(schema, "signing")

    def _sql(self, text: str, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(signing=self._table, **parts)

    @property
    def _mine(self) -> tuple[str, str]:
        return self._name, self._rotation

    def exists(self, link: Link) -> bool:
        """Whether the table is there."""
        row = link.execute("SELECT to_regclass(quote_ident(%s) || '.signing') IS NOT NULL", (self._schema,)).fetchone()
        return row is not None and row[0] is True

    def ensure(self, link: Link, pace: Pace) -> None:
        """Make the table where it is missing; its schema is there."""

        def make() -> None:
            with transaction(link):
                if not self.exists(link):
                    link.execute(self._sql(_TABLE), NO_PARAMETERS)

        try:
            retrying(pace, f"schema {self._schema}", make)
        except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):  # somebody else, in the same moment
            retrying(pace, f"schema {self._schema}", make)

    def counts(self, link: Link) -> dict[str, int]:
        """How many tenants of this rotation are at which stage."""
        if not self.exists(link):
            return {}
        query = self._sql("SELECT stage, count(*) FROM {signing} WHERE name = %s AND rotation = %s GROUP BY stage")
        return dict(link.execute(query, self._mine).fetchall())

    def is_forward_only(self, link: Link) -> bool:
        """Whether this rotation skips the overlap on purpose, so that nothing may bring a former key back."""
        if not self.exists(link):
            return False
        query = self._sql("SELECT 1 FROM {signing} WHERE name = %s AND rotation = %s AND forward_only LIMIT 1")
        return link.execute(query, self._mine).fetchone() is not None

    def make_forward_only(self, link: Link) -> None:
        """Say so of all there are."""
        query = self._sql("UPDATE {signing} SET forward_only = true WHERE name = %s AND rotation = %s")
        link.execute(query, self._mine)

    def begin(self, link: Link) -> None:
        """Forget what rotations before this one have brought to their end."""
        query = self._sql("DELETE FROM {signing} WHERE name = %s AND rotation <> %s AND stage = ANY(%s)")
        link.execute(query, (*self._mine, [DISABLED, GONE]))

    def untouched(self, link: Link, tenants: sql.Composable, limit: int, named: Sequence[str]) -> list[str]:
        """Tenants that this rotation has no key for, ``limit`` of them at most.

        :param tenants: a query for those of the table, with the column ``tenant``.
        :param named: only these, whether the table knows them or not; empty for all of the table.
        """
        source = sql.SQL("SELECT unnest(%(named)s::text[]) AS tenant") if named else tenants
        unknown = (
            "WHERE NOT EXISTS (SELECT FROM {signing} r "
            "WHERE r.name = %(name)s AND r.rotation = %(rotation)s AND r.tenant = t.tenant)"
        )
        condition = self._sql(unknown) if self.exists(link) else sql.SQL("")
        query = sql.SQL("SELECT t.tenant FROM ({}) t {} ORDER BY t.tenant LIMIT %(limit)s").format(source, condition)
        values = {"named": list(named), "name": self._name, "rotation": self._rotation, "limit": limit}
        with transaction(link):
            whole_tables(link)
            return [row[0] for row in link.execute(query, values).fetchall()]

    def add(self, link: Link, records: Sequence[Record], forward_only: bool) -> None:
        """Write down new keys."""
        query = self._sql(
            "INSERT INTO {signing} (name, rotation, tenant, new_kid, old_kid, stage, forward_only) "
            "SELECT %s, %s, u.tenant, u.new_kid, u.old_kid, %s, %s "
            "FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(tenant, new_kid, old_kid)"
        )
        tenants, new, old = ([getattr(one, field) for one in records] for field in ("tenant", "new_kid", "old_kid"))
        link.execute(query, (*self._mine, STAGED, forward_only, tenants, new, old))

    def pages(self, link: Link, stages: Sequence[str], size: int) -> Iterator[list[Record]]:
        """The records of this rotation at these stages, in portions; what a portion becomes meanwhile does no harm."""
        query = self._sql(
            "SELECT tenant, new_kid, old_kid, stage FROM {signing} "
            "WHERE name = %s AND rotation = %s AND stage = ANY(%s) AND (%s::text IS NULL OR tenant > %s) "
            "ORDER BY tenant LIMIT %s"
        )
        last: str | None = None
        while True:
            rows = link.execute(query, (*self._mine, list(stages), last, last, size)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [Record(*row) for row in rows]

    def note(self, link: Link, places: Sequence[tuple[str, str]]) -> None:
        """Write down further keys that signed and do not any more, so that an emergency disables them too.

        :param places: tenant and kid. Each has a row of its own, since this rotation's is for its new key.
        """
        query = self._sql(
            "INSERT INTO {signing} (name, rotation, tenant, new_kid, stage, forward_only) "
            "SELECT %s, %s || ' ' || u.kid, u.tenant, u.kid, %s, true "
            "FROM unnest(%s::text[], %s::text[]) AS u(tenant, kid) "
            "ON CONFLICT (name, rotation, tenant) DO UPDATE SET stage = excluded.stage"
        )
        noted = sorted(set(places))
        link.execute(query, (*self._mine, WITHDRAWN, [one[0] for one in noted], [one[1] for one in noted]))

    def former(self, link: Link, tenants: Sequence[str]) -> list[tuple[str, str]]:
        """Tenant and kid of every key that rotations of this secret have taken out of use and not disabled yet."""
        query = self._sql(
            "SELECT tenant, CASE WHEN stage = 'withdrawn' THEN new_kid ELSE old_kid END FROM {signing} "
            "WHERE name = %s AND tenant = ANY(%s) AND stage IN ('promoted', 'withdrawn')"
        )
        rows = link.execute(query, (self._name, list(tenants))).fetchall()
        return [(tenant, kid) for tenant, kid in rows if kid is not None]

    def left_waiting(self, link: Link, tenants: Sequence[str]) -> list[tuple[str, str]]:
        """Tenant and kid of keys that other rotations have published and that never signed."""
        query = self._sql(
            "SELECT tenant, new_kid FROM {signing} "
            "WHERE name = %s AND rotation <> %s AND tenant = ANY(%s) AND stage = 'staged'"
        )
        return [(row[0], row[1]) for row in link.execute(query, (*self._mine, list(tenants))).fetchall()]

    def before(self, link: Link, tenants: Sequence[str]) -> dict[str, list[str]]:
        """By tenant, every kid that is written down and is not this rotation's own new one."""
        query = self._sql(
            "SELECT r.tenant, k.kid FROM {signing} r CROSS JOIN LATERAL (VALUES (r.new_kid), (r.old_kid)) AS k(kid) "
            "WHERE r.name = %s AND r.tenant = ANY(%s) AND k.kid IS NOT NULL AND NOT EXISTS (SELECT FROM {signing} o "
            "WHERE o.name = r.name AND o.rotation = %s AND o.tenant = r.tenant AND o.new_kid = k.kid) "
            "GROUP BY r.tenant, k.kid ORDER BY r.tenant, k.kid"
        )
        found: dict[str, list[str]] = {}
        for tenant, kid in link.execute(query, (self._name, list(tenants), self._rotation)).fetchall():
            found.setdefault(tenant, []).append(kid)
        return found

    def move(self, link: Link, tenants: Sequence[str], stage: str) -> None:
        """Another stage for some tenants of this rotation."""
        query = self._sql(
            "UPDATE {signing} SET stage = %s, "
            "promoted_at = CASE WHEN %s = 'promoted' THEN clock_timestamp() ELSE promoted_at END "
            "WHERE name = %s AND rotation = %s AND tenant = ANY(%s)"
        )
        link.execute(query, (stage, stage, *self._mine, list(tenants)))

    def end(self, link: Link, tenants: Sequence[str], forward_only: bool = False) -> None:
        """The keys that were taken out of use are disabled now, whichever rotation did it.

        :param forward_only: whether so are the keys that other rotations have published and that never signed.
        """
        query = self._sql(
            "UPDATE {signing} SET stage = 'disabled' WHERE name = %s AND tenant = ANY(%s) "
            "AND (stage IN ('promoted', 'withdrawn') OR %s AND rotation <> %s AND stage = 'staged')"
        )
        link.execute(query, (self._name, list(tenants), forward_only, self._rotation))

    def forget(self, link: Link, tenants: Sequence[str]) -> None:
        """As if this rotation had never made a key for them."""
        query = self._sql("DELETE FROM {signing} WHERE name = %s AND rotation = %s AND tenant = ANY(%s)")
        link.execute(query, (*self._mine, list(tenants)))

    def age_s(self, link: Link) -> float | None:
        """Seconds since the last tenant of this rotation was promoted, by the server's clock; None before that."""
        query = self._sql(
            "SELECT extract(epoch FROM clock_timestamp() - max(promoted_at)) FROM {signing} "
            "WHERE name = %s AND rotation = %s"
        )
        row = link.execute(query, self._mine).fetchone()
        return None if row is None or row[0] is None else float(row[0])

    def astray(self, link: Link, current: sql.Composable, want_new: bool, limit: int) -> list[Any]:
        """Tenants of this rotation whose current key is not its new one, or (``want_new`` false) is.

        :param current: a query for the current rows, with the columns ``tenant`` and ``kid``.
        """
        query = self._sql(
            "SELECT r.tenant FROM {signing} r WHERE r.name = %s AND r.rotation = %s AND (%s OR r.old_kid IS NOT NULL) "
            "AND r.stage <> 'gone' AND (EXISTS (SELECT FROM ({current}) j "
            "WHERE j.tenant = r.tenant AND j.kid = r.new_kid)) <> %s ORDER BY r.tenant LIMIT %s",
            current=current,
        )
        return [row[0] for row in link.execute(query, (*self._mine, want_new, want_new, limit)).fetchall()]

    def has_others(self, link: Link, usable: sql.Composable) -> bool:
        """Whether a tenant of this rotation has a usable key beside its new one.

        :param usable: a query for the usable rows, with the columns ``tenant`` and ``kid``.
        """
        query = self._sql(
            "SELECT 1 FROM {signing} r JOIN ({usable}) j ON j.tenant = r.tenant AND j.kid <> r.new_kid "
            "WHERE r.name = %s AND r.rotation = %s AND r.stage <> 'gone' LIMIT 1",
            usable=usable,
        )
        return link.execute(query, self._mine).fetchone() is not None
