# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Re-encryption against the floor, interleaved: one UPDATE without crypto, by PostgreSQL itself, in the same run."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from cryptography.fernet import Fernet

from tests.bench.live import RATES, Felt, felt_while, lost_rows
from tests.bench.peers import GCM_PEERS, airflow_command, fill_superset, superset_command
from tests.bench.report import Figure, Report, draw
from tests.bench.tables import KEYS, Table, timed
from tests.support.postgres import EmbeddedPostgres

__all__ = ["at_size", "fernet", "in_place", "live", "one_processor", "peers", "picture", "processors", "shadows"]

_FLOOR = "floor"
_ON_ONE_PROCESSOR = ("taskset", "--cpu-list", "0")


def in_place(report: Report, table: Table, repeats: int) -> None:
    """The pass alone and the whole job (scan, pass, proof)."""
    passes, jobs, sizes, growth = [], [], [], []
    for _repeat in range(repeats):
        floor = table.floor()
        table.fresh()
        before = table.bytes()
        answer = table.call("in_place")
        steps = answer["result"]["steps"]
        passes.append(steps["pass"] / floor)
        jobs.append(answer["seconds"] / floor)
        sizes.append(answer["rss_mb"])
        growth.append(table.bytes() / before - 1)
    kind = "2kb" if table.width > 1000 else f"{table.width}b"
    kind += "" if table.rows <= 200_000 else f"_{table.rows}"
    memory, grown = max(sizes), statistics.median(growth)
    report.add(Figure(f"in_place_pass_{kind}", statistics.median(passes), _FLOOR, repeats, memory, grown))
    report.add(Figure(f"in_place_job_{kind}", statistics.median(jobs), _FLOOR, repeats, memory, grown))


def shadows(report: Report, table: Table, repeats: int) -> None:
    """Both ways to cut over: what the swap takes, forward and back."""
    swaps: list[float] = []
    locks: dict[str, list[float]] = {"cut_over": [], "rolled_back": []}
    for _repeat in range(repeats):
        floor = table.floor()
        table.fresh()
        table.call("prepared", cut_over="rows")
        swaps.append(table.call("cut_over", cut_over="rows")["seconds"] / floor)
        table.fresh()
        table.call("prepared", cut_over="columns")
        for state, found in locks.items():
            found.append(table.call(state, cut_over="columns")["result"]["held_ms"])
    report.add(Figure("cut_over_rows", statistics.median(swaps), _FLOOR, repeats))
    suffix = "" if table.rows <= 200_000 else f"_{table.rows}"
    for state, found in locks.items():
        name = f"{'cut_over' if state == 'cut_over' else 'roll_back'}_columns_lock_ms{suffix}"
        report.add(Figure(name, statistics.median(found), "milliseconds", repeats))


def live(report: Report, table: Table) -> None:
    """Latencies of a reader and a writer: idle, with the calm setting, and at full speed."""
    idle = felt_while(table.fresh(), table.rows, lambda: time.sleep(4))
    floor = table.floor()
    calm = {"workers": 1, "batch_rows": 200, "lock_timeout_ms": 50}
    full = {"lock_timeout_ms": 50}
    plans: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "live_calm": [("in_place", calm)],
        "live_full": [("in_place", full)],
        "live_rows": [("prepared", {**full, "cut_over": "rows"}), ("cut_over", {**full, "cut_over": "rows"})],
        "live_columns": [
            ("prepared", {**full, "cut_over": "columns"}),
            ("cut_over", {**full, "cut_over": "columns"}),
        ],
    }
    for name, calls in plans.items():
        dsn, spent = table.fresh(), list[float]()
        felt = felt_while(dsn, table.rows, partial(_run, table, calls, spent))
        report.add(Figure(name, sum(spent) / floor, _FLOOR, 1))
        for kind in RATES:
            _tell(report, f"{name}_{kind}", felt[kind], idle[kind])
        swept = table.call("in_place" if len(calls) == 1 else "swept", **calls[-1][1])["result"]["coverage"][0]
        lost = lost_rows(dsn, table.rows, felt["writer"].written) + table.rows - swept["new"]
        report.add(Figure(f"{name}_lost", lost, "rows that are gone, or have not what was written last", 1))


def _run(table: Table, calls: list[tuple[str, dict[str, Any]]], spent: list[float]) -> None:
    spent += [table.call(state, **more)["seconds"] for state, more in calls]


def _tell(report: Report, name: str, felt: Felt, idle: Felt) -> None:
    report.add(Figure(f"{name}_p50", felt.p50 / idle.p50, f"idle, {idle.p50:.2f} ms", felt.count))
    report.add(Figure(f"{name}_p99", felt.p99 / idle.p99, f"idle, {idle.p99:.2f} ms", felt.count))
    report.add(Figure(f"{name}_longest_ms", felt.longest, "milliseconds", felt.count))
    report.add(Figure(f"{name}_failed", felt.failed, "statements", felt.count))


def processors(report: Report, server: EmbeddedPostgres, folder: Path) -> None:
    """Cells whose crypto takes longer than the database: as it comes against one worker on one processor."""
    for name, envelope, rows in (("fernet", "fernet", 60_000), ("pbkdf2", "pbkdf2-aes256gcm-b64", 400)):
        table = Table(server, folder, rows, 200, envelope)
        one, all_of_them = [], []
        for _repeat in range(3):
            table.fresh()
            one.append(table.call("in_place", within=_ON_ONE_PROCESSOR, workers=1)["seconds"])
            table.fresh()
            all_of_them.append(table.call("in_place")["seconds"])
        speed_up = statistics.median(one) / statistics.median(all_of_them)
        report.add(Figure(name, speed_up, "one process on one processor: speed-up", 3))
    report.add(Figure("bare_hashing", _bare_speed_up(), "one process on one processor: what this machine can give", 3))


def one_processor(report: Report, table: Table, repeats: int) -> None:
    """The job with the server on the same processor: half of that is what two whole ones could come to."""
    passes, jobs = [], []
    for _repeat in range(repeats):
        floor = table.floor()
        table.fresh()
        with table.server.on_processor(0):
            answer = table.call("in_place", within=_ON_ONE_PROCESSOR, workers=1)
        passes.append(answer["result"]["steps"]["pass"] / floor)
        jobs.append(answer["seconds"] / floor)
    report.add(Figure("in_place_pass_one_processor", statistics.median(passes), _FLOOR, repeats))
    report.add(Figure("in_place_job_one_processor", statistics.median(jobs), _FLOOR, repeats))


def _hash() -> float:
    return timed(lambda: hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2_000_000))


def _bare_speed_up() -> float:
    """What all processors hash in the time in which one hashes one: they share caches, power and more."""
    count, ratios = len(os.sched_getaffinity(0)), []
    for _repeat in range(3):
        alone = _hash()
        with ProcessPoolExecutor(count) as pool:
            together = max(future.result() for future in [pool.submit(_hash) for _number in range(count)])
        ratios.append(count * alone / together)
    return statistics.median(ratios)


def fernet(report: Report, count: int = 20_000) -> None:
    """Decrypt, encrypt and decrypt back in one process: ours against ``cryptography.fernet`` called per row."""
    old, new = (Fernet(key) for key in KEYS)
    tokens = [old.encrypt(b"x" * 100) for _row in range(count)]
    envelopes = [Envelope(load_spec("fernet"), key.encode()) for key in KEYS]

    def theirs() -> None:
        for token in tokens:
            new.decrypt(new.encrypt(old.decrypt(token)))

    def ours() -> None:
        for first in range(0, count, 1000):
            envelopes[1].seal_many([plain or b"" for plain in envelopes[0].open_many(tokens[first : first + 1000])])

    ratios = [timed(theirs) / timed(ours) for _repeat in range(5)]
    report.add(Figure("fernet_rate", statistics.median(ratios), "cryptography.fernet per row", 5))


def peers(report: Report, server: EmbeddedPostgres, folder: Path, rows: int) -> None:
    """Other programs on tables of the same size."""
    runs: list[tuple[str, Table, Callable[[str, str, str], object], bool]] = []
    table = Table(server, folder, rows, 200)
    runs += [(name, table, peer, False) for name, peer in GCM_PEERS.items()]
    runs.append(("airflow_command", Table(server, folder, rows, 200, "fernet"), airflow_command, False))
    runs.append(("superset_command", table, superset_command, True))
    for name, one, peer, is_superset in runs:
        floor = one.floor()
        dsn = one.fresh()
        if is_superset:
            fill_superset(dsn, KEYS[0])
        seconds = timed(partial(peer, dsn, *KEYS))
        report.add(Figure(name, seconds / floor, _FLOOR, 1))


def at_size(server: EmbeddedPostgres, folder: Path, rows: int) -> dict[str, float]:
    """Rows a second of the floor, ours and the peers."""
    table = Table(server, folder, rows, 200)
    speeds = {"one plain UPDATE": rows / table.floor()}
    table.fresh()
    speeds["in_place (scan, pass, proof)"] = rows / table.call("in_place")["seconds"]
    for name, peer in GCM_PEERS.items():
        dsn = table.fresh()
        speeds[name.replace("_", " ")] = rows / timed(partial(peer, dsn, *KEYS))
    return speeds


def picture(server: EmbeddedPostgres, folder: Path, sizes: list[int], path: Path) -> None:
    """Draw rows a second against table size."""
    series: dict[str, list[tuple[int, float]]] = {}
    for rows in sizes:
        for name, speed in at_size(server, folder, rows).items():
            series.setdefault(name, []).append((rows, speed))
    draw(series, path)
