# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of ``reencrypt``: each one is reached from wherever a rotation stands, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.clear import clear, has_index, make_index
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.coverage import Covered, check_first
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import BACK, FORWARD, SAME
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.helping import help_out
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.inplace import re_encrypt
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.large_objects import (
    lock_mode,
    tables_of,
    wait_for_writers,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import dwindling
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rotation import Rotation, is_settled, leftover
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadows import NEXT, NONE, PREV
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import Table
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.wipe import check_may_sanitize, sanitize

__all__ = ["reach"]

#: What a state adds to the result.
Told = dict[str, Any]


def reach(rotation: Rotation) -> dict[str, Any]:
    """Reach the state that is asked for; the result of the module."""
    first_facts = rotation.facts()
    share = rotation.work.share
    if share is not None and share.is_lead:
        share.announce(rotation.link)
    make = help_out if rotation.is_helper else _STATES[rotation.state]
    told = {"cleared": [], "indexes": [], "sanitized": [], **make(rotation)}
    work, facts, coverage = rotation.work, rotation.facts(), _coverage(rotation.covered)
    return {
        "changed": rotation.is_changed or work.written > 0,
        "coverage": coverage,
        "facts": facts,
        "held_ms": round(work.held_ms, 1),
        "waited_ms": round(work.waited_ms, 1),
        "rows_written": work.written,
        "rows_raced": work.raced,
        "shared": share.helped if share is not None else [],
        "steps": {name: round(seconds, 3) for name, seconds in rotation.steps.items()},
        "diff": {
            "before": {"facts": first_facts, "coverage": _coverage(rotation.before)},
            "after": {"facts": facts, "coverage": coverage},
        },
        **told,
    }


def _coverage(covered: Sequence[Covered]) -> list[dict[str, Any]]:
    return [one.counts.as_result(one.target.column) for one in covered]


# -- in place --------------------------------------------------------------------------------------------------------


def _in_place(rotation: Rotation) -> Told:
    for shadow in rotation.shadows:
        if shadow.fact != NONE:
            raise leftover(shadow)
    with rotation.timed("scan"):
        rotation.cover()
    check_first(rotation.covered)
    rotation.check_rights()
    if rotation.check_mode:
        rotation.is_changed = any(one.behind_new for one in rotation.covered)
        return {}
    rotation.take(FORWARD, in_place=True)
    _pass_until_done(rotation, back=False)
    rotation.fence.close(rotation.link)
    return {}


def _pass_until_done(rotation: Rotation, back: bool) -> None:
    """Passes in place until the coverage is complete."""

    def once() -> None:
        with rotation.timed("pass"):
            for target in rotation.targets:
                re_encrypt(rotation.work, target, back)

    _until_complete(rotation, back, once)


def _until_complete(rotation: Rotation, back: bool, once: Callable[[], None]) -> None:
    """Again until the coverage is complete.

    A row that the service changes moves, perhaps to where a pass has been already: large tables need a second one.
    """

    def left() -> int:
        once()
        with rotation.timed("proof"):
            rotation.cover()
        return rotation.left(back)

    dwindling(rotation.pace, "rows that others keep writing", left)
    rotation.demand(back)


# -- cut-over --------------------------------------------------------------------------------------------------------


def _prepared(rotation: Rotation) -> Told:
    found = rotation.shadows
    mine = [
        shadow if shadow.rotation == rotation.id else rotation.way.none(rotation.schema, shadow.column)
        for shadow in found
    ]
    with rotation.timed("scan"):
        rotation.cover(mine)
    check_first(rotation.covered)
    for shadow, one in zip(found, rotation.covered):
        if shadow.fact != NONE and shadow.rotation != rotation.id and not is_settled(shadow, one):
            raise leftover(shadow)
    choice = rotation.choose_way(mine)
    told = {"choice": choice.as_result()}
    if mine and all(shadow.fact == PREV for shadow in mine):
        return told
    if any(shadow.fact == NONE for shadow in mine):
        rotation.way.check(rotation.link, rotation.targets, rotation.covered)
    if rotation.check_mode:
        rotation.is_changed = any(shadow.fact == NONE for shadow in mine)
        return told
    rotation.take(FORWARD)
    rotation.make()
    with rotation.timed("pass"):
        _fill(rotation)
    if rotation.way.proves_fill and rotation.work.written:
        rotation.cover()
        rotation.demand_pairs()
    return told


def _fill(rotation: Rotation) -> None:
    at = [index for index, shadow in enumerate(rotation.shadows) if shadow.fact == NEXT]
    targets, shadows = [rotation.targets[index] for index in at], [rotation.shadows[index] for index in at]
    for index, shadow in zip(at, rotation.way.close(rotation.work, targets, shadows)):
        rotation.shadows[index] = shadow


def _cut_over(rotation: Rotation) -> Told:
    if rotation.all_are(PREV):
        if not rotation.check_mode and rotation.is_open:
            _hold_writes(rotation, back=False)
        return {}
    rotation.refuse_unprepared()
    rotation.is_changed = True
    if rotation.check_mode:
        return {}
    rotation.take(FORWARD)
    rotation.refuse_unprepared()
    rotation.swap(NEXT, back=False, holds=rotation.quiesce == "writes")
    _hold_writes(rotation, back=False)
    return {}


def _hold_writes(rotation: Rotation, back: bool) -> None:
    """With all writers held back, everything can be put right before a reader is restarted.

    A call that was killed may have held them back and settled nothing, so each call settles.
    """
    if rotation.can_hold_writes:
        rotation.take(BACK if back else FORWARD)
        rotation.hold_writes()
        _settle(rotation, back)


# -- sweeping --------------------------------------------------------------------------------------------------------


def _swept(rotation: Rotation) -> Told:
    if not rotation.has_fence and not rotation.lost_its_fence:
        rotation.cover()
        rotation.demand_any()
        return {}
    if rotation.check_mode:
        rotation.cover()
        pending = [entry for entry in rotation.clearings if str(entry) not in rotation.fence.cleared]
        missing = [index for index in rotation.indexes if has_index(rotation.link, index) is not True]
        rotation.is_changed = not rotation.is_complete(rotation.fence.turned_back) or bool(pending or missing)
        return {}
    rotation.take(SAME)
    back = rotation.fence.turned_back
    _refuse_unswapped(rotation, back)
    rotation.remove_orphans()
    rotation.restore_shadows(back)
    was_swapped = rotation.fence.in_place or not rotation.targets or any(s.swapped for s in rotation.shadows)
    _sweep(rotation, back)
    cleared = [clear(rotation.work, entry) for entry in rotation.clearings] if was_swapped else []
    made = [] if back else [make_index(rotation.work, index) for index in rotation.indexes]
    rotation.is_changed |= any(entry["rows"] for entry in cleared) or any(entry["created"] for entry in made)
    rotation.fence.close(rotation.link)
    return {"cleared": cleared, "indexes": made}


def _refuse_unswapped(rotation: Rotation, back: bool) -> None:
    wanted = NEXT if back else PREV
    for shadow in rotation.shadows:
        if shadow.fact not in (wanted, NONE):
            code, message, hint = (
                ("not-rolled-back", "is not swapped back yet", "Run state rolled_back first")
                if back
                else ("not-cut-over", "is prepared and not cut over", "Run state cut_over, or rolled_back")
            )
            raise KeyturnError(code, message, where=str(shadow.column), hint=hint)
    if not back and not rotation.fence.in_place and not rotation.has_turned:
        rotation.refuse_unprepared()


def _sweep(rotation: Rotation, back: bool) -> None:
    tables = [target.column.table for target in rotation.targets]
    _settle(rotation, back)
    rotation.release_writes()
    columns = [target.column for target in rotation.targets]
    rotation.work.barrier(tables, lock_mode(columns))
    wait_for_writers(rotation.work, columns)
    _until_complete(rotation, back, partial(_settle, rotation, back))
    rotation.open_gates()


def _settle(rotation: Rotation, back: bool) -> None:
    """One sweep: rows under the wrong key are put right, with their shadow or in place."""
    for index, (target, shadow) in enumerate(zip(rotation.targets, rotation.shadows)):
        if shadow.fact != NONE:
            rotation.settle(index, back)
        elif rotation.fence.in_place:
            re_encrypt(rotation.work, target, back)


# -- back and out ----------------------------------------------------------------------------------------------------


def _rolled_back(rotation: Rotation) -> Told:
    has_facts = rotation.has_fence or rotation.lost_its_fence
    if not has_facts:
        if rotation.shadows and not rotation.all_are(NONE):
            raise leftover(next(shadow for shadow in rotation.shadows if shadow.fact != NONE))
        if not _has_more_to_bring_back(rotation):
            if not rotation.check_mode:
                rotation.forbid()
            return {}
    rotation.is_changed = not rotation.fence.turned_back or any(shadow.fact == PREV for shadow in rotation.shadows)
    if rotation.check_mode:
        return {}
    rotation.take(BACK)
    rotation.remove_orphans()
    if not rotation.fence.in_place and (not has_facts or rotation.has_strays()):
        rotation.take(BACK, in_place=True)
        rotation.has_fence = True
    rotation.release_writes()
    rotation.swap(PREV, back=True, holds=rotation.quiesce == "writes" and rotation.step == "swap")
    if rotation.step == "swap" and any(shadow.swapped for shadow in rotation.shadows):
        _hold_writes(rotation, back=True)
    rotation.drop([shadow.fact == NEXT and not shadow.swapped for shadow in rotation.shadows])
    if rotation.fence.in_place:
        _pass_until_done(rotation, back=True)
    told = {"in_place": rotation.fence.in_place}
    if rotation.step == "all":
        told.update(_swept(rotation))
        _cleaned(rotation)
    return told


def _has_more_to_bring_back(rotation: Rotation) -> bool:
    """Whether a rotation without a fence left something under the new key.

    One that went back to its end may be asked again for a host that was lost meanwhile: what that has written since
    has no side table any more, and what it has filled in of the columns to be cleared cannot be told.
    """
    if not rotation.fence.is_over:
        return rotation.overlaps or rotation.has_strays()
    return rotation.fence.went_back and (bool(rotation.clearings) or rotation.has_strays())


def _cleaned(rotation: Rotation) -> Told:
    tables = tables_of(target.column for target in rotation.targets)
    if not rotation.has_fence and not rotation.lost_its_fence:
        rotation.cover()
        rotation.demand_any()
        return _sanitized(rotation, tables) if rotation.is_complete(back=False) else {}
    if not rotation.check_mode:
        try:
            rotation.take(SAME)
        except KeyturnError:
            rotation.has_fence = rotation.fence.read(rotation.link)
            if rotation.has_fence:
                raise
            rotation.read_shadows()  # a call that was killed has come to its end in this moment
            return _cleaned(rotation)
    back = rotation.fence.turned_back
    _refuse_unswapped(rotation, back)
    rotation.cover()
    rotation.demand(back)
    if rotation.must_sanitize and not back:
        check_may_sanitize(rotation.link, tables)
    rotation.is_changed = True
    if not rotation.check_mode:
        rotation.release_writes()
        rotation.drop([shadow.fact != NONE for shadow in rotation.shadows], is_over=True)
        rotation.has_fence = False
    return {} if back else _sanitized(rotation, tables)


def _sanitized(rotation: Rotation, tables: Sequence[Table]) -> Told:
    """Where that is asked for. Nothing says whether a former call has come to its end, so each one does it."""
    if not rotation.must_sanitize:
        return {}
    check_may_sanitize(rotation.link, tables)
    rotation.is_changed = True
    return {} if rotation.check_mode else {"sanitized": sanitize(rotation.work, tables)}


_STATES: dict[str, Callable[[Rotation], Told]] = {
    "in_place": _in_place,
    "prepared": _prepared,
    "cut_over": _cut_over,
    "swept": _swept,
    "rolled_back": _rolled_back,
    "cleaned": _cleaned,
}
