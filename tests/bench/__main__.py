# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench``: what a rotation costs, as ratios inside one run.

Times of one machine say little; a ratio to other work done in the same minute says more. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import job
from demo.stack import HOSTS, SECRET, Stack

from tests.support.controller import Controller
from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig

_SPEC = "aes256gcm-b64"
_COUNTER = Path(__file__).resolve().parents[1] / "support" / "callbacks"


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# -- whole rotations -----------------------------------------------------------------------------------------------


def whole_rotation(folder: Path) -> None:
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
    print(
        f"whole rotation: {seconds:.1f} s, {seconds / empty:.2f} times a play of as many empty modules ({empty:.1f} s)"
    )
    print(f"gap: {gap:.0f} ms, {gap / restart:.2f} times the services' own restart ({restart:.0f} ms)", flush=True)


def _empty_play(stack: Stack, folder: Path, executions: int) -> None:
    tasks = "".join(f"    - ansible.builtin.ping:\n        data: n{number}\n" for number in range(executions))
    play = folder / "empty.yml"
    play.write_text(f"- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}")
    controller = Controller(folder / "empty-home")
    command = controller.command(stack.inventory, "rotate")
    command[command.index("keyturn.rotation.rotate")] = str(play)
    subprocess.run(command, env=controller.environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)


# -- the rows ------------------------------------------------------------------------------------------------------


class Rows:
    """A table of encrypted rows, made new for each measurement."""

    def __init__(self, server: EmbeddedPostgres, folder: Path, rows: int, width: int) -> None:
        self.server, self.folder, self.rows, self.width = server, folder, rows, width
        self.old, self.new = (base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=") for _name in "on")
        sealed = Envelope(load_spec(_SPEC), self.old).seal_many([secrets.token_bytes(width) for _row in range(rows)])
        self.cells = [cell.decode() for cell in sealed]
        self.number = 0
        self.dsn = ""

    def make(self) -> None:
        """A fresh database with the table."""
        self.number += 1
        self.dsn = self.server.create_database(f"b{self.width}_{self.number}")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE creds (id bigint PRIMARY KEY, name text, secret text)")
            with connection.cursor().copy("COPY creds FROM STDIN") as copy:
                for number, cell in enumerate(self.cells):
                    copy.write_row((number, f"n{number}", cell))
            connection.execute("VACUUM ANALYZE creds")
            connection.execute("CHECKPOINT")

    def floor(self) -> float:
        """One UPDATE without crypto that writes other bytes of the same length."""
        self.make()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return timed(lambda: connection.execute("UPDATE creds SET secret = substr(secret, 2) || left(secret, 1)"))

    def run(self, state: str) -> tuple[float, dict[str, object]]:
        """One state of the module, in this process."""
        params = Rig.arguments(
            self.dsn,
            self.folder / "state",
            state,
            rotation_id=f"bench{self.number}",
            batch_rows=1000,
            columns=[Rig.column("creds", "secret")],
            keys={"old": {"value": self.old.decode()}, "new": {"value": self.new.decode()}},
        )
        found: dict[str, object] = {}
        return timed(lambda: found.update(job.run(params, False))), found


def rows_at(server: EmbeddedPostgres, folder: Path, rows: int, width: int, repeats: int) -> None:
    """``in_place`` and ``cut_over`` against the floor, interleaved."""
    table = Rows(server, folder, rows, width)
    in_place, cut_over, prepared = [], [], []
    for _repeat in range(repeats):
        floor = table.floor()
        table.make()
        in_place.append(table.run("in_place")[0] / floor)
        table.make()
        prepared.append(table.run("prepared")[0] / floor)
        cut_over.append(table.run("cut_over")[0] / floor)
    print(
        f"{rows} rows of {width} bytes, times one plain UPDATE: in_place (scan, pass, proof) "
        f"{statistics.median(in_place):.2f}, prepared {statistics.median(prepared):.2f}, "
        f"cut_over {statistics.median(cut_over):.2f}",
        flush=True,
    )


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="200 000 rows and more repeats")
    options_given = parser.parse_args()
    rows, repeats = (200_000, 5) if options_given.long else (50_000, 3)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        whole_rotation(folder)
        with EmbeddedPostgres() as server:
            for width in (200, 2000):
                rows_at(server, folder, rows, width, repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
