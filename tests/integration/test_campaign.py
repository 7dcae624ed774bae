# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Forty kills, ten of whole runs and thirty of single phases, half of them finished by going back; nothing may be lost.

``make campaign KILLS=1000`` runs as many as asked; both use ``tests/support/campaign.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from demo.postgres import PostgresServer

from tests.support.campaign import plan_rounds, run_campaign

_CHUNKS = 4
_ROUNDS = plan_rounds(40, seed=20261121)


@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_nothing_is_lost_when_a_run_is_killed_anywhere(
    tmp_path: Path, server: PostgresServer, jwks: list[dict[str, str]], chunk: int
) -> None:
    rounds = run_campaign(_ROUNDS[chunk::_CHUNKS], tmp_path, server, jwks, workers=1)
    kills = sum(done.kills for done in rounds)
    print(f"{len(rounds)} rounds, {kills} kills, {sum(done.zombies for done in rounds)} left zombies")
    assert not (faults := [f"{done.order}: {done.faults}\n{done.output}" for done in rounds if done.faults]), (
        "\n\n".join(faults)
    )
    assert len(rounds) == len(_ROUNDS) // _CHUNKS
    assert kills >= len(rounds), "too many runs ended before they were killed"


def test_the_kills_are_spread_over_phases_and_ways() -> None:
    kills = [kill for order in _ROUNDS for kill in order.kills]
    going_back = [kill for order in _ROUNDS if order.way == "rollback" for kill in order.kills]
    assert len(kills) >= 40
    assert len(going_back) >= 19
    for phase in ("preflight", "backup", "stage", "migrate", "promote", "restart", "verify"):
        assert phase in kills
        assert phase in going_back
    assert len([kill for order in _ROUNDS if "any" in order.kills for kill in order.kills]) >= 10
