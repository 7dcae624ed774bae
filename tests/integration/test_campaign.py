# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten kills of the whole run and thirty of single phases, half of them finished by going back; nothing may be lost.

``make campaign KILLS=1000`` runs as many as asked; both use ``tests/support/campaign.py``.
"""

from __future__ import annotations

from pathlib import Path

from demo.postgres import PostgresServer

from tests.support.campaign import plan_rounds, run_campaign


def test_nothing_is_lost_when_a_run_is_killed_anywhere(
    tmp_path: Path, server: PostgresServer, jwks: list[dict[str, str]]
) -> None:
    rounds = run_campaign(plan_rounds(whole=10, phases=30, seed=20261121), tmp_path, server, jwks, workers=2)
    faults = [f"round {r.number} ({r.phase}, {r.way}): {r.faults}\n{r.output}" for r in rounds if r.faults]
    print(f"{len(rounds)} rounds, {sum(r.kills for r in rounds)} kills, {sum(r.zombies for r in rounds)} left zombies")
    assert not faults, "\n\n".join(faults)
    assert sum(r.kills for r in rounds) >= 36
    assert {r.way for r in rounds} == {"rotate", "rollback"}
