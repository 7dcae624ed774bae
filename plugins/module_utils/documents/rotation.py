# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of ``jws_resign``. Where a rotation stands is read from rows, fence and what is kept, each time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, cast

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.coverage import (
    Counted,
    check_first,
    count,
    demand,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.declared import Documents, find_documents
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.judge import Judge
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.kept import Kept, find_kept
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.ring import KeyTable, Ring
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.rows import DocumentRows, DocumentSource
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.turns import Turns
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.writes import Writer
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.published import fetch_published
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    explained,
    transaction,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import (
    BACK,
    FORWARD,
    SAME,
    Fence,
    ensure_schema,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import Database, rotation_of
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, Patience, dwindling, retrying
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import Pages, page_ranges
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rows import Rows
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import Throttle, control_path
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.work import Later, Outcome, Work
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.values import resolve

try:
    import psycopg
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["Rotation", "reach"]

_BACK_ROWS = 250  # of one transaction on the way back


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Rotation:
    """What the states of one call share."""

    def __init__(
        self, session: Session, params: dict[str, Any], check_mode: bool, database: Database, crew: Crew
    ) -> None:
        self.id = rotation_of(session)
        self.state: str = params["state"]
        self.forward_only = self.state == "replaced"
        self.check_mode = check_mode
        self.link: Link = crew.first
        self.schema: str = params["schema"]
        self.turns = Turns(params["turns"])
        need = ("SELECT",) if check_mode else ("SELECT", "UPDATE")
        self.tables = find_documents(self.link, params["documents"], self.turns, self.id, need)
        self.ring = self._ring(session, params, database)
        progress_path = None if check_mode else params["progress_path"]
        self.pace = Pace(self.state, max_wait_s=params["max_wait_s"], progress_path=progress_path)
        # Not the name alone: the keys themselves turn in this database under it, with a fence of their own
        self.fence = Fence(self.schema, f"{params['name']}/documents", self.id, session.epoch)
        self.work = Work(
            crew=crew,
            fence=self.fence,
            pace=self.pace,
            throttle=Throttle(
                rate=params["rate"],
                workers=crew.workers,
                max_lag=params["max_lag"],
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
        self.has_fence = self.fence.read(self.link)
        self.kept: list[Kept] = []
        self.counted: list[Counted] = []
        self.before: list[Counted] = []
        self.is_changed = False
        self.restored = 0
        self.read_kept()

    def _ring(self, session: Session, params: dict[str, Any], database: Database) -> Ring:
        given = {version: key for version, key in (("new", database.new), ("old", database.old)) if key is not None}
        entry, key_table = params.get("key_table"), None
        if entry is not None:
            name, under = params["name"], entry.get("under")
            context = f"{session.rotation_id}/{under}/old" if under else f"{session.rotation_id}/{name}/key"
            key = resolve(session, entry["key"], context) if entry.get("key") else None
            key_table = KeyTable(self.link, entry, key)
        published = fetch_published(params["jwks"]) if params.get("jwks") else None
        return Ring(self.turns, given, key_table, published)

    # -- facts ---------------------------------------------------------------------------------------------------

    def read_kept(self) -> None:
        """Read what is kept of former signatures.

        :raises KeyturnError: ``leftover-signatures`` for what another rotation has kept.
        """
        self.kept = [find_kept(self.link, self.schema, one) for one in self.tables]
        for kept in self.kept:
            if kept.rotation not in ("", self.id) and not self.forward_only:
                raise KeyturnError(
                    "leftover-signatures",
                    f"rotation {kept.rotation} has kept former signatures",
                    where=kept.one.place,
                    hint="Finish it or roll it back, and clean it up, with its rotation_id",
                )

    def judge(self, one: Documents, back: bool) -> Judge:
        """For one table."""
        return Judge(one, self.turns, self.ring, self.id, back)

    def count(self, back: bool) -> None:
        """Count all tables."""
        judged = [(one, self.judge(one, back)) for one in self.tables]
        self.counted = count(self.work.crew, judged, self.pace, self.work.size(), _now())
        self.before = self.before or self.counted
        self.work.totals = {one.one.place: one.meant for one in self.counted}

    def is_complete(self, back: bool) -> bool:
        """Whether no row is left to sign."""
        return not any(one.behind(back) for one in self.counted)

    # -- moves ---------------------------------------------------------------------------------------------------

    def take(self, direction: str) -> None:
        """Become the only writer, and read again what is kept."""
        ensure_schema(self.link, self.schema, self.pace)
        self.fence.take(self.link, direction, self.pace, in_place=True, seize=self.forward_only)
        self.fence.end_former(self.link)
        self.read_kept()

    def turn_back(self) -> bool:
        """Become the only writer on the way back, also where nothing was begun: it must not begin any more.

        False where nothing was begun and nobody can: no rights, or another rotation has the fence.
        """
        try:
            self.take(BACK)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
            if self.has_fence:
                raise
            return False
        except KeyturnError as error:
            if self.has_fence or error.code != "fenced":
                raise
            return False
        return True

    def make(self) -> None:
        """Make what is missing to keep former values."""

        def attempt() -> list[Kept]:
            with transaction(self.link):
                self.fence.hold(self.link, strong=True)
                return [kept if kept.rotation else kept.create(self.link, self.id) for kept in self.kept]

        self.kept = retrying(self.pace, "former signatures", attempt)

    def sign_all(self, back: bool) -> None:
        """Passes over all tables until the coverage is complete.

        :raises KeyturnError: ``rows-behind`` and what :func:`demand` finds.
        """

        def left() -> int:
            for one, kept in zip(self.tables, self.kept):
                self._pass(one, None if back or self.forward_only else kept, back)
            self.work.barrier([one.table for one in self.tables])
            self.count(back)
            return sum(one.behind(back) for one in self.counted)

        dwindling(self.pace, "rows that others keep writing", left)
        demand(self.counted, back)

    def _pass(self, one: Documents, kept: Kept | None, back: bool) -> None:
        judge, writer = self.judge(one, back), Writer(one, kept, self.fence, self.id)

        def batch(link: Link, rows: Rows) -> Later:
            def sign_and_write() -> Outcome:  # in one: keys of tenants are read with the same connection
                documents: DocumentRows = cast("Any", rows)
                signed = judge.sign(link, documents, _now())
                return writer.write(link, documents, signed) if signed.places else Outcome(len(rows))

            return sign_and_write

        self.work.run(one, DocumentSource(one), batch)

    def restore_all(self) -> None:
        """Bring back what rows had, wherever nobody has changed them since."""
        patience: Patience | None = None
        while True:
            for kept in self.kept:
                if kept.rotation:
                    self._restore(kept)
            left = sum(kept.remaining(self.link) for kept in self.kept if kept.rotation)
            if not left:
                return
            patience = patience or self.pace.patience("rows that others hold")
            patience.pause()

    def _restore(self, kept: Kept) -> None:
        self.pace.begin(str(kept.one.table), kept.one.column.name, 0)

        def part(link: Link, pages: Pages) -> int:
            with explained(kept.one.place):
                done = retrying(self.pace, kept.one.place, partial(self._restore_pages, link, kept, pages))
                self.work.throttle.hold(link, done)
            return done

        for done in self.work.crew.each(part, page_ranges(self.link, kept.table, _BACK_ROWS)):
            self.restored += done
            self.pace.did(done)

    def _restore_pages(self, link: Link, kept: Kept, pages: Pages) -> int:
        with transaction(link):
            self.fence.hold(link)
            return kept.restore(link, pages)

    def finish(self) -> None:
        """Drop what is kept; the rotation is over in the same moment."""

        def attempt() -> None:
            with transaction(self.link):
                self.fence.hold(self.link, strong=True)
                for kept in self.kept:
                    if kept.rotation:
                        kept.drop(self.link)
                self.fence.finish(self.link)

        retrying(self.pace, "former signatures", attempt)
        self.has_fence = False


# -- states --------------------------------------------------------------------------------------------------------


def reach(rotation: Rotation) -> dict[str, Any]:
    """Reach the state that is asked for; the result of the module."""
    _STATES[rotation.state](rotation)
    work = rotation.work
    coverage = _coverage(rotation.counted)
    return {
        "changed": rotation.is_changed or work.written + rotation.restored > 0,
        "coverage": coverage,
        "rows_written": work.written,
        "rows_restored": rotation.restored,
        "rows_raced": work.raced,
        "diff": {"before": {"coverage": _coverage(rotation.before)}, "after": {"coverage": coverage}},
    }


def _coverage(counted: Sequence[Counted]) -> list[dict[str, Any]]:
    return [one.as_result() for one in counted]


def _resigned(rotation: Rotation) -> None:
    rotation.ring.check_published(back=False)
    for turn in rotation.turns:
        rotation.ring.signer(rotation.link, turn, back=False)  # each key is there, and the one that is published
    rotation.count(back=False)
    check_first(rotation.counted)
    if rotation.check_mode:
        rotation.is_changed = not rotation.is_complete(back=False)
        return
    rotation.take(FORWARD)
    if not rotation.is_complete(back=False):
        rotation.make()
        rotation.sign_all(back=False)
    rotation.fence.close(rotation.link)


def _replaced(rotation: Rotation) -> None:
    """Sign, and forget what rows had: signatures of a key that is not trusted must not come back."""
    rotation.ring.check_published(back=False)
    for turn in rotation.turns:
        rotation.ring.signer(rotation.link, turn, back=False)
    rotation.count(back=False)
    check_first(rotation.counted)
    is_left = any(kept.rotation for kept in rotation.kept)
    if rotation.check_mode or (rotation.is_complete(back=False) and not is_left and not rotation.has_fence):
        rotation.is_changed = rotation.check_mode and (not rotation.is_complete(back=False) or is_left)
        return
    rotation.take(FORWARD)
    rotation.is_changed = True
    if not rotation.is_complete(back=False):
        rotation.sign_all(back=False)
    rotation.finish()


def _proved(rotation: Rotation) -> None:
    back = rotation.has_fence and rotation.fence.turned_back
    rotation.count(back)
    demand(rotation.counted, back)


def _rolled_back(rotation: Rotation) -> None:
    if rotation.fence.is_over:
        return
    is_turn = rotation.has_fence and not rotation.fence.turned_back
    if rotation.check_mode:
        rotation.count(back=True)
        rotation.is_changed = is_turn or not rotation.is_complete(back=True)
        return
    if not rotation.turn_back():
        return
    rotation.restore_all()
    # Also where nothing was begun: the service may have signed with the new key already
    rotation.count(back=True)
    if not rotation.is_complete(back=True):
        if rotation.ring.can_sign(back=True):
            rotation.ring.check_published(back=True)
            rotation.sign_all(back=True)
        demand(rotation.counted, back=True)
    if not any(kept.rotation for kept in rotation.kept):
        rotation.fence.close(rotation.link)
    rotation.is_changed = is_turn


def _cleaned(rotation: Rotation) -> None:
    if not rotation.has_fence:
        rotation.count(back=False)
        return
    if not rotation.check_mode:
        rotation.take(SAME)
    back = rotation.fence.turned_back
    rotation.count(back)
    demand(rotation.counted, back)
    rotation.is_changed = True
    if not rotation.check_mode:
        rotation.finish()


_STATES: dict[str, Callable[[Rotation], None]] = {
    "resigned": _resigned,
    "proved": _proved,
    "rolled_back": _rolled_back,
    "cleaned": _cleaned,
    "replaced": _replaced,
}
