# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the states of one call share: targets, shadows, fence, counts, and the moves that several of them make.

Where a rotation stands is read from the database each time, so a call that was killed is finished by the next one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.by_columns import ByColumns
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.choice import Choice, choose
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.classes import (
    NEW,
    NULL,
    OLD,
    PLAINTEXT,
    UNKNOWN,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.clear import find_clearing, find_index
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
    is_retryable,
    transaction,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered, cover
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.facts import WAYS, find_shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import BACK, Fence, ensure_schema
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.guard import Guard
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.hold import Hold, is_held, release
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import ensure_function
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import (
    Database,
    find_targets,
    refuse_clearing,
    rotation_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rights import check_rights
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadow import settle_all
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import NONE, PREV, Shadow
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shared_parts import SharedParts, forget_parts
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.sides import Side
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import Throttle, control_path
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.ways import Way
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Work, rows_behind
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

try:
    import psycopg
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["SHARED", "Rotation", "is_settled", "leftover"]

#: States with a pass that several hosts may work on.
SHARED = ("in_place", "prepared")

_GATE_ATTEMPTS = 5
_LONGEST_HOLD = 900  # seconds: then the service writes again, whatever became of the rotation


class Rotation:
    """One call: what is asked for, and what the database says."""

    def __init__(
        self, session: Session, params: dict[str, Any], check_mode: bool, database: Database, crew: Crew
    ) -> None:
        self.id = rotation_of(session)
        self.state: str = params["state"]
        self.step: str = params["step"]
        self.must_sanitize: bool = params["sanitize"]
        self.check_mode = check_mode
        self.link: Link = crew.first
        need = ("SELECT",) if check_mode else ("SELECT", "UPDATE")
        self.targets = find_targets(self.link, database, params, need)
        if any(target.derives_slowly for target in self.targets):
            crew.stay_alone()
        if self.targets and database.new is None:
            raise KeyturnError("key-missing", "needs the new key", where="keys.new", hint="Give a reference to it")
        self.schema: str = params["schema"]
        self.clearings = [find_clearing(self.link, entry) for entry in params["clear"]]
        if self.state in SHARED:  # before anything is written; the way back is not to be held up
            refuse_clearing(self.targets, [str(one) for one in self.clearings])
        self.indexes = [find_index(self.link, entry) for entry in params["indexes"]]
        progress_path = None if check_mode else params["progress_path"]
        share = params.get("share")
        self.is_helper = bool(share and not share["lead"])
        self.pace = Pace(self.state, max_wait_s=params["max_wait_s"], progress_path=progress_path)
        self.work = Work(
            crew=crew,
            fence=Fence(self.schema, params["name"], self.id, session.epoch),
            pace=self.pace,
            throttle=Throttle(
                rate=params["rate"],
                workers=crew.workers * (share["hosts"] if share else 1),
                max_lag=params.get("max_lag") or 0,
                control=control_path(progress_path) if progress_path else None,
                sleep=self.pace.rest,
            ),
            schema=self.schema,
            batch_rows=params["batch_rows"],
            batch_bytes=params["batch_bytes"],
            lock_ms=params["lock_timeout_ms"],
            rate=params["rate"],
        )
        self.pace.is_paused = lambda: self.work.throttle.is_paused
        self.pace.is_behind = lambda: self.work.throttle.waits_for_standby
        crew.idle = self.pace.tick
        self.fence = self.work.fence
        if share and self.state in SHARED and not check_mode:
            run = (self.id, session.epoch)
            self.work.share = SharedParts(
                self.schema,
                params["name"],
                run,
                fence=self.fence,
                pace=self.pace,
                throttle=self.work.throttle,
                host=share["host"],
                is_lead=share["lead"],
                is_wanted=(lambda: True) if share["lead"] else session.while_open(),
            )
        self.has_fence = self.fence.read(self.link)
        self.face()
        self.quiesce: str = params["quiesce"]
        self.overlaps: bool = params["overlap"]
        self.has_turned: bool = params["turned"]
        self._params = params
        self.steps: dict[str, float] = {}
        self._open_link = database.open
        self.way: Way = WAYS["rows"]
        self.shadows: list[Shadow] = []
        self.covered: list[Covered] = []
        self.before: list[Covered] = []
        self.is_changed = False
        self.read_shadows()

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add up the seconds of a step, for the result."""
        started = time.perf_counter()
        yield
        self.steps[step] = self.steps.get(step, 0.0) + time.perf_counter() - started

    # -- facts ---------------------------------------------------------------------------------------------------

    def read_shadows(self) -> None:
        """Read from the database where this rotation stands; its way is the one that it has begun with."""
        self.shadows = [find_shadow(self.link, self.schema, target.column, self.way) for target in self.targets]
        for shadow in self.shadows:
            if shadow.fact != NONE and shadow.rotation == self.id:
                self.way = WAYS[shadow.way]
        if self.state == "prepared":
            return
        for shadow in self.shadows:
            if shadow.fact != NONE and shadow.rotation != self.id:
                raise leftover(shadow)

    def choose_way(self, mine: Sequence[Shadow]) -> Choice:
        """How to cut over; a rotation that has begun stays with its way.

        :param mine: the shadows that are this rotation's own.
        :raises KeyturnError: ``privilege-missing``.
        """
        begun = next((shadow.way for shadow in mine if shadow.fact != NONE), "")
        choice = choose(self.link, self.targets, self.covered, self._params, begun)
        check_rights(self.link, self.targets, self._params, choice.cut_over)
        self.way = WAYS[choice.cut_over]
        return choice

    def facts(self) -> list[dict[str, Any]]:
        """The facts of the columns, for the result."""
        return [
            {
                "table": str(shadow.column.table),
                "column": shadow.column.name,
                "fact": shadow.fact,
                "cut_over": shadow.way if shadow.fact != NONE else "",
                "rotation_id": shadow.rotation,
                "swapped": shadow.swapped,
            }
            for shadow in self.shadows
        ]

    def all_are(self, fact: str) -> bool:
        """Whether all columns have this fact."""
        return all(shadow.fact == fact for shadow in self.shadows)

    def check_rights(self) -> None:
        """Refuse to begin what this role may not bring to its end, where nothing is cut over."""
        check_rights(self.link, self.targets, self._params)

    def refuse_unprepared(self) -> None:
        """Refuse a step that needs shadows.

        :raises KeyturnError: ``not-prepared``.
        """
        for shadow in self.shadows:
            if shadow.fact == NONE:
                hint = "Run state prepared first"
                raise KeyturnError("not-prepared", "is not prepared", where=str(shadow.column), hint=hint)

    @property
    def lost_its_fence(self) -> bool:
        """Whether only the shadows tell of this rotation: by columns they stay where somebody drops our schema."""
        return self.fence.is_lost and not self.all_are(NONE)

    # -- counting ------------------------------------------------------------------------------------------------

    def cover(self, shadows: Sequence[Shadow] | None = None) -> None:
        """Count all columns."""
        shadows = self.shadows if shadows is None else shadows
        self.covered = cover(self.work.crew, self.targets, shadows, self.pace, self.work.size())
        self.before = self.before or self.covered
        self.work.totals = {one.target.place: one.counts.total for one in self.covered}

    def has_strays(self) -> bool:
        """Whether rows are under the new key and nothing here says why: what was kept of them is gone, or was renamed.

        A service that has both keys writes such rows too, before any row is re-encrypted; so does one on a host that
        was lost while all others went back. Before a first encryption has begun they are the user's own.
        """
        has_begun = self.has_fence or self.fence.went_back or self.has_turned
        at = [
            number
            for number, (target, shadow) in enumerate(zip(self.targets, self.shadows))
            if shadow.fact == NONE and (has_begun or not target.is_adoption)
        ]
        if at:
            self.cover()
        return any(self.covered[number].behind_old for number in at)

    def is_complete(self, back: bool) -> bool:
        """Whether no row is under the key to leave."""
        return not self.left(back)

    def left(self, back: bool) -> int:
        """How many rows are under the key to leave."""
        return sum(one.behind_old if back else one.behind_new for one in self.covered)

    def demand(self, back: bool) -> None:
        """Refuse coverage that is not complete; going back from where no row was changed demands nothing of them."""
        is_untouched = back and not self.fence.in_place and self.all_are(NONE)
        for one in self.covered:
            behind = 0 if is_untouched else one.behind_old if back else one.behind_new
            if behind:
                raise rows_behind(one.target.place, behind, "new" if back else OLD)
            if one.counts.rows[UNKNOWN]:
                keys = "; ".join(one.counts.unknown_keys)
                raise KeyturnError(
                    "rows-unknown",
                    f"{one.counts.rows[UNKNOWN]} rows open under neither key (primary keys: {keys})",
                    where=one.target.place,
                    hint="Find out who wrote them, and repair them",
                )
        self.demand_pairs()

    def demand_pairs(self) -> None:
        """Refuse shadows that do not hold the same as the rows.

        :raises KeyturnError: ``shadow-wrong``.
        """
        for one in self.covered:
            if one.wrong_pairs:
                raise KeyturnError(
                    "shadow-wrong",
                    f"{one.wrong_pairs} rows differ from what is kept of them under the other key",
                    where=one.target.place,
                    hint="Nothing was dropped. Look at what is kept before going on",
                )

    def demand_any(self) -> None:
        """Refuse coverage that is complete in neither direction, where no fact says which one is meant.

        Rows of a rotation that has turned are under the new key: those of a database that was restored are not.
        """
        for shadow in self.shadows:
            if shadow.fact != NONE:
                raise leftover(shadow)
        for one in self.covered if self.has_turned else ():
            if one.behind_new:
                raise KeyturnError(
                    "rows-behind",
                    f"{one.behind_new} rows are not under the new key, and the database knows nothing of this rotation",
                    where=one.target.place,
                    hint="It was restored from a copy of before. Roll the rotation back, or restore a copy of after it",
                )
        self.demand(back=not self.has_turned and self.is_complete(back=True))

    # -- moves ---------------------------------------------------------------------------------------------------

    def take(self, direction: str, in_place: bool = False) -> None:
        """Become the only writer, and read again where things stand."""
        ensure_schema(self.link, self.schema, self.pace)
        ensure_function(self.link, self.schema, [target.column for target in self.targets], self.pace)
        self.fence.take(self.link, direction, self.pace, in_place)
        self.fence.end_former(self.link)
        self.face()
        self.read_shadows()

    def overtaken(self) -> KeyturnError | None:
        """The refusal of a later run, where one has taken over; it ends the connections of this one."""
        if not self.fence.token:
            return None
        try:
            link = self._open_link()
        except KeyturnError:
            return None
        try:
            with explained("fence"), transaction(link):
                self.fence.hold(link)
        except KeyturnError as error:
            return error if error.code == "fenced" else None
        finally:
            link.close()
        return None

    def face(self) -> None:
        """Tell the columns which key is to be left."""
        for target in self.targets:
            target.leaving = NEW if self.fence.turned_back else OLD

    def forbid(self) -> None:
        """Where nothing was begun: a run that was left behind must not begin it now."""
        try:
            self.take(BACK)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
            return  # nor can it
        except KeyturnError as error:
            if error.code != "fenced":
                raise
            return  # another rotation has it
        self.fence.finish(self.link, self.fence.went_back)

    def swap(self, fact: str, back: bool, holds: bool = False) -> None:
        """Exchange the rows of the columns with this fact.

        :param holds: whether the service's writes are held back from then on.
        """
        at = [index for index, shadow in enumerate(self.shadows) if shadow.fact == fact]
        if not at:
            return
        targets, shadows = [self.targets[index] for index in at], [self.shadows[index] for index in at]
        locks = [shadow.lock for shadow in shadows] if holds else []
        if locks:
            release(self.link, locks, self.pace)
        with self._hold(locks) as hold:
            turned = self.way.swap(self.work, targets, shadows, back, hold)
        for index, shadow in zip(at, turned):
            self.shadows[index] = shadow
        self.is_changed = True

    @property
    def is_open(self) -> bool:
        """Whether there is still a sweep to come."""
        return self.has_fence and not self.fence.is_closed

    @property
    def _locks(self) -> list[int]:
        return [shadow.lock for shadow in self.shadows if shadow.is_guarded]

    def _hold(self, locks: Sequence[int]) -> Hold:
        return Hold(self._open_link, locks, self.pace, _LONGEST_HOLD)

    @property
    def can_hold_writes(self) -> bool:
        """Whether the service's writes are to be held back until the sweep."""
        return self.quiesce == "writes" and bool(self._locks)

    def hold_writes(self) -> None:
        """Hold them back, where they are not yet. The fence has to be taken."""
        if is_held(self.link, self._locks):
            return
        release(self.link, self._locks, self.pace)
        with self._hold(self._locks) as hold:
            hold.take()
            with transaction(self.link):  # whoever was overtaken meanwhile lets go at once
                self.fence.hold(self.link)
            hold.keep()

    def release_writes(self) -> None:
        """Let the service write again."""
        if self._locks:
            release(self.link, self._locks, self.pace)

    def open_gates(self) -> None:
        """Remove triggers that only hold back writes. Where somebody reads a table for long, the clean-up does it."""
        gated = {at: side for at, side in enumerate(self.shadows) if isinstance(side, Side) and side.has_gate}
        for _attempt in range(_GATE_ATTEMPTS if gated else 0):
            try:
                with transaction(self.link):
                    self.fence.hold(self.link, strong=True)
                    self.stop_vacuum(list(gated.values()))
                    opened = {at: side.without_gate(self.link) for at, side in gated.items()}
            except psycopg.Error as error:
                if not is_retryable(error):
                    raise
                self.pace.rest(0.05)
            else:
                for at, side in opened.items():
                    self.shadows[at] = side
                return

    def remove_orphans(self) -> None:
        """Triggers whose second column somebody has dropped: with them no row can be written, by nobody."""
        lone = [shadow for shadow in self.shadows if shadow.fact == NONE]
        guards = [Guard(self.schema, shadow.column, shadow.tag) for shadow in lone]
        orphans = [guard for guard in guards if guard.is_there(self.link)]

        def attempt() -> None:
            with transaction(self.link):
                self.fence.hold(self.link, strong=True)
                self.work.stop_vacuum([guard.column.table for guard in orphans])
                for guard in orphans:
                    guard.drop(self.link)

        if orphans:
            retrying(self.pace, "triggers", attempt)
            self.is_changed = True

    def restore_shadows(self, back: bool) -> None:
        """Second columns whose trigger is away are made again; side tables have none."""
        for index, (target, shadow) in enumerate(zip(self.targets, self.shadows)):
            if isinstance(self.way, ByColumns) and shadow.fact != NONE:
                self.shadows[index] = self.way.completed(self.work, target, shadow, back)

    def settle(self, target_at: int, back: bool) -> None:
        """Passes over one column until its shadow is up to date."""
        settle_all(self.work, self.way, [self.targets[target_at]], [self.shadows[target_at]], back)

    def stop_vacuum(self, shadows: Sequence[Shadow]) -> None:
        """Before tables of the service are altered: those that have their shadow, or a trigger of ours, in them."""
        altered = [shadow for shadow in shadows if shadow.beside is None or shadow.is_guarded]
        self.work.stop_vacuum([shadow.column.table for shadow in altered])

    def make(self) -> None:
        """Make the missing shadows in one transaction; what a former rotation has left goes in the same one."""

        def attempt() -> list[Shadow]:
            with transaction(self.link):
                self.fence.hold(self.link, strong=True)
                self.stop_vacuum([*self.shadows, *(self.way.none(self.schema, one.column) for one in self.targets)])
                made = []
                for target in self.targets:
                    shadow = find_shadow(self.link, self.schema, target.column, self.way)
                    if shadow.fact != NONE and shadow.rotation != self.id:
                        shadow.drop(self.link)
                        shadow = self.way.none(self.schema, target.column)
                    made.append(shadow if shadow.fact != NONE else shadow.create(self.link, self.id))
            return made

        known = [shadow for shadow in self.shadows if shadow.fact != NONE and shadow.rotation == self.id]
        self.shadows = retrying(self.pace, "shadows", attempt)
        self.is_changed = self.shadows != known

    def drop(self, chosen: Sequence[bool], is_over: bool = False) -> None:
        """Drop shadows; with ``is_over`` the fence goes with them, so that a kill in between leaves both."""

        def attempt() -> None:
            with transaction(self.link):
                self.fence.hold(self.link, strong=True)
                self.stop_vacuum(self.shadows)
                for shadow, is_chosen in zip(self.shadows, chosen):
                    if is_chosen:
                        shadow.drop(self.link)
                if is_over:
                    forget_parts(self.link, self.schema, self._params["name"])
                    self.fence.finish(self.link, self.fence.turned_back)

        if is_over or any(chosen):
            retrying(self.pace, "shadows", attempt)
            self.is_changed = True
            self.shadows = [
                self.way.none(self.schema, shadow.column) if is_chosen else shadow
                for shadow, is_chosen in zip(self.shadows, chosen)
            ]


def is_settled(shadow: Shadow, covered: Covered) -> bool:
    """Whether a former rotation's shadow is of no more use: its new key, our old one, covers all."""
    rows = covered.counts.rows
    return shadow.fact == PREV and rows[OLD] + rows[NULL] + rows[PLAINTEXT] == covered.counts.total


def leftover(shadow: Shadow) -> KeyturnError:
    """The refusal of what another rotation has left."""
    return KeyturnError(
        "leftover-shadow",
        f"rotation {shadow.rotation} has left rows under another key ({shadow.fact}, by {shadow.way})",
        where=str(shadow.column),
        hint="Finish that rotation or roll it back (reencrypt with its rotation_id), then begin this one",
    )
