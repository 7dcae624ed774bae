# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of a declared key table: found, locked, judged, inserted, set; every statement is put together here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import (
    NO_PARAMETERS,
    aliased,
    identifier,
    literal,
    server_text,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table, find_column, find_table
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.forms import NewKey
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.mapping import NOW, KeyTable

try:
    import psycopg
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["KeyRow", "KeyRows", "Place", "Unsound"]

_TIMES = {
    "timestamp with time zone": "clock_timestamp()",
    "timestamp without time zone": "(clock_timestamp() AT TIME ZONE 'UTC')",
}
_CELL_TYPES = ("text", "varchar", "bytea", "json", "jsonb")
_MICROSECOND = "interval '1 microsecond'"
#: Rows of one tenant by their place: the tenant and the kid.
Place = tuple[str, str]


@dataclass(frozen=True)
class KeyRow:
    """One row.

    :param created: as the server writes it; empty where no column says it.
    :param cell: the private part as it stands, None for null, empty where it was not read.
    """

    tenant: str
    kid: str
    is_current: bool
    is_usable: bool
    created: str = ""
    cell: bytes | None = b""


@dataclass(frozen=True)
class Unsound:
    """A tenant that has not exactly one current key, or whose current key is disabled."""

    tenant: str
    current: int
    usable: int

    @property
    def problem(self) -> str:
        """In words."""
        if self.current == 1:
            return "the current key is disabled"
        return "no key is current" if not self.current else f"{self.current} keys are current"


@dataclass(frozen=True)
class _Column:
    """A column as the server has it; ``type_sql`` is without its length."""

    type_sql: str
    full_type: str
    is_required: bool


class KeyRows:
    """The table of a declaration in one database.

    :param need: privileges that the work needs.
    :raises KeyturnError: those of ``tables``; ``key-table-invalid`` for what does not fit the table.
    """

    def __init__(self, link: Link, declared: KeyTable, need: Sequence[str]) -> None:
        self.declared = declared
        self.table: Table = find_table(link, declared.table, need, needs_key=False)
        self._known = _columns(link, self.table)
        named = [*declared.columns.values(), *declared.at_birth, *declared.when_disabled]
        for name in named:
            if name not in self._known:
                raise self._invalid("this column does not exist", name, nearest(name, self._known))
        private = find_column(link, self.table, declared.columns["private"])
        if private.type_name not in _CELL_TYPES:
            raise self._invalid(f"has the type {private.type_sql}", private.name, "Use text, bytea or jsonb")
        self.cells = CellType(private)
        if "created" in declared.columns and self._of("created").full_type not in _TIMES:
            raise self._invalid(
                f"has the type {self._of('created').full_type}", declared.columns["created"], "Use a whole timestamp"
            )
        self._generated = self._check_required()
        self._check_settings(link)
        if "tenant" in declared.columns:
            query = sql.SQL("SELECT 1 FROM {} c WHERE {} IS NULL LIMIT 1")
            if link.execute(query.format(self.table.identifier, self._column("tenant")), NO_PARAMETERS).fetchone():
                raise self._invalid("holds rows of no tenant", declared.columns["tenant"], "Give them one, or end them")

    def _invalid(self, message: str, column: str, hint: str) -> KeyturnError:
        return KeyturnError("key-table-invalid", message, where=f"{self.table}.{column}", hint=hint)

    def _of(self, meaning: str) -> _Column:
        return self._known[self.declared.columns[meaning]]

    def _column(self, meaning: str) -> sql.Composable:
        return aliased("c", self.declared.columns[meaning])

    def _check_required(self) -> list[str]:
        """Columns that only we can fill: those of type uuid get a new one."""
        filled = {*self.declared.columns.values(), *self.declared.at_birth}
        missing = [name for name, column in self._known.items() if column.is_required and name not in filled]
        for name in missing:
            if self._known[name].full_type != "uuid":
                raise self._invalid("must have a value in a new row", name, "Name it in set, or in columns")
        return missing

    def _check_settings(self, link: Link) -> None:
        """Try what would be compared and set, on no row."""
        settings = [*self.declared.at_birth.items(), *self.declared.when_disabled.items()]
        if self.declared.current is not None:
            rule = self.declared.current
            settings += [(rule.column, value) for value in (rule.holds[0], rule.ended, rule.waiting)]
        trials = [
            sql.SQL("coalesce({}, {})").format(aliased("c", name), self._setting(name, value))
            for name, value in settings
        ]
        for trial in [*trials, self._usable, self._marked]:
            try:
                link.execute(sql.SQL("SELECT {} FROM {} c LIMIT 0").format(trial, self.table.identifier), NO_PARAMETERS)
            except (psycopg.DataError, psycopg.ProgrammingError):
                raise KeyturnError(
                    "key-table-invalid",
                    "a column cannot be compared with, or set to, what current, usable or set say",
                    where=str(self.table),
                    hint="Give values of the columns' types",
                ) from None

    # -- expressions ---------------------------------------------------------------------------------------------

    def _setting(self, column: str, value: Any) -> sql.Composable:
        if value is NOW:
            return sql.SQL(_TIMES.get(self._known[column].full_type, "clock_timestamp()"))
        if value is None:
            return sql.SQL("NULL")
        return literal(str(value).lower() if isinstance(value, bool) else str(value))

    @property
    def _tenant(self) -> sql.Composable:
        if "tenant" not in self.declared.columns:
            return sql.SQL("''::text")
        return sql.SQL("{}::text").format(self._column("tenant"))

    @property
    def _created(self) -> sql.Composable:
        if "created" not in self.declared.columns:
            return sql.SQL("''::text")
        return sql.SQL("coalesce({}::text, '')").format(self._column("created"))

    @property
    def _usable(self) -> sql.Composable:
        rules = [rule.expression for rule in self.declared.usable]
        return sql.SQL("({})").format(sql.SQL(" AND ").join(rules)) if rules else sql.SQL("true")

    @property
    def _marked(self) -> sql.Composable:
        """What a row itself says of being current; the newest is told from the others later."""
        rule = self.declared.current
        return sql.SQL("true") if rule is None else rule.expression

    @property
    def _is_current(self) -> sql.Composable:
        """Over the rows of ``k``: as a service sorts them, newest first, nulls before all."""
        if self.declared.current is not None:
            return sql.SQL("k.marked")
        return sql.SQL("rank() OVER (PARTITION BY k.tenant ORDER BY k.made DESC) = 1")

    def _judged(self, condition: sql.Composable, cells: bool, lock: bool) -> sql.Composed:
        """The rows with what they are; ``condition`` must keep a tenant's rows together."""
        made = self._column("created") if "created" in self.declared.columns else sql.SQL("NULL::timestamptz")
        cell = self.cells.read(self._column("private")) if cells else sql.SQL("NULL")
        return sql.SQL(
            "WITH k AS MATERIALIZED (SELECT {tenant} AS tenant, {kid}::text AS kid, {marked} AS marked, "
            "{usable} AS usable, {made} AS made, {created} AS created, {cell} AS cell "
            "FROM {table} c {condition} {lock}) "
            "SELECT k.tenant, k.kid, {current} AS is_current, k.usable, k.created, k.cell FROM k"
        ).format(
            tenant=self._tenant,
            kid=self._column("kid"),
            marked=self._marked,
            usable=self._usable,
            made=made,
            created=self._created,
            cell=cell,
            table=self.table.identifier,
            condition=condition,
            lock=sql.SQL("FOR UPDATE" if lock else ""),
            current=self._is_current,
        )

    def _of_tenants(self, parameter: str = "%s") -> sql.Composable:
        if "tenant" not in self.declared.columns:
            return sql.SQL("WHERE cardinality({}::text[]) > 0").format(sql.SQL(parameter))
        kind = server_text(self._of("tenant").type_sql)
        return sql.SQL("WHERE {} = ANY({}::{}[])").format(self._column("tenant"), sql.SQL(parameter), kind)

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def tenants(self) -> sql.Composable:
        """A query for the tenants there are, as text; the one of a table without tenants always is."""
        if "tenant" not in self.declared.columns:
            return sql.SQL("SELECT ''::text AS tenant")
        return sql.SQL("SELECT DISTINCT {} AS tenant FROM {} c").format(self._tenant, self.table.identifier)

    def lock(self, link: Link, tenants: Sequence[str], cells: bool = False) -> dict[str, list[KeyRow]]:
        """All rows of some tenants, locked until the transaction ends; a tenant without rows has an empty list."""
        query = self._judged(self._of_tenants(), cells, lock=True)
        found: dict[str, list[KeyRow]] = {tenant: [] for tenant in tenants}
        for row in link.execute(query, (list(tenants),)).fetchall():
            found[row[0]].append(self._row(row))
        return found

    def _row(self, row: Sequence[Any]) -> KeyRow:
        tenant, kid, is_current, is_usable, created, cell = row
        return KeyRow(tenant, kid, bool(is_current), bool(is_usable), created, self._cell(cell))

    def _cell(self, raw: Any) -> bytes | None:
        if raw is None:
            return None
        return self.cells.decode([raw.encode() if isinstance(raw, str) else bytes(raw)])[0]

    def each(self, link: Link, tenants: Sequence[str]) -> Iterator[KeyRow]:
        """Every row with its cell, in portions, inside a transaction; of all tenants where none is named."""
        condition = self._of_tenants() if tenants else sql.SQL("")
        with link.cursor(name="keyturn_keys") as cursor:
            cursor.itersize = 500
            cursor.execute(self._judged(condition, cells=True, lock=False), (list(tenants),) if tenants else ())
            for row in cursor:
                yield self._row(row)

    def unsound(self, link: Link, tenants: Sequence[str], limit: int) -> tuple[int, list[Unsound]]:
        """How many tenants have not exactly one current and usable key, and the first of them.

        A table without tenants that is empty counts as one; so does each named tenant without rows.
        """
        named = sql.SQL("SELECT unnest(%(tenants)s::text[]) AS tenant") if tenants else self.tenants
        condition = self._of_tenants("%(tenants)s") if tenants else sql.SQL("")
        query = sql.SQL(
            "SELECT count(*) OVER (), * FROM (SELECT t.tenant, count(*) FILTER (WHERE j.is_current) AS now, "
            "count(*) FILTER (WHERE j.is_current AND j.usable) AS fit FROM ({tenants}) t "
            "LEFT JOIN ({judged}) j ON j.tenant = t.tenant GROUP BY t.tenant) s "
            "WHERE s.now <> 1 OR s.fit <> 1 ORDER BY s.tenant LIMIT %(limit)s"
        ).format(tenants=named, judged=self._judged(condition, cells=False, lock=False))
        rows = link.execute(query, {"tenants": list(tenants), "limit": limit}).fetchall()
        return (rows[0][0] if rows else 0), [Unsound(row[1], row[2], row[3]) for row in rows]

    def counts(self, link: Link, tenants: Sequence[str]) -> dict[str, int]:
        """``tenants`` with rows, ``keys``, and of them ``current``, ``usable``, ``disabled``."""
        condition = self._of_tenants() if tenants else sql.SQL("")
        query = sql.SQL(
            "SELECT count(DISTINCT j.tenant), count(*), count(*) FILTER (WHERE j.is_current), "
            "count(*) FILTER (WHERE j.usable), count(*) FILTER (WHERE NOT j.usable) FROM ({}) j"
        ).format(self._judged(condition, cells=False, lock=False))
        row = link.execute(query, (list(tenants),) if tenants else ()).fetchone() or (0,) * 5
        return dict(zip(("tenants", "keys", "current", "usable", "disabled"), row))

    @property
    def current(self) -> sql.Composable:
        """A query for the current rows, with the columns ``tenant`` and ``kid``."""
        judged = self._judged(sql.SQL(""), cells=False, lock=False)
        return sql.SQL("SELECT j.tenant, j.kid FROM ({}) j WHERE j.is_current").format(judged)

    @property
    def usable(self) -> sql.Composable:
        """A query for the usable rows, with the columns ``tenant`` and ``kid``."""
        judged = self._judged(sql.SQL(""), cells=False, lock=False)
        return sql.SQL("SELECT j.tenant, j.kid FROM ({}) j WHERE j.usable").format(judged)

    def listed(self, link: Link, tenants: Sequence[str], limit: int) -> list[dict[str, str]]:
        """The first keys: ``tenant``, ``kid``, ``state`` (``current``, ``usable`` or ``disabled``), ``created``."""
        condition = self._of_tenants() if tenants else sql.SQL("")
        query = sql.SQL("SELECT j.* FROM ({}) j ORDER BY j.tenant, j.created, j.kid LIMIT {}").format(
            self._judged(condition, cells=False, lock=False), sql.Literal(limit)
        )
        rows = [self._row(row) for row in link.execute(query, (list(tenants),) if tenants else ()).fetchall()]
        return [
            {
                "tenant": row.tenant,
                "kid": row.kid,
                "state": "disabled" if not row.is_usable else "current" if row.is_current else "usable",
                "created": row.created,
            }
            for row in rows
        ]

    def published(self, link: Link, places: Sequence[Place]) -> dict[Place, str]:
        """The public halves at these places as they stand there; rows without one are left out."""
        query = sql.SQL("SELECT u.tenant::text, u.kid::text, {}::text FROM {} c, {} WHERE {}").format(
            self._column("public"), self.table.identifier, self._places(), self._at_place
        )
        rows = link.execute(query, self._arrays(places)).fetchall()
        return {(tenant, kid): text for tenant, kid, text in rows if text is not None}

    # -- writing -------------------------------------------------------------------------------------------------

    def insert(self, link: Link, keys: Sequence[tuple[str, NewKey, bytes, str]], algorithm: str) -> int:
        """New rows, published and not in use; how many there are now.

        :param keys: tenant, key, its cell, and the time of the tenant's current key (empty for none): where the newest
            row signs, the new one is made to be just older.
        """
        declared = self.declared
        names: list[str] = []
        values: list[sql.Composable] = []

        def add(name: str, value: sql.Composable) -> None:
            names.append(name)
            values.append(value)

        for meaning in ("kid", "public", "private"):
            add(declared.columns[meaning], sql.SQL("%({})s").format(sql.SQL(meaning)))
        if "tenant" in declared.columns:
            add(declared.columns["tenant"], sql.SQL("%(tenant)s"))
        if "alg" in declared.columns:
            add(declared.columns["alg"], sql.SQL("%(alg)s"))
        if "created" in declared.columns:
            add(declared.columns["created"], self._birth_time())
        for name in self._generated:
            add(name, sql.SQL("gen_random_uuid()"))
        for name, value in declared.at_birth.items():
            add(name, self._setting(name, value))
        query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            self.table.identifier, sql.SQL(", ").join(map(identifier, names)), sql.SQL(", ").join(values)
        )
        cells = self.cells.encode([cell for _tenant, _key, cell, _before in keys])
        with link.cursor() as cursor:
            cursor.executemany(
                query,
                [
                    {
                        "kid": key.kid,
                        "public": key.public,
                        "private": cell if self.cells.kept_sql == "bytea" else cell.decode(),
                        "tenant": tenant,
                        "alg": algorithm,
                        "before": before or None,
                    }
                    for (tenant, key, _cell, before), cell in zip(keys, cells)
                ],
            )
            return cursor.rowcount

    def _birth_time(self) -> sql.Composable:
        now = sql.SQL(_TIMES[self._of("created").full_type])
        if self.declared.current is not None:
            return now
        kind = server_text(self._of("created").full_type)
        return sql.SQL("coalesce(%(before)s::{} - {}, {})").format(kind, sql.SQL(_MICROSECOND), now)

    def delete(self, link: Link, places: Sequence[Place]) -> int:
        """Remove rows; how many there were."""
        query = sql.SQL("DELETE FROM {} c USING {} WHERE {}").format(
            self.table.identifier, self._places(), self._at_place
        )
        return link.execute(query, self._arrays(places)).rowcount

    def end_current(self, link: Link, places: Sequence[Place]) -> int:
        """Let rows be current no more; where the newest row signs, another one becomes newer instead."""
        rule = self.declared.current
        if rule is None:
            return len(places)
        return self._set(link, places, {rule.column: rule.ended})

    def make_current(self, link: Link, places: Sequence[Place], newest: Sequence[str]) -> int:
        """Let rows sign.

        :param newest: for each, the time of the tenant's newest row as text, or an empty one.
        """
        rule = self.declared.current
        if rule is not None:
            return self._set(link, places, {rule.column: rule.holds[0]})
        now = sql.SQL(_TIMES[self._of("created").full_type])
        later = sql.SQL("greatest({}, {} + {})").format(now, self._beside, sql.SQL(_MICROSECOND))
        return self._set_time(link, places, newest, later)

    def wait_before(self, link: Link, places: Sequence[Place], times: Sequence[str]) -> int:
        """Let rows wait again: just older than the given times, or marked so."""
        rule = self.declared.current
        if rule is not None:
            return self._set(link, places, {rule.column: rule.ended})
        return self._set_time(link, places, times, sql.SQL("{} - {}").format(self._beside, sql.SQL(_MICROSECOND)))

    def disable(self, link: Link, places: Sequence[Place]) -> int:
        """Let rows neither be published nor accepted any more."""
        return self._set(link, places, self.declared.when_disabled)

    @property
    def _beside(self) -> sql.Composable:
        return sql.SQL("nullif(u.beside, '')::{}").format(server_text(self._of("created").full_type))

    def _set(self, link: Link, places: Sequence[Place], values: Mapping[str, Any]) -> int:
        settings = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(identifier(name), self._setting(name, value)) for name, value in values.items()
        )
        query = sql.SQL("UPDATE {} c SET {} FROM {} WHERE {}").format(
            self.table.identifier, settings, self._places(), self._at_place
        )
        return link.execute(query, self._arrays(places)).rowcount

    def _set_time(self, link: Link, places: Sequence[Place], beside: Sequence[str], time: sql.Composable) -> int:
        query = sql.SQL("UPDATE {} c SET {} = {} FROM {} WHERE {}").format(
            self.table.identifier,
            identifier(self.declared.columns["created"]),
            time,
            self._places(beside=True),
            self._at_place,
        )
        return link.execute(query, (*self._arrays(places), list(beside))).rowcount

    def _places(self, beside: bool = False) -> sql.Composable:
        tenant = self._of("tenant").type_sql if "tenant" in self.declared.columns else "text"
        more, names = (", %s::text[]", "tenant, kid, beside") if beside else ("", "tenant, kid")
        return sql.SQL("unnest(%s::{}[], %s::{}[]{}) AS u({})").format(
            server_text(tenant), server_text(self._of("kid").type_sql), sql.SQL(more), sql.SQL(names)
        )

    @property
    def _at_place(self) -> sql.Composable:
        same = sql.SQL("{} = u.kid").format(self._column("kid"))
        if "tenant" not in self.declared.columns:
            return same
        return sql.SQL("{} AND {} = u.tenant").format(same, self._column("tenant"))

    @staticmethod
    def _arrays(places: Sequence[Place]) -> tuple[list[str], list[str]]:
        return [tenant for tenant, _kid in places], [kid for _tenant, kid in places]


def _columns(link: Link, table: Table) -> dict[str, _Column]:
    query = """
        SELECT a.attname, format_type(a.atttypid, NULL), format_type(a.atttypid, a.atttypmod),
               a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = ''
        FROM pg_attribute a WHERE a.attrelid = %s::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum"""
    return {row[0]: _Column(*row[1:]) for row in link.execute(query, (table.oid,)).fetchall()}
