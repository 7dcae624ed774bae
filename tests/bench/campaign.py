# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.campaign --kills 1000``: the crash campaign of the tests, as long as asked."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from demo.postgres import PostgresServer
from demo.schema import generate_jwks

from tests.support.campaign import Round, plan_rounds, run_campaign
from tests.support.controller import COMPILED


def main() -> int:
    """Run the campaign, one line for each round, and return 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    os.environ["KEYTURN_COMPILED"] = COMPILED  # as in the tests: the times to a kill are those of such runs

    def tell(done: Round) -> None:
        state = "; ".join(done.faults) or "nothing lost"
        print(f"{done.order}: {done.kills} kills, {state}", flush=True)

    orders = plan_rounds(options.kills, seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        server = PostgresServer.create(Path(name) / "server", settings={"max_connections": "200"})
        server.start()
        try:
            rounds = run_campaign(orders, Path(name), server, generate_jwks(3), workers=options.workers, tell=tell)
        finally:
            server.remove()
    bad = [done for done in rounds if done.faults]
    kills = sum(done.kills for done in rounds)
    zombies = sum(done.zombies for done in rounds)
    print(f"{len(rounds)} rounds, {kills} kills, {zombies} zombies, {len(bad)} rounds with faults")
    for done in bad:
        print(f"\n{done.order}: {done.faults}\n{done.output}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
