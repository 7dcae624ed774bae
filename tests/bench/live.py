# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reader and a writer of the same table feel while it is re-encrypted."""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

__all__ = ["RATES", "Felt", "felt_while", "lost_rows"]

#: Statements a second.
RATES = {"reader": 300, "writer": 60}
_STATEMENTS = {
    "reader": "SELECT secret FROM creds WHERE id = %s",
    "writer": "UPDATE creds SET name = %s WHERE id = %s",
}


@dataclass(frozen=True)
class Felt:
    """Latencies in milliseconds.

    :param failed: statements that failed.
    :param written: by row the name that was written last.
    """

    p50: float
    p99: float
    longest: float
    count: int
    failed: int
    written: dict[int, str]


def _ask(kind: str, dsn: str, rows: int, stop: Any, answer: Any) -> None:
    choose, latencies, failed, written = random.Random(kind), [], 0, dict[int, str]()
    with psycopg.connect(dsn, autocommit=True) as link:
        due = time.perf_counter()
        while not stop.is_set():
            due += 1 / RATES[kind]
            time.sleep(max(0.0, due - time.perf_counter()))
            row, name = choose.randrange(rows), f"w{len(latencies)}"
            started = time.perf_counter()
            try:
                link.execute(_STATEMENTS[kind].encode(), (name, row) if kind == "writer" else (row,))
            except psycopg.Error:
                failed += 1
            else:
                written[row] = name
            latencies.append((time.perf_counter() - started) * 1000)
    answer.put((kind, latencies, failed, written if kind == "writer" else {}))


def felt_while(dsn: str, rows: int, work: Callable[[], object]) -> dict[str, Felt]:
    """What both felt while ``work`` went on."""
    context = multiprocessing.get_context("fork")
    stop, answer = context.Event(), context.SimpleQueue()
    processes = [context.Process(target=_ask, args=(kind, dsn, rows, stop, answer)) for kind in RATES]
    for process in processes:
        process.start()
    try:
        time.sleep(0.5)
        work()
    finally:
        stop.set()
    found = {}
    for _process in processes:
        kind, latencies, failed, written = answer.get()
        latencies.sort()
        p99 = latencies[int(0.99 * len(latencies))]
        found[kind] = Felt(statistics.median(latencies), p99, latencies[-1], len(latencies), failed, written)
    for process in processes:
        process.join()
    return found


def lost_rows(dsn: str, rows: int, written: Mapping[int, str]) -> int:
    """Rows that are gone, or have not the name that was written last."""
    with psycopg.connect(dsn) as link:
        names = dict(link.execute("SELECT id, name FROM creds").fetchall())
    return sum(names.get(row) != written.get(row, f"n{row}") for row in range(rows))
