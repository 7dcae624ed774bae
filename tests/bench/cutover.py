# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.cutover --rounds 100``: cut-overs under kill, freeze and traffic, as many as asked."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.cutover_campaign import WAYS, Report, run_round
from tests.support.postgres import EmbeddedPostgres


def _summary(reports: list[Report]) -> str:
    counts = {name: sum(report.counts.get(name, 0) for report in reports) for name in reports[0].counts}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    kills, freezes = sum(report.kills for report in reports), sum(report.freezes for report in reports)
    back = sum(report.final == "old" for report in reports)
    held = max(report.held_ms for report in reports)
    return f"{len(reports)} rounds ({back} back), {kills} kills, {freezes} freezes, held {held:.1f} ms at most; {told}"


def main() -> int:
    """Run the rounds, a line for each; 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--way", choices=sorted({way for way, _quiesce in WAYS}))
    parser.add_argument("--quiesce", choices=sorted({quiesce for _way, quiesce in WAYS}))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chosen = [pair for pair in WAYS if options.way in (None, pair[0]) and options.quiesce in (None, pair[1])]
    reports: list[Report] = []
    with tempfile.TemporaryDirectory(prefix="cutover-") as name, EmbeddedPostgres() as server:
        for number in range(options.rounds):
            way, quiesce = chosen[number % len(chosen)]
            with server.database("campaign") as dsn:
                report = run_round(dsn, Path(name) / str(number), way, quiesce, options.seed + number)
            reports.append(report)
            state = f"FAULTS {report.faults}" if report.faults else "nothing lost"
            print(
                f"round {number:4}  {way:7}  {quiesce:6}  {report.kills} kill  {report.freezes} frozen  "
                f"ends {report.final}  {state}",
                flush=True,
            )
    for way, quiesce in chosen:
        own = [report for report in reports if (report.way, report.quiesce) == (way, quiesce)]
        if own:
            print(f"{way}, {quiesce}: {_summary(own)}")
    return 1 if any(report.faults for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
