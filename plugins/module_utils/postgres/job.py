# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of ``reencrypt``: from what the catalog of the database says to the state that is asked for.

Where a rotation stands is read from the database each time, so a call that was killed is finished by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import (
    NEW,
    NULL,
    OLD,
    PLAINTEXT,
    UNKNOWN,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.clear import (
    clear,
    find_clearing,
    find_index,
    has_index,
    make_index,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, explained, transaction
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered, check_first, cover
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import (
    BACK,
    FORWARD,
    SAME,
    Fence,
    ensure_schema,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.inplace import re_encrypt
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.lanes import Lanes
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import (
    Database,
    find_targets,
    rotation_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import NO_PARAMETERS
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadow import settle_all, swap
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.sides import NEXT, NONE, PREV, Side, find_side
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Work, rows_behind
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["run"]


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The work of the module ``reencrypt``; see its RETURN for the result."""
    started = time.perf_counter()
    session = Session.from_params(params)
    if not check_mode:
        session.check_epoch()
    database = Database(session, params)
    link = database.open()
    lanes = Lanes(link, database.open, params["workers"])
    try:
        with explained(database.place):
            result = _Job(session, params, check_mode, database, lanes).run()
    finally:
        lanes.close()
        link.close()
    result["seconds"] = round(time.perf_counter() - started, 3)
    return result


class _Job:
    def __init__(
        self, session: Session, params: dict[str, Any], check_mode: bool, database: Database, lanes: Lanes
    ) -> None:
        self.rotation = rotation_of(session)
        self.state: str = params["state"]
        self.step: str = params["step"]
        self.check_mode = check_mode
        self.has_new = database.new is not None
        self.link: Link = lanes.first
        need = ("SELECT",) if check_mode else ("SELECT", "UPDATE")
        self.targets = find_targets(self.link, database, params, need)
        self.schema: str = params["schema"]
        self.clearings = [find_clearing(self.link, entry) for entry in params["clear"]]
        self.indexes = [find_index(self.link, entry) for entry in params["indexes"]]
        progress_path = None if check_mode else params["progress_path"]
        self.pace = Pace(self.state, rate=params["rate"], max_wait_s=params["max_wait_s"], progress_path=progress_path)
        self.work = Work(
            lanes=lanes,
            fence=Fence(self.schema, params["name"], self.rotation, session.epoch),
            pace=self.pace,
            schema=self.schema,
            batch_rows=params["batch_rows"],
            batch_bytes=params["batch_bytes"],
            lock_ms=params["lock_timeout_ms"],
        )
        self.fence = self.work.fence
        self.has_fence = self.fence.read(self.link)
        self._face()
        self.sides: list[Side] = []
        self.covered: list[Covered] = []
        self.before: list[Covered] = []
        self.cleared: list[dict[str, Any]] = []
        self.made: list[dict[str, Any]] = []
        self.is_changed = False

    # -- facts and results ---------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Reach the state."""
        if self.targets and not self.has_new:
            raise KeyturnError("key-missing", "needs the new key", where="keys.new", hint="Give a reference to it")
        self._read_sides()
        first_facts = self._facts()
        getattr(self, f"_{self.state}")()
        coverage = self._coverage(self.covered)
        facts = self._facts()
        return {
            "changed": self.is_changed or self.work.written > 0,
            "coverage": coverage,
            "facts": facts,
            "cleared": self.cleared,
            "indexes": self.made,
            "held_ms": round(self.work.held_ms, 1),
            "waited_ms": round(self.work.waited_ms, 1),
            "rows_written": self.work.written,
            "rows_raced": self.work.raced,
            "diff": {
                "before": {"facts": first_facts, "coverage": self._coverage(self.before)},
                "after": {"facts": facts, "coverage": coverage},
            },
        }

    def _read_sides(self) -> None:
        self.sides = [find_side(self.link, self.schema, target.column) for target in self.targets]
        if self.state == "prepared":
            return
        for side in self.sides:
            if side.fact != NONE and side.rotation != self.rotation:
                raise _leftover(side)

    def _facts(self) -> list[dict[str, Any]]:
        return [
            {
                "table": str(side.column.table),
                "column": side.column.name,
                "fact": side.fact,
                "rotation_id": side.rotation,
                "swapped": side.swapped,
            }
            for side in self.sides
        ]

    @staticmethod
    def _coverage(covered: Sequence[Covered]) -> list[dict[str, Any]]:
        return [one.counts.as_result(one.target.column) for one in covered]

    def _cover(self, sides: Sequence[Side] | None = None) -> None:
        sides = self.sides if sides is None else sides
        self.covered = cover(self.link, self.targets, sides, self.pace, self.work.size())
        self.before = self.before or self.covered
        self.work.totals = {one.target.place: one.counts.total for one in self.covered}

    def _all(self, fact: str) -> bool:
        return all(side.fact == fact for side in self.sides)

    def _take(self, direction: str, in_place: bool = False) -> None:
        ensure_schema(self.link, self.schema, self.pace)
        self.fence.take(self.link, direction, self.pace, in_place)
        self._face()
        self._read_sides()

    def _face(self) -> None:
        """Tell the columns which key is to be left."""
        for target in self.targets:
            target.leaving = NEW if self.fence.turned_back else OLD

    # -- in place ------------------------------------------------------------------------------------------------

    def _in_place(self) -> None:
        for side in self.sides:
            if side.fact != NONE:
                raise _leftover(side)
        self._cover()
        check_first(self.covered)
        if self.check_mode:
            self.is_changed = any(one.behind_new for one in self.covered)
            return
        self._take(FORWARD, in_place=True)
        self._pass_until_done(back=False)
        self.fence.close(self.link)

    def _pass_until_done(self, back: bool) -> None:
        """Passes in place until the coverage is complete."""
        patience = self.pace.patience("rows that others keep writing")
        while True:
            for target in self.targets:
                re_encrypt(self.work, target, back)
            self._cover()
            if self._is_complete(back) or patience.is_over:
                self._demand(back)
                return

    def _is_complete(self, back: bool) -> bool:
        return not any(one.behind_old if back else one.behind_new for one in self.covered)

    def _demand(self, back: bool) -> None:
        """Refuse coverage that is not complete; going back from where no row was changed demands nothing of them."""
        is_untouched = back and not self.fence.in_place and self._all(NONE)
        for one in self.covered:
            behind = 0 if is_untouched else one.behind_old if back else one.behind_new
            if behind:
                raise rows_behind(one.target.place, behind, "new" if back else OLD)
            if one.wrong_pairs:
                raise KeyturnError(
                    "shadow-wrong",
                    f"{one.wrong_pairs} rows differ from what is kept of them under the other key",
                    where=one.target.place,
                    hint="Nothing was dropped. Look at the side table before going on",
                )
            if one.counts.rows[UNKNOWN]:
                keys = "; ".join(one.counts.unknown_keys)
                raise KeyturnError(
                    "rows-unknown",
                    f"{one.counts.rows[UNKNOWN]} rows open under neither key (primary keys: {keys})",
                    where=one.target.place,
                    hint="Find out who wrote them, and repair them",
                )

    # -- cut-over ------------------------------------------------------------------------------------------------

    def _prepared(self) -> None:
        mine = [side if side.rotation == self.rotation else Side(self.schema, side.column) for side in self.sides]
        self._cover(mine)
        check_first(self.covered)
        for side, one in zip(self.sides, self.covered):
            if side.fact != NONE and side.rotation != self.rotation and not _is_settled(side, one):
                raise _leftover(side)
        if self.sides and all(side.fact == PREV for side in mine):
            return
        if self.check_mode:
            self.is_changed = any(side.fact == NONE for side in mine)
            return
        ensure_schema(self.link, self.schema, self.pace)
        self.fence.take(self.link, FORWARD, self.pace)
        self._face()

        def make() -> list[Side]:
            with transaction(self.link):
                self.fence.hold(self.link, strong=True)
                sides = []
                for target in self.targets:
                    side = find_side(self.link, self.schema, target.column)
                    if side.fact != NONE and side.rotation != self.rotation:
                        side.drop(self.link)
                        side = Side(self.schema, target.column)
                    sides.append(side if side.fact != NONE else side.create(self.link, self.rotation))
            return sides

        known = [side for side in mine if side.fact != NONE]
        self.sides = retrying(self.pace, "side tables", make)
        self.is_changed = self.sides != known
        filling = [(target, side) for target, side in zip(self.targets, self.sides) if side.fact == NEXT]
        settle_all(self.work, [target for target, _side in filling], [side for _target, side in filling], back=False)
        for _target, side in filling:
            self.link.execute(sql.SQL("ANALYZE {}").format(side.identifier), NO_PARAMETERS)

    def _cut_over(self) -> None:
        if self._all(PREV):
            return
        self._refuse_unprepared()
        self.is_changed = True
        if self.check_mode:
            return
        self._take(FORWARD)
        self._refuse_unprepared()
        self._swap([side.fact == NEXT for side in self.sides], back=False)

    def _swap(self, chosen: Sequence[bool], back: bool) -> None:
        at = [index for index, is_chosen in enumerate(chosen) if is_chosen]
        if not at:
            return
        targets = [self.targets[index] for index in at]
        turned = swap(self.work, targets, [self.sides[index] for index in at], back)
        for index, side in zip(at, turned):
            self.sides[index] = side
        self.is_changed = True

    def _refuse_unprepared(self) -> None:
        for side in self.sides:
            if side.fact == NONE:
                hint = "Run state prepared first"
                raise KeyturnError("not-prepared", "has no side table", where=str(side.column), hint=hint)

    # -- sweeping ------------------------------------------------------------------------------------------------

    def _swept(self) -> None:
        if not self.has_fence:
            self._cover()
            self._demand_any()
            return
        if self.check_mode:
            self._cover()
            back = self.fence.turned_back
            pending = [clearing for clearing in self.clearings if str(clearing) not in self.fence.cleared]
            missing = [index for index in self.indexes if has_index(self.link, index) is not True]
            self.is_changed = not self._is_complete(back) or bool(pending or missing)
            return
        self._take(SAME)
        back = self.fence.turned_back
        self._refuse_unswapped(back)
        was_swapped = self.fence.in_place or not self.targets or any(side.swapped for side in self.sides)
        self._sweep(back)
        if was_swapped:
            self.cleared = [clear(self.work, clearing) for clearing in self.clearings]
        if not back:
            self.made = [make_index(self.work, index) for index in self.indexes]
        self.is_changed |= any(entry["rows"] for entry in self.cleared) or any(entry["created"] for entry in self.made)
        self.fence.close(self.link)

    def _refuse_unswapped(self, back: bool) -> None:
        wanted = NEXT if back else PREV
        for side in self.sides:
            if side.fact not in (wanted, NONE):
                code, message, hint = (
                    ("not-rolled-back", "is not swapped back yet", "Run state rolled_back first")
                    if back
                    else ("not-cut-over", "is prepared and not cut over", "Run state cut_over, or rolled_back")
                )
                raise KeyturnError(code, message, where=str(side.column), hint=hint)
        if not back and not self.fence.in_place:
            self._refuse_unprepared()

    def _sweep(self, back: bool) -> None:
        tables = [target.column.table for target in self.targets]
        patience = self.pace.patience("rows that others keep writing")
        self._settle(back)
        self.work.barrier(tables)
        while True:
            self._settle(back)
            self._cover()
            if self._is_complete(back) or patience.is_over:
                self._demand(back)
                return

    def _settle(self, back: bool) -> None:
        """One sweep: rows under the wrong key are put right, in the side table or in place."""
        for target, side in zip(self.targets, self.sides):
            if side.fact != NONE:
                settle_all(self.work, [target], [side], back)
            elif self.fence.in_place:
                re_encrypt(self.work, target, back)

    # -- back and out --------------------------------------------------------------------------------------------

    def _rolled_back(self) -> None:
        if not self.has_fence:
            if self.sides and not self._all(NONE):
                raise _leftover(next(side for side in self.sides if side.fact != NONE))
            return
        self.is_changed = not self.fence.turned_back or any(side.fact == PREV for side in self.sides)
        if self.check_mode:
            return
        self._take(BACK)
        self._swap([side.fact == PREV for side in self.sides], back=True)
        self._drop([side.fact == NEXT and not side.swapped for side in self.sides])
        if self.fence.in_place:
            self._pass_until_done(back=True)
        if self.step == "all":
            self._swept()
            self._cleaned()

    def _cleaned(self) -> None:
        if not self.has_fence:
            self._cover()
            self._demand_any()
            return
        if not self.check_mode:
            self._take(SAME)
        back = self.fence.turned_back
        self._refuse_unswapped(back)
        self._cover()
        self._demand(back)
        self.is_changed = True
        if not self.check_mode:
            self._drop([side.fact != NONE for side in self.sides], is_over=True)
            self.has_fence = False

    def _demand_any(self) -> None:
        """Refuse coverage that is complete in neither direction, where no fact says which one is meant."""
        for side in self.sides:
            if side.fact != NONE:
                raise _leftover(side)
        self._demand(back=self._is_complete(back=True))

    def _drop(self, chosen: Sequence[bool], is_over: bool = False) -> None:
        """Drop side tables; with ``is_over`` the fence goes with them, so that a kill in between leaves both."""

        def drop() -> None:
            with transaction(self.link):
                self.fence.hold(self.link, strong=True)
                for side, is_chosen in zip(self.sides, chosen):
                    if is_chosen:
                        side.drop(self.link)
                if is_over:
                    self.fence.remove(self.link)

        if is_over or any(chosen):
            retrying(self.pace, "side tables", drop)
            self.is_changed = True
            self.sides = [
                Side(self.schema, side.column) if is_chosen else side for side, is_chosen in zip(self.sides, chosen)
            ]


def _is_settled(side: Side, covered: Covered) -> bool:
    """Whether a former rotation's side table is of no more use: its new key, our old one, covers all."""
    rows = covered.counts.rows
    return side.fact == PREV and rows[OLD] + rows[NULL] + rows[PLAINTEXT] == covered.counts.total


def _leftover(side: Side) -> KeyturnError:
    return KeyturnError(
        "leftover-shadow",
        f"rotation {side.rotation} has left a side table ({side.fact})",
        where=str(side.column),
        hint="Finish that rotation or roll it back (reencrypt with its rotation_id), then begin this one",
    )
