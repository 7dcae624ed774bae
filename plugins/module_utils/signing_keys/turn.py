# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One turn of a table's signing keys: what each call has at hand, and the steps in one transaction each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
    transaction,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.forms import algorithm, make_key
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.opening import look, refuse_closed
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.records import (
    GONE,
    PROMOTED,
    STAGED,
    WITHDRAWN,
    Record,
    Records,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.rows import KeyRow, KeyRows, Place, Unsound

__all__ = ["Done", "Turn", "refuse_unsound"]

_NAMED = 10


def refuse_unsound(count: int, first: Sequence[Unsound], where: str) -> None:
    """Refuse tenants without exactly one current, usable key.

    :raises KeyturnError: ``signing-unsound``; ``signing-keys-none`` for a table without tenants that has no key.
    """
    if not count:
        return
    if [(one.tenant, one.current) for one in first] == [("", 0)]:
        raise KeyturnError(
            "signing-keys-none",
            "no key is current",
            where=where,
            hint="Restore the table, or make the first key with initial",
        )
    names = "; ".join(f"{one.tenant or 'the table'}: {one.problem}" for one in first[:_NAMED])
    message = f"{count} tenants have not exactly one current and usable key ({names})"
    hint = "Set that right first; initial makes a key where there is none"
    raise KeyturnError("signing-unsound", message, where=where, hint=hint)


@dataclass
class Done:
    """How many keys were made, promoted, disabled, taken out of use again, and removed, by this call."""

    made: int = 0
    promoted: int = 0
    disabled: int = 0
    withdrawn: int = 0
    removed: int = 0
    gone: int = 0


class Turn:
    """What the states work with.

    :param initial: whether a tenant without a current key gets one.
    :param forward_only: whether the overlap is skipped on purpose.
    :param disable: ``previous`` or ``all`` of the keys that do not sign.
    """

    def __init__(
        self,
        crew: Crew,
        rows: KeyRows,
        envelope: Envelope,
        fence: Fence,
        records: Records,
        pace: Pace,
        generate: Mapping[str, Any],
        tenants: Sequence[str] = (),
        *,
        initial: bool = False,
        forward_only: bool = False,
        disable: str = "previous",
    ) -> None:
        self.crew, self.link, self.rows, self.envelope = crew, crew.first, rows, envelope
        self.fence, self.records, self.pace = fence, records, pace
        self.generate, self.tenants = generate, list(tenants)
        self.initial, self.forward_only, self.disable_which = initial, forward_only, disable
        self.where = str(rows.table)
        self.done = Done()
        self._astray: list[str] = []

    # -- before anything is written ------------------------------------------------------------------------------

    def check_sound(self) -> None:
        """Refuse what keeps a turn from beginning: tenants without a key that signs, rows that do not open."""
        with transaction(self.link):
            whole_tables(self.link)
            count, first = self.rows.unsound(self.link, self.tenants, _NAMED)
            if self.forward_only and not self.initial and not self.rows.counts(self.link, self.tenants)["keys"]:
                refuse_unsound(1, [Unsound("", 0, 0)], self.where)  # what was lost comes back, or is begun anew
            if self.initial or self.forward_only:
                first = [one for one in first if one.current > 1 and not self.forward_only]
                count = len(first)
            refuse_unsound(count, first, self.where)
            refuse_closed(look(self.envelope, self.rows.each(self.link, self.tenants)), self.where)

    # -- making --------------------------------------------------------------------------------------------------

    def make(self, link: Link, tenants: list[str]) -> int:
        """New keys for some tenants, made before the transaction and published in it; how many."""
        keys = [make_key(self.generate, self.rows.declared.form) for _tenant in tenants]
        cells = self.envelope.seal_many([key.private for key in keys])

        def publish() -> int:
            with explained(self.where), transaction(link):
                self.fence.hold(link)
                found = self.rows.lock(link, tenants, cells=True)
                entries, records = [], []
                for tenant, key, cell in zip(tenants, keys, cells):
                    current = self._present(tenant, found[tenant])
                    before = current.created if current else ""
                    entries.append((tenant, key, cell, before))
                    records.append(Record(tenant, key.kid, current.kid if current else None, STAGED))
                refuse_closed(look(self.envelope, (row for rows in found.values() for row in rows)), self.where)
                self._count(self.rows.insert(link, entries, algorithm(self.generate)), len(entries))
                self.records.add(link, records, self.forward_only)
                self._note_others(link, records, found)
                self._check(link, {one.tenant: one.old_kid for one in records if _is_sound(found[one.tenant])})
                return len(entries)

        return retrying(self.pace, self.where, publish)

    def _present(self, tenant: str, rows: Sequence[KeyRow]) -> KeyRow | None:
        current = [row for row in rows if row.is_current]
        usable = [row for row in current if row.is_usable]
        if len(current) == 1 and usable:
            return current[0]
        if self.forward_only and current:
            return usable[0] if usable else current[0]
        if not current and (self.initial or self.forward_only):
            return None
        refuse_unsound(1, [Unsound(tenant, len(current), len(usable))], self.where)
        return None

    def forget_lost(self, link: Link, batch: Sequence[Record]) -> None:
        """Forget new keys that somebody has taken away, so that others are made; what they replaced stays written down.

        :raises KeyturnError: ``signing-keys-none`` where a table without tenants is empty.
        """

        def work() -> None:
            with explained(self.where), transaction(link):
                self.fence.hold(link)
                found = self.rows.lock(link, [one.tenant for one in batch])
                if not found.get("", [""]) and not self.initial:
                    refuse_unsound(1, [Unsound("", 0, 0)], self.where)
                lost = [one for one in batch if self._is_lost(one, found[one.tenant])]
                signed = [(one.tenant, one.new_kid) for one in lost if one.stage != STAGED]
                former = [(one.tenant, one.old_kid) for one in lost if one.old_kid]
                self.records.note(link, [*signed, *former])
                self.records.forget(link, [one.tenant for one in lost])

        retrying(self.pace, self.where, work)

    @staticmethod
    def _is_lost(one: Record, rows: Sequence[KeyRow]) -> bool:
        """A tenant that went away with all its keys has lost nothing; the one of a table without tenants always is."""
        if not rows:
            return not one.tenant
        return one.stage == GONE or not any(row.kid == one.new_kid and row.is_usable for row in rows)

    def _note_others(self, link: Link, batch: Sequence[Record], found: Mapping[str, Sequence[KeyRow]]) -> None:
        """In an emergency several keys may be current: each of them has signed, and a record names only one."""
        if not self.forward_only:
            return
        others = [
            (one.tenant, row.kid)
            for one in batch
            for row in found[one.tenant]
            if row.is_current and row.kid not in (one.new_kid, one.old_kid)
        ]
        self.records.note(link, others)

    # -- turning -------------------------------------------------------------------------------------------------

    def promote(self, link: Link, batch: Sequence[Record]) -> None:
        """Let the new keys of some tenants sign, in one transaction: the former ones end, the new ones begin."""

        def work() -> tuple[int, int]:
            with explained(self.where), transaction(link):
                self.fence.hold(link)
                found = self.rows.lock(link, [one.tenant for one in batch])
                gone = [one.tenant for one in batch if not found[one.tenant]]
                left = [one for one in batch if found[one.tenant]]
                self._refuse_raced(left, found)
                left = self._to_promote(link, left, found)
                former = [
                    (one.tenant, row.kid)
                    for one in left
                    for row in found[one.tenant]
                    if row.is_current and row.kid != one.new_kid
                ]
                turning = [one for one in left if not self._is_current(found[one.tenant], one.new_kid)]
                newest = [_newest(found[one.tenant]) for one in turning]
                self._count(self.rows.end_current(link, former), len(former))
                places = [(one.tenant, one.new_kid) for one in turning]
                self._count(self.rows.make_current(link, places, newest), len(places))
                self._note_others(link, left, found)
                self.records.move(link, [one.tenant for one in left], PROMOTED)
                self.records.move(link, gone, GONE)
                self._check(link, {one.tenant: one.new_kid for one in left})
                return len(left), len(gone)

        promoted, gone = retrying(self.pace, self.where, work)
        self.done.promoted += promoted
        self.done.gone += gone

    def _to_promote(self, link: Link, batch: Sequence[Record], found: Mapping[str, Sequence[KeyRow]]) -> list[Record]:
        """Those whose new key is to sign: again, where a key that this or another rotation has ended was brought back.

        A key that nobody wrote down stays: it may be a good one, and ``refuse_astray`` names it.
        """
        known = self.records.before(link, [one.tenant for one in batch if one.stage != STAGED])
        return [
            one
            for one in batch
            if one.stage == STAGED or self._is_undone(one, found[one.tenant], known.get(one.tenant, ()))
        ]

    def _is_undone(self, one: Record, rows: Sequence[KeyRow], known: Sequence[str]) -> bool:
        others = {row.kid for row in rows if row.is_current} - {one.new_kid}
        return not self._is_current(rows, one.new_kid) and others <= set(known)

    def _refuse_raced(self, batch: Sequence[Record], found: Mapping[str, Sequence[KeyRow]]) -> None:
        """Somebody else has turned a key since: what they want is not overwritten, but in an emergency."""
        if self.forward_only:
            return
        for one in batch:
            current = [row.kid for row in found[one.tenant] if row.is_current]
            if current != ([one.old_kid] if one.old_kid else []) and current != [one.new_kid]:
                where = f"{self.where}, tenant {one.tenant}" if one.tenant else self.where
                hint = "Roll this rotation back, then begin a new one"
                message = "another key became current since the new one was made"
                raise KeyturnError("signing-raced", message, where=where, hint=hint)

    @staticmethod
    def _is_current(rows: Sequence[KeyRow], kid: str) -> bool:
        return [row.kid for row in rows if row.is_current] == [kid]

    def disable(self, link: Link, batch: Sequence[Record]) -> None:
        """Disable the keys before the new ones of some tenants, in one transaction; the key that signs stays.

        In an emergency a tenant is done only when that is its new key.
        """

        def work() -> tuple[int, int, list[str]]:
            with explained(self.where), transaction(link):
                self.fence.hold(link)
                tenants = [one.tenant for one in batch]
                found = self.rows.lock(link, tenants)
                left = {one.tenant: _signing(found[one.tenant]) for one in batch if found[one.tenant]}
                self._check(link, left)
                new = {one.tenant: one.new_kid for one in batch}
                astray = [tenant for tenant, kid in left.items() if self.forward_only and kid != new[tenant]]
                named = set(self.records.former(link, list(left)))
                if self.forward_only:
                    named |= set(self.records.left_waiting(link, list(left)))
                kept = set(new.items()) | set(left.items())
                places = [
                    (tenant, row.kid)
                    for tenant in left
                    for row in found[tenant]
                    if row.is_usable and (self.disable_which == "all" or (tenant, row.kid) in named)
                ]
                places = [place for place in places if place not in kept]
                self._count(self.rows.disable(link, places), len(places))
                self._check(link, left)
                self.records.end(link, [tenant for tenant in left if tenant not in astray], self.forward_only)
                self.records.move(link, [tenant for tenant in tenants if tenant not in left], GONE)
                return len(places), len(tenants) - len(left), astray

        disabled, gone, astray = retrying(self.pace, self.where, work)
        self.done.disabled += disabled
        self.done.gone += gone
        self._astray += astray

    def refuse_astray(self) -> None:
        """Refuse to call an emergency done while tenants sign with another key than their new one.

        :raises KeyturnError: ``signing-raced``.
        """
        if not self._astray:
            return
        names = ", ".join(tenant or "the table" for tenant in self._astray[:_NAMED])
        message = f"other keys were made current after the new ones: {names}"
        hint = "Run it again: a former key is ended again. Where it is yet another one, make the new key current first"
        raise KeyturnError("signing-raced", message, where=self.where, hint=hint)

    # -- back ----------------------------------------------------------------------------------------------------

    def go_back(self, link: Link, batch: Sequence[Record]) -> None:
        """The former keys of some tenants sign again, in one transaction.

        A new key that never signed is removed. One that did stays published: what it signed must be accepted until it
        ends. A first key stays, since there is none to go back to.
        """

        def work() -> tuple[int, int]:
            with explained(self.where), transaction(link):
                self.fence.hold(link)
                found = self.rows.lock(link, [one.tenant for one in batch])
                turned = [one for one in batch if self._signed(one, found[one.tenant])]
                unused = [one for one in batch if one.old_kid and one not in turned and _has(one, found[one.tenant])]
                signing = [one for one in turned if one.old_kid and self._is_current(found[one.tenant], one.new_kid)]
                former = {one.tenant: self._row(one.tenant, one.old_kid, found[one.tenant]) for one in signing}
                new = [(one.tenant, one.new_kid) for one in signing]
                old = [(tenant, row.kid) for tenant, row in former.items()]
                self._count(self.rows.wait_before(link, new, [row.created for row in former.values()]), len(new))
                if self.rows.declared.current is not None:
                    self._count(self.rows.make_current(link, old, [""] * len(old)), len(old))
                self._count(self.rows.delete(link, [_place(one) for one in unused]), len(unused))
                self.records.move(link, [one.tenant for one in turned], WITHDRAWN)
                self.records.forget(link, [one.tenant for one in batch if one not in turned])
                self._check(link, {tenant: row.kid for tenant, row in former.items()})
                self._check(link, {one.tenant: _signing(found[one.tenant]) for one in unused})
                return len(signing), len(unused)

        withdrawn, removed = retrying(self.pace, self.where, work)
        self.done.withdrawn += withdrawn
        self.done.removed += removed

    @staticmethod
    def _signed(one: Record, rows: Sequence[KeyRow]) -> bool:
        return bool(one.old_kid) and (
            one.stage == PROMOTED or any(row.is_current and row.kid == one.new_kid for row in rows)
        )

    def _row(self, tenant: str, kid: str | None, rows: Sequence[KeyRow]) -> KeyRow:
        found = next((row for row in rows if row.kid == kid and row.is_usable), None)
        if found is None:
            where = f"{self.where}, tenant {tenant}" if tenant else self.where
            hint = "Go forward with a new rotation"
            raise KeyturnError("signing-former-gone", "the former key is disabled or gone", where=where, hint=hint)
        return found

    # -- counts --------------------------------------------------------------------------------------------------

    def _count(self, rows: int, wanted: int) -> None:
        """Refuse, and so undo the transaction, when a statement did not change what it was to."""
        if rows != wanted:
            message = f"a statement changed {rows} rows where {wanted} were meant"
            hint = "Nothing was changed. Look for a rule or trigger of the table, or kids that are there twice"
            raise KeyturnError("signing-count", message, where=self.where, hint=hint)

    def _check(self, link: Link, wanted: Mapping[str, str | None]) -> None:
        """Each tenant has exactly one current key, the one that is wanted, and it is usable."""
        for tenant, rows in self.rows.lock(link, list(wanted)).items():
            current = [row for row in rows if row.is_current]
            if [row.kid for row in current] != [wanted[tenant]] or not current[0].is_usable:
                where = f"{self.where}, tenant {tenant}" if tenant else self.where
                message = "this would not leave exactly one current and usable key"
                hint = "Nothing was changed. Look at the keys, and at what current and usable say"
                raise KeyturnError("signing-last-key", message, where=where, hint=hint)


def _place(one: Record) -> Place:
    return one.tenant, one.new_kid


def _is_sound(rows: Sequence[KeyRow]) -> bool:
    current = [row for row in rows if row.is_current]
    return len(current) == 1 and current[0].is_usable


def _has(one: Record, rows: Sequence[KeyRow]) -> bool:
    return any(row.kid == one.new_kid for row in rows)


def _signing(rows: Sequence[KeyRow]) -> str | None:
    return next((row.kid for row in rows if row.is_current), None)


def _newest(rows: Sequence[KeyRow]) -> str:
    """The time of the newest row as the server writes it; empty where there is none but the new one."""
    return next((row.created for row in rows if row.is_current), "")
