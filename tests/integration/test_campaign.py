# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten kills of the whole run and thirty of single phases, half of them finished by going back; nothing may be lost.

``make campaign KILLS=1000`` runs as many as asked; both use ``tests/support/campaign.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from demo.postgres import PostgresServer

from tests.support.campaign import plan_rounds, run_campaign

_CHUNKS = 8
_ROUNDS = plan_rounds(whole=10, phases=30, seed=20261121)


@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_nothing_is_lost_when_a_run_is_killed_anywhere(
    tmp_path: Path, server: PostgresServer, jwks: list[dict[str, str]], chunk: int
) -> None:
    rounds = run_campaign(_ROUNDS[chunk::_CHUNKS], tmp_path, server, jwks, workers=1)
    faults = [f"round {r.number} ({r.phase}, {r.way}): {r.faults}\n{r.output}" for r in rounds if r.faults]
    print(f"{len(rounds)} rounds, {sum(r.kills for r in rounds)} kills, {sum(r.zombies for r in rounds)} left zombies")
    assert not faults, "\n\n".join(faults)
    assert len(rounds) == len(_ROUNDS) // _CHUNKS
    assert sum(r.kills for r in rounds) >= len(rounds) - 1, "too many runs ended before they were killed"


def test_the_rounds_are_spread_over_phases_and_ways() -> None:
    assert len(_ROUNDS) == 40
    assert [order.way for order in _ROUNDS].count("rollback") >= 15
    assert all(
        any(order.phase == phase for order in _ROUNDS) for phase in ("any", "stage", "migrate", "promote", "verify")
    )
