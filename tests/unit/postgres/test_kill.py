# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at random moments while others write: resumed or rolled back, no row and no update is lost.

``KEYTURN_KILLS`` sets how many kills there are (12), ``KEYTURN_SEED`` which.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from typing import Callable

import psycopg
import pytest

from tests.support.killable import Killable
from tests.support.reencryption import Rig, opens, seal

_KILLS = int(os.environ.get("KEYTURN_KILLS", "12"))
_SEED = int(os.environ.get("KEYTURN_SEED", "20"))
_WRITERS = 2
_ROWS = 120


class _Service:
    """Writers that hold one key each and know what they wrote; each has rows of its own."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.versions = dict.fromkeys(range(_ROWS), 0)
        self.keys = ["old"] * _WRITERS
        self.problems: list[str] = []
        self._dsn = dsn
        self._stop = threading.Event()
        self._turns = [threading.Lock() for _writer in range(_WRITERS)]
        self._threads = [threading.Thread(target=self._write, args=(at, seed + at)) for at in range(_WRITERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def restart(self, writer: int, key: str) -> None:
        """The writer has finished its statement and comes up with another key."""
        with self._turns[writer]:
            self.keys[writer] = key

    def _write(self, writer: int, seed: int) -> None:
        choose = random.Random(seed)
        with psycopg.connect(self._dsn, autocommit=True) as link:
            link.execute("SET lock_timeout = '5s'")
            while not self._stop.wait(0.002):
                row = choose.randrange(_ROWS) // _WRITERS * _WRITERS + writer
                with self._turns[writer]:
                    try:
                        self._write_one(link, row, choose.random(), self.keys[writer])
                    except psycopg.Error as error:
                        self.problems.append(type(error).__name__)

    def _write_one(self, link: psycopg.Connection[tuple[object, ...]], row: int, chance: float, key: str) -> None:
        version = self.versions.get(row)
        if version is None:
            link.execute("INSERT INTO creds (id, secret) VALUES (%s, %s)", (row, seal(key, b"%d:0" % row).decode()))
            self.versions[row] = 0
        elif chance < 0.08:
            link.execute("DELETE FROM creds WHERE id = %s", (row,))
            del self.versions[row]
        else:
            cell = seal(key, b"%d:%d" % (row, version + 1)).decode()
            link.execute("UPDATE creds SET secret = %s, ver = ver + 1 WHERE id = %s", (cell, row))
            self.versions[row] = version + 1


class _Round:
    """One rotation with its kills."""

    def __init__(self, rig: Rig, killable: Killable, service: _Service, choose: random.Random) -> None:
        self._rig = rig
        self._killable = killable
        self._service = service
        self._choose = choose
        self._epoch = 0
        self._longest = {"prepared": 0.25, "in_place": 0.2, "swept": 0.2}
        self.kills = 0

    def reach(self, state: str, may_give_up: bool = False) -> bool:
        """Call until it succeeds; killed now and then. False when given up after a kill."""
        tries = 0
        while True:
            self._epoch += 1
            tries += 1
            is_killed = tries < 4 and self._choose.random() < 0.6
            after = self._choose.random() * self._longest.get(state, 0.1) if is_killed else None
            params = self._rig.params(state, epoch=self._epoch, batch_rows=15, max_wait_s=30)
            answer = self._killable.run(params, after)
            if answer == "ok":
                return True
            assert answer == "killed", f"{state}: {answer}"
            self.kills += 1
            if may_give_up and self._choose.random() < 0.3:
                return False

    def restart_all(self, key: str, between: Callable[[], object]) -> None:
        for writer in range(_WRITERS):
            between()
            self._service.restart(writer, key)

    def shadow(self, goes_back: bool) -> str:
        """Cut over, and perhaps back; the key that all is under in the end."""
        forward = self.reach("prepared", may_give_up=True) and self.reach("cut_over", may_give_up=True)
        if forward:
            self.restart_all("new", lambda: None)
            self.reach("swept")
        if not forward or goes_back:
            self.reach("rolled_back")
            self.restart_all("old", lambda: None)
            self.reach("swept")
        self.reach("cleaned")
        return "old" if not forward or goes_back else "new"

    def in_place(self, goes_back: bool) -> str:
        """Re-encrypt where the rows are, and perhaps back; the key that all is under in the end."""
        self.restart_all("new", lambda: None)
        self.reach("in_place")
        if goes_back:
            self.restart_all("old", lambda: None)
            self.reach("rolled_back")
        self.reach("swept")
        self.reach("cleaned")
        return "old" if goes_back else "new"


@pytest.fixture
def killable() -> Iterator[Killable]:
    """A runner whose processes can be killed."""
    runner = Killable()
    yield runner
    runner.close()


def test_nothing_is_lost_whenever_it_is_killed(rig: Rig, killable: Killable) -> None:
    choose = random.Random(_SEED)
    kills = rounds = 0
    while kills < _KILLS:
        rig.sql.execute("DROP TABLE IF EXISTS creds")
        rig.fill(0)
        rig.insert([(row, seal("old", b"%d:0" % row).decode()) for row in range(_ROWS)])
        service = _Service(rig.dsn, choose.randrange(10**6))
        one = _Round(rig, killable, service, choose)
        rig.defaults = {"rotation_id": f"r{rounds}", "cut_over": "columns" if rounds % 3 == 1 else "rows"}
        service.start()
        try:
            way = one.in_place if rounds % 3 == 2 else one.shadow
            final = way(choose.random() < 0.5)
        finally:
            service.stop()
        kills += one.kills
        rounds += 1
        assert service.problems == []
        cells = rig.cells()
        assert set(cells) == set(service.versions), "rows lost or risen"
        read = {row: opens(final, cell) for row, cell in cells.items()}
        assert read == {row: b"%d:%d" % (row, version) for row, version in service.versions.items()}
        assert rig.shadows() == []
        assert rig.sql.execute("SELECT count(*) FROM keyturn.fence WHERE pid <> 0").fetchone() == (0,)
    assert kills >= _KILLS
