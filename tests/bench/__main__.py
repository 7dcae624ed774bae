# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench``: what a rotation and its re-encryption cost, as ratios inside one run.

Times of one machine say little; a ratio to other work done in the same minute says more. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from demo.stack import HOSTS, SECRET, Stack

from tests.bench import fleet, reencryption, resigning, signing
from tests.bench.report import Figure, Report
from tests.bench.tables import Table, timed
from tests.support.controller import Controller
from tests.support.postgres import EmbeddedPostgres

_ROOT = Path(__file__).resolve().parents[2]
_COUNTER = _ROOT / "tests/support/callbacks"
_PICTURE = _ROOT / "docs/performance.svg"


def whole_rotation(report: Report, folder: Path) -> None:
    """A rotation of a small table against a play of as many empty modules on the same hosts; the gap a client sees."""
    with Stack(folder / "stack", rows=200, tokens=10) as stack:
        log = folder / "executions"
        counting = {
            "ANSIBLE_CALLBACK_PLUGINS": str(_COUNTER),
            "ANSIBLE_CALLBACKS_ENABLED": "count_executions",
            "KEYTURN_EXECUTIONS": str(log),
        }
        client = stack.client(rate=100, workers=2, failover=False)
        controller = Controller(folder / "home", counting)
        seconds = timed(lambda: controller.run(stack.inventory, "rotate", only=SECRET))
        gap = client.stop().summary["longest_gap_ms"]
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        counts = {host: sum(row["host"] == host for row in rows) for host in HOSTS}
        empty = timed(lambda: _empty_play(stack, folder, max(counts.values())))
        client = stack.client(rate=100, workers=2, failover=False, model=stack.folder / "client.json")
        stack.restart_services()
        restart = client.stop().summary["longest_gap_ms"]
    print(f"module executions per host: {counts}")
    report.add(Figure("whole_rotation", seconds / empty, f"as many empty modules, {empty:.1f} s", 1))
    report.add(Figure("gap", gap / restart, f"the services' own restart, {restart:.0f} ms", 1))


def _empty_play(stack: Stack, folder: Path, executions: int) -> None:
    tasks = "".join(f"    - ansible.builtin.ping:\n        data: n{number}\n" for number in range(executions))
    play = folder / "empty.yml"
    play.write_text(f"- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}")
    controller = Controller(folder / "empty-home")
    command = controller.command(stack.inventory, "rotate")
    command[command.index("keyturn.rotation.rotate")] = str(play)
    subprocess.run(command, env=controller.environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="also a million rows, and ten million for the memory")
    parser.add_argument(
        "--only",
        help="one part: rotation, secrets, hosts, in_place, shadows, live, processors, signing, resign, peers, picture",
    )
    parser.add_argument("--documents", type=int, default=100_000, help="how many documents are signed again")
    options = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, EmbeddedPostgres() as server:
        folder = Path(name)
        narrow = Table(server, folder, 200_000, 200)
        parts = {
            "rotation": lambda: whole_rotation(report, folder),
            "secrets": lambda: fleet.many_secrets(report, folder),
            "hosts": lambda: fleet.hosts(report, folder),
            "in_place": lambda: _in_place(report, server, folder, narrow),
            "shadows": lambda: reencryption.shadows(report, narrow, 3),
            "live": lambda: reencryption.live(report, narrow),
            "processors": lambda: _processors(report, server, folder, narrow),
            "signing": lambda: signing.tenant_keys(report, server, folder),
            "resign": lambda: resigning.resign(report, server, folder, options.documents, 3),
            "peers": lambda: reencryption.peers(report, server, folder, 50_000),
            "picture": lambda: reencryption.picture(server, folder, [10_000, 100_000, 400_000], _PICTURE),
        }
        for part, measure in parts.items():
            if options.only in (None, part):
                measure()
        if options.long:
            million = Table(server, folder, 1_000_000, 200)
            reencryption.in_place(report, million, 3)
            reencryption.shadows(report, million, 3)
            reencryption.in_place(report, Table(server, folder, 10_000_000, 200), 1)
    print(f"\n{report.table()}")
    return 0


def _in_place(report: Report, server: EmbeddedPostgres, folder: Path, narrow: Table) -> None:
    reencryption.in_place(report, narrow, 5)
    reencryption.in_place(report, Table(server, folder, 200_000, 2_000), 3)


def _processors(report: Report, server: EmbeddedPostgres, folder: Path, narrow: Table) -> None:
    reencryption.one_processor(report, narrow, 5)
    reencryption.processors(report, server, folder)
    reencryption.fernet(report)


if __name__ == "__main__":
    sys.exit(main())
