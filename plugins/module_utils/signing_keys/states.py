# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of ``signing_key``: what each does, from wherever the table stands. Each can be called again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import BACK, FORWARD, SAME, ensure_schema
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.records import (
    DISABLED,
    GONE,
    PROMOTED,
    STAGED,
    WITHDRAWN,
    Record,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.turn import Turn

__all__ = ["STATES", "reach"]

#: Tenants whose kids are asked for, and promoted or disabled, at once.
_PAGE, _BATCH = 2000, 200
#: Keys of one transaction: few where one takes long to make, so that a killed call loses little.
_SLOW_KEYS, _QUICK_KEYS = 8, 100


def reach(turn: Turn, state: str, check_mode: bool, schema: str, overlap_s: int | None) -> bool:
    """Bring the table to a state; whether anything changed, or would.

    :param overlap_s: how long keys must have been promoted before the former ones are disabled; None to skip it.
    :raises KeyturnError: those of ``turn`` and ``fence``; ``signing-not-staged``, ``signing-not-promoted``,
        ``signing-too-early``, ``signing-forward-only``, ``signing-disabled``.
    """
    counts = turn.records.counts(turn.link)
    if state != "rolled_back" and _is_over(turn, counts) and not _is_undone(turn):
        return False
    _REFUSALS.get(state, _permitted)(turn, counts, overlap_s)
    pending = _PENDING[state](turn, counts)
    if state in ("staged", "replaced") and not counts:
        turn.check_sound()
    if check_mode or not pending:
        return pending
    if state in ("staged", "replaced"):
        ensure_schema(turn.link, schema, turn.pace)
        turn.records.ensure(turn.link, turn.pace)
    _WORK[state](turn)
    return True


# -- what is still to be done --------------------------------------------------------------------------------------


def _is_over(turn: Turn, counts: Mapping[str, int]) -> bool:
    return bool(counts) and set(counts) <= {DISABLED, GONE} and not _has_fence(turn)


def _is_undone(turn: Turn) -> bool:
    """Whether an emergency that is over has more to do, unless another rotation came after it.

    A key was brought back since, or only now all others are to be disabled.
    """
    if not (turn.forward_only and turn.fence.is_over):
        return False
    if turn.disable_which == "all" and turn.records.has_others(turn.link, turn.rows.usable):
        return True
    return bool(turn.records.astray(turn.link, turn.rows.current, True, 1))


def _has_fence(turn: Turn) -> bool:
    return turn.fence.read(turn.link)


def _untouched(turn: Turn, _counts: Mapping[str, int]) -> bool:
    return bool(turn.records.untouched(turn.link, turn.rows.tenants, 1, turn.tenants))


def _at(*stages: str) -> Callable[[Turn, Mapping[str, int]], bool]:
    return lambda _turn, counts: any(counts.get(stage) for stage in stages)


def _to_replace(turn: Turn, counts: Mapping[str, int]) -> bool:
    return _untouched(turn, counts) or _has_fence(turn) or _is_over(turn, counts)  # asked only if it is undone


_PENDING: dict[str, Callable[[Turn, Mapping[str, int]], bool]] = {
    "staged": _untouched,
    "promoted": _at(STAGED),
    "disabled": lambda turn, _counts: _has_fence(turn),
    "replaced": _to_replace,
    "rolled_back": lambda turn, _counts: _has_fence(turn),
}


# -- what must not be done -----------------------------------------------------------------------------------------


def _permitted(_turn: Turn, _counts: Mapping[str, int], _overlap_s: int | None) -> None:
    return None


def _refuse_unstaged(turn: Turn, counts: Mapping[str, int], _overlap_s: int | None) -> None:
    if not counts:
        hint = "Run state staged first"
        raise KeyturnError("signing-not-staged", "this rotation has made no key", where=turn.where, hint=hint)


def _refuse_early(turn: Turn, counts: Mapping[str, int], overlap_s: int | None) -> None:
    _refuse_unstaged(turn, counts, overlap_s)
    if counts.get(STAGED) or not (counts.get(PROMOTED) or counts.get(DISABLED)):
        hint = "Run state promoted first"
        raise KeyturnError("signing-not-promoted", "new keys do not sign yet", where=turn.where, hint=hint)
    age = turn.records.age_s(turn.link)
    if overlap_s is not None and counts.get(PROMOTED) and (age is None or age < overlap_s):
        message = f"the new keys sign for {int(age or 0)} s, the overlap is {overlap_s} s"
        hint = "Wait: tokens of the former keys must still be accepted, and caches must have seen the new ones"
        raise KeyturnError("signing-too-early", message, where=turn.where, hint=hint)


def _refuse_return(turn: Turn, counts: Mapping[str, int], _overlap_s: int | None) -> None:
    if turn.records.is_forward_only(turn.link):
        message = "this rotation goes forward only: the former keys are not trusted any more"
        hint = "Run state replaced again until it is done, or replace the keys once more"
        raise KeyturnError("signing-forward-only", message, where=turn.where, hint=hint)
    if counts.get(DISABLED):
        hint = "Go forward with a new rotation"
        raise KeyturnError("signing-disabled", "former keys are disabled already", where=turn.where, hint=hint)


_REFUSALS: dict[str, Callable[[Turn, Mapping[str, int], int | None], None]] = {
    "promoted": _refuse_unstaged,
    "disabled": _refuse_early,
    "rolled_back": _refuse_return,
}


# -- the work ------------------------------------------------------------------------------------------------------


def _staged(turn: Turn) -> None:
    turn.fence.take(turn.link, FORWARD, turn.pace, seize=turn.forward_only)
    if not turn.records.counts(turn.link):  # later, what this rotation has ended itself is still needed
        turn.records.begin(turn.link)
    if turn.forward_only:
        turn.records.make_forward_only(turn.link)
        _in_batches(turn, (STAGED, PROMOTED, DISABLED, GONE), turn.forget_lost)
    most = _SLOW_KEYS if turn.generate["type"] == "rsa" else _QUICK_KEYS
    while True:
        page = turn.records.untouched(turn.link, turn.rows.tenants, _PAGE, turn.tenants)
        if not page:
            return
        size = min(most, -(-len(page) // turn.crew.workers))
        parts = [page[first : first + size] for first in range(0, len(page), size)]
        for made in turn.crew.each(turn.make, parts):
            turn.done.made += made


def _in_batches(turn: Turn, stages: Sequence[str], work: Callable[[Link, Sequence[Record]], None]) -> None:
    for batch in turn.records.pages(turn.link, stages, _BATCH):
        work(turn.link, batch)


def _promoted(turn: Turn) -> None:
    turn.fence.take(turn.link, FORWARD, turn.pace, seize=turn.forward_only)
    _in_batches(turn, (STAGED, PROMOTED, DISABLED) if turn.forward_only else (STAGED,), turn.promote)
    if not turn.forward_only:
        turn.fence.close(turn.link)


def _disabled(turn: Turn) -> None:
    turn.fence.take(turn.link, SAME, turn.pace, seize=turn.forward_only)
    _in_batches(turn, (PROMOTED, DISABLED) if turn.forward_only else (PROMOTED,), turn.disable)
    turn.refuse_astray()
    turn.fence.finish(turn.link)


def _replaced(turn: Turn) -> None:
    """All three at once, without the overlap; a call that was killed is finished by the same call."""
    _staged(turn)
    _promoted(turn)
    _disabled(turn)


def _rolled_back(turn: Turn) -> None:
    turn.fence.take(turn.link, BACK, turn.pace)
    if turn.records.exists(turn.link):
        _in_batches(turn, (STAGED, PROMOTED, WITHDRAWN), turn.go_back)
    turn.fence.finish(turn.link)


_WORK: dict[str, Callable[[Turn], None]] = {
    "staged": _staged,
    "promoted": _promoted,
    "disabled": _disabled,
    "replaced": _replaced,
    "rolled_back": _rolled_back,
}
#: By name, in the order in which a rotation goes through them.
STATES = tuple(_WORK)
