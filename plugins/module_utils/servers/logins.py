# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins as proof: what a server says to a password, and what that is worth.

A refusal counts only if the other version is accepted right after it: a server that is down refuses everybody. An
acceptance counts only if the server asked for the password: one that trusts everybody proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["ACCEPTED", "REFUSED", "UNCHECKED", "UNREACHABLE", "Answer", "Ask", "Side", "held", "prove", "rows"]

ACCEPTED, REFUSED, UNCHECKED, UNREACHABLE = "accepted", "refused", "unchecked", "unreachable"


@dataclass(frozen=True)
class Answer:
    """What a server said to one login.

    :param said: ``accepted``, ``refused`` (the password is wrong), ``unchecked`` (it let us in without checking it), or
        ``unreachable`` (anything else: nothing is known about the password).
    :param detail: short, in our words; holds nothing that was sent.
    """

    said: str
    detail: str


#: Logs in once with a password.
Ask = Callable[[bytes], Answer]


@dataclass(frozen=True)
class Side:
    """A version of a password: ``new`` or ``old``."""

    version: str
    value: bytes


def held(ask: Ask, sides: Mapping[str, bytes], where: str) -> list[str]:
    """The versions that the server accepts now.

    :raises KeyturnError: ``login-unchecked``, ``server-unreachable``.
    """
    found = []
    for version, value in sides.items():
        answer = ask(value)
        _refuse_worthless(answer, where)
        if answer.said == ACCEPTED:
            found.append(version)
    return found


def _refuse_worthless(answer: Answer, where: str) -> None:
    if answer.said == UNCHECKED:
        raise KeyturnError(
            "login-unchecked",
            f"the server lets this login in whatever its password is ({answer.detail}), so no check proves anything",
            where=where,
            hint="Make it ask for the password on this address, or name an address where it does",
        )
    if answer.said == UNREACHABLE:
        raise KeyturnError(
            "server-unreachable",
            f"no login could be tried: {answer.detail}",
            where=where,
            hint="Check the address and the server; a server that does not answer refuses nothing",
        )


def prove(ask: Ask, good: Side, bad: Side | None, where: str) -> None:
    """Show that one version is accepted and, in the same breath, that the other is refused.

    :param bad: None where both are valid, or where there is no other.
    :raises KeyturnError: ``login-still-accepted``, ``login-refused``, and those of :func:`held`.
    """
    if bad is not None and bad.value != good.value:
        answer = ask(bad.value)
        _refuse_worthless(answer, where)
        if answer.said == ACCEPTED:
            raise KeyturnError(
                "login-still-accepted",
                f"the {bad.version} password is still accepted",
                where=where,
                hint="See how the server checks logins on this address",
            )
    answer = ask(good.value)
    _refuse_worthless(answer, where)
    if answer.said != ACCEPTED:
        raise KeyturnError(
            "login-refused",
            f"the {good.version} password is refused",
            where=where,
            hint="See who else changes this login, and whether the server checks it itself",
        )


def rows(accepted: Side | None, refused: Side | None, also_accepted: Side | None = None) -> list[dict[str, Any]]:
    """What was shown, for reports: ``version``, ``expected``, ``result``."""
    sides = ((accepted, ACCEPTED), (also_accepted, ACCEPTED), (refused, REFUSED))
    return [{"version": side.version, "expected": said, "result": said} for side, said in sides if side is not None]
