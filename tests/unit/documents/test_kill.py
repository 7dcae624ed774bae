# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at random moments while a service edits policies: no edit, no signature and no version is lost.

``KEYTURN_KILLS`` sets how many kills there are (12), ``KEYTURN_SEED`` which.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.documents import NEW, OLD, PolicyRig, keys, policy
from tests.support.killable import Killable

_KILLS = int(os.environ.get("KEYTURN_KILLS", "12"))
_SEED = int(os.environ.get("KEYTURN_SEED", "20"))
_ROWS = 40
_BOTH = {"new": {"value": keys()[NEW]}, "old": {"value": keys()[OLD]}}


class _Service:
    """Publishes edits of policies with the key that it holds, and knows what it has published."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.edits = dict.fromkeys(range(_ROWS), 0)
        self.revoked: set[int] = set()
        self.kid = OLD
        self.problems: list[str] = []
        self._choose = random.Random(seed)
        self._dsn = dsn
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> _Service:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def restart(self, kid: str) -> None:
        """It has finished its statement and comes up with another key."""
        with self._turn:
            self.kid = kid

    def _work(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as link:
            while not self._stop.wait(0.01):
                with self._turn:
                    try:
                        self._write(link, self._choose.randrange(_ROWS), self._choose.random())
                    except psycopg.Error as error:
                        self.problems.append(type(error).__name__)

    def _write(self, link: psycopg.Connection[tuple[Any, ...]], number: int, chance: float) -> None:
        if number in self.revoked:
            return
        app = f"app-{number}"
        if chance < 0.02:
            link.execute("UPDATE policies SET revocation_time = now() WHERE app_name = %s", (app,))
            self.revoked.add(number)
            return
        bundle = {"n": number, "edit": self.edits[number] + 1}
        query = """UPDATE policies SET bundle = %s, jws = %s, signed_with_kid = %s, version = version + 1
                   WHERE app_name = %s"""
        link.execute(query, (Jsonb(bundle), policy(self.kid, bundle, app), self.kid, app))
        self.edits[number] += 1


@pytest.fixture
def killable() -> Iterator[Killable]:
    """A runner whose processes can be killed."""
    runner = Killable("documents.job")
    yield runner
    runner.close()


class _Round:
    """One rotation with its kills."""

    def __init__(self, rig: PolicyRig, killable: Killable, choose: random.Random, name: str) -> None:
        self._rig, self._killable, self._choose, self._name = rig, killable, choose, name
        self._epoch = self.kills = 0

    def reach(self, state: str, may_give_up: bool = False) -> bool:
        """Call until it succeeds; killed now and then. False when given up after a kill."""
        tries = 0
        while True:
            self._epoch += 1
            tries += 1
            is_killed = tries < 4 and self._choose.random() < 0.7
            after = self._choose.random() * (0.1 if state == "cleaned" else 0.5) if is_killed else None
            given = {"rotation_id": self._name, "epoch": self._epoch, "max_wait_s": 60, "keys": _BOTH}
            answer = self._killable.run(self._rig.params(state, **given), after)
            if answer == "ok":
                return True
            assert answer == "killed", f"{state}: {answer}"
            self.kills += 1
            if may_give_up and self._choose.random() < 0.3:
                return False


def test_nothing_is_lost_whenever_it_is_killed(rig: PolicyRig, killable: Killable) -> None:
    choose = random.Random(_SEED)
    kills = rounds = 0
    while kills < _KILLS:
        rig.sql.execute("TRUNCATE policies")
        rig.fill(_ROWS)
        before = {row["app_name"]: row for row in rig.rows().values()}
        goes_back = rounds % 2 == 1
        one = _Round(rig, killable, choose, f"r{rounds}")
        with _Service(rig.dsn, choose.randrange(10**6)) as service:
            service.restart(NEW)
            forward = one.reach("resigned", may_give_up=True)
            if goes_back or not forward:
                service.restart(OLD)
                one.reach("rolled_back")
            one.reach("cleaned")
        final = OLD if goes_back or not forward else NEW
        kills += one.kills
        rounds += 1
        assert service.problems == []
        assert set(rig.kids()) == {final}
        rows = {row["app_name"]: row for row in rig.rows().values()}
        assert {row["bundle"]["n"]: row["bundle"]["edit"] for row in rows.values()} == service.edits
        assert {number for number in range(_ROWS) if rows[f"app-{number}"]["revocation_time"]} == service.revoked
        if final == OLD:
            untouched = [
                number for number, edits in service.edits.items() if not edits and number not in service.revoked
            ]
            assert [rows[f"app-{number}"] for number in untouched] == [before[f"app-{number}"] for number in untouched]
        assert rig.left_behind() == []
    assert kills >= _KILLS
