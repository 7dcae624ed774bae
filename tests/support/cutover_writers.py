# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that write a table under one key each, and know what they wrote and read.

What they share with the campaign is plain memory without locks: a process that is killed cannot leave one behind.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from multiprocessing.sharedctypes import RawArray
from typing import Any

import psycopg

from tests.support.reencryption import opens, seal

__all__ = ["KEY_NAMES", "MOVED", "MOVING", "ROWS", "WRITERS", "Shared", "Writers"]

WRITERS = 3
ROWS = 90
MOST = 600
KEY_NAMES = ("old", "new")
STILL, MOVING, MOVED = range(3)
_RUN, _STOP, _END = range(3)

#: What a writer counts.
COUNTS = (
    "reads",  # of rows that opened and were right
    "failed_before_swap",
    "failed_between",  # the reader was not yet restarted
    "failed_unswept",  # it was, and met a row of one that was not
    "nulls",
    "neither",
    "wrong_plaintext",
    "writes",
    "missed",  # a write that met no row
    "blocked",  # a lock was not to be had in time
    "retries",  # serialization conflicts
    "errors",
)


class Shared:
    """Memory of campaign and writers; each number has one writer only."""

    def __init__(self) -> None:
        self.versions = RawArray("i", [-1] * MOST)
        self.commands = RawArray("i", [_RUN] * WRITERS)
        self.states = RawArray("i", [_STOP] * WRITERS)
        self.counts = RawArray("i", [0] * (WRITERS * len(COUNTS)))
        #: the key in the store, the key that rows should be under, and how far the move is
        self.store = RawArray("i", [0])
        self.target = RawArray("i", [0])
        self.move = RawArray("i", [STILL])

    def total(self) -> dict[str, int]:
        """All counts, of all writers."""
        width = len(COUNTS)
        return {name: sum(self.counts[at + width * w] for w in range(WRITERS)) for at, name in enumerate(COUNTS)}


class _Writer:
    """One process; the rows whose number leaves its own number are its to write, all are its to read."""

    def __init__(self, dsn: str, number: int, shared: Shared, seed: int) -> None:
        self._dsn, self._number, self._shared = dsn, number, shared
        self._choose = random.Random(seed)
        self._link: psycopg.Connection[tuple[Any, ...]] | None = None
        self._key = 0

    def run(self) -> None:
        shared, number = self._shared, self._number
        while shared.commands[number] != _END:
            if shared.commands[number] == _STOP:
                if self._link is not None:
                    self._link.close()
                    self._link = None
                shared.states[number] = _STOP
                time.sleep(0.001)
                continue
            if self._link is None:
                self._start()
            time.sleep(self._choose.random() * 0.006)
            try:
                self._step()
            except psycopg.errors.LockNotAvailable:
                self._count("blocked")
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                self._count("retries")
            except psycopg.Error:
                self._count("errors")
        if self._link is not None:
            self._link.close()

    def _start(self) -> None:
        """Come up with the key that the store holds."""
        self._link = psycopg.connect(self._dsn, autocommit=True, application_name="service")
        self._link.execute("SET lock_timeout = '60ms'")
        self._key = self._shared.store[0]
        self._shared.states[self._number] = _RUN

    def _count(self, name: str) -> None:
        self._shared.counts[self._number * len(COUNTS) + COUNTS.index(name)] += 1

    def _cell(self, row: int, version: int) -> str:
        return seal(KEY_NAMES[self._key], b"%d:%d" % (row, version)).decode()

    def _execute(self, query: str, *values: Any) -> psycopg.Cursor[tuple[Any, ...]]:
        if self._link is None:
            raise RuntimeError("not started")
        return self._link.execute(query.encode(), values)

    def _step(self) -> None:
        chance = self._choose.random()
        if chance < 0.45:
            self._read(self._choose.randrange(ROWS), 8)
            return
        row = self._choose.randrange(ROWS) // WRITERS * WRITERS + self._number
        version = self._shared.versions[row]
        if version < 0:
            self._execute("INSERT INTO creds (id, secret, ver) VALUES (%s, %s, 0)", row, self._cell(row, 0))
            self._wrote(row, 0)
        elif chance < 0.8:
            self._update(row, version + 1)
        elif chance < 0.88:
            self._insert()
        elif chance < 0.94:
            self._met(self._execute("DELETE FROM creds WHERE id = %s", row).rowcount)
            self._wrote(row, -1)
        else:  # writes back what it has read, and other columns, as an ORM does
            self._execute("UPDATE creds SET secret = secret, note = %s WHERE id = %s", str(version), row)

    def _update(self, row: int, version: int) -> None:
        cell, way = self._cell(row, version), self._choose.random()
        if way < 0.5:
            done = self._execute("UPDATE creds SET secret = %s, ver = %s WHERE id = %s", cell, version, row)
        elif way < 0.75:
            upsert = """INSERT INTO creds (id, secret, ver) VALUES (%s, %s, %s)
                        ON CONFLICT (id) DO UPDATE SET secret = excluded.secret, ver = excluded.ver"""
            done = self._execute(upsert, row, cell, version)
        else:
            if self._link is None:
                raise RuntimeError("not started")
            with self._link.transaction():
                if way < 0.85:
                    self._execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                self._execute("SELECT secret FROM creds WHERE id = %s FOR UPDATE", row)
                time.sleep(self._choose.random() * 0.004)
                done = self._execute("UPDATE creds SET secret = %s, ver = %s WHERE id = %s", cell, version, row)
        self._met(done.rowcount)
        self._wrote(row, version)

    def _insert(self) -> None:
        for row in range(ROWS + self._number, MOST, WRITERS):
            if self._shared.versions[row] < 0:
                self._execute("INSERT INTO creds (id, secret, ver) VALUES (%s, %s, 0)", row, self._cell(row, 0))
                self._wrote(row, 0)
                return

    def _met(self, rows: int) -> None:
        if rows != 1:
            self._count("missed")

    def _wrote(self, row: int, version: int) -> None:
        self._shared.versions[row] = version
        self._count("writes")

    def _read(self, first: int, rows: int) -> None:
        query = "SELECT id, ver, secret FROM creds WHERE id BETWEEN %s AND %s"
        move = self._shared.move[0]
        for row, version, cell in self._execute(query, first, first + rows).fetchall():
            self._count(self._judge(b"%d:%d" % (row, version), cell, move))

    def _judge(self, expected: bytes, cell: str | None, move: int) -> str:
        if cell is None:
            return "nulls"
        mine, other = (opens(KEY_NAMES[key], cell) for key in (self._key, 1 - self._key))
        if mine is not None or other is not None:
            if expected not in (mine, other):
                return "wrong_plaintext"
            if mine is not None:
                return "reads"
            move = max(move, self._shared.move[0])  # it may have begun while the statement ran
            if move == STILL:
                return "failed_before_swap"
            is_ready = move == MOVED and self._key == self._shared.target[0]
            return "failed_unswept" if is_ready else "failed_between"
        return "neither"


def _run(dsn: str, number: int, shared: Shared, seed: int) -> None:
    try:
        _Writer(dsn, number, shared, seed).run()
    finally:
        os._exit(0)


class Writers:
    """The processes, and their restarts."""

    def __init__(self, dsn: str, shared: Shared, seed: int) -> None:
        self._shared = shared
        context = multiprocessing.get_context("fork")
        self._processes = [
            context.Process(target=_run, args=(dsn, number, shared, seed + number), daemon=True)
            for number in range(WRITERS)
        ]
        for process in self._processes:
            process.start()
        for number in range(WRITERS):
            self._wait(number, _RUN)

    def _wait(self, number: int, state: int) -> None:
        until = time.monotonic() + 30
        while self._shared.states[number] != state:
            if time.monotonic() > until or not self._processes[number].is_alive():
                raise RuntimeError(f"writer {number} does not reach state {state}")
            time.sleep(0.001)

    def stop(self, number: int) -> None:
        """Let it finish its statement and leave."""
        self._shared.commands[number] = _STOP
        self._wait(number, _STOP)

    def start(self, number: int) -> None:
        """Let it come up with the key of the store."""
        self._shared.commands[number] = _RUN
        self._wait(number, _RUN)

    def end(self) -> bool:
        """End all; whether each did so by itself."""
        for number in range(WRITERS):
            self._shared.commands[number] = _END
        for process in self._processes:
            process.join(20)
        is_well = all(process.exitcode == 0 for process in self._processes)
        for process in self._processes:
            if process.is_alive():
                process.kill()
                process.join()
        return is_well
