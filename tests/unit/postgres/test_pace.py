# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a re-encryption says of itself, and how people read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace, Patience, dwindling
from ansible_collections.keyturn.rotation.plugins.module_utils.processes import start_time
from ansible_collections.keyturn.rotation.plugins.plugin_utils.figures import progress


class _Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress-KEY-app.json"


@pytest.fixture
def pace(clock: _Clock, path: Path) -> Pace:
    return Pace("in_place", progress_path=str(path), clock=clock, wall_clock=lambda: 1000.0 + clock.now)


def _said(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_file_says_rows_rate_and_time_left(pace: Pace, clock: _Clock, path: Path) -> None:
    clock.now = 7.0
    pace.begin("public.t", "c", 200_000)
    assert path.stat().st_mode & 0o777 == 0o600
    first = _said(path)
    assert (first["done"], first["rate"], first["left_s"], first["paused"]) == (0, 0.0, None, False)
    assert (first["pid"], first["started"]) == (os.getpid(), start_time(os.getpid()))
    clock.now += 4
    pace.did(120_000)
    later = _said(path)
    assert (later["state"], later["table"], later["column"], later["t"]) == ("in_place", "public.t", "c", 1011.0)
    assert (later["done"], later["total"], later["rate"], later["left_s"]) == (120_000, 200_000, 30_000.0, 2.7)
    pace.begin("public.t", "d", 10)
    assert (_said(path)["done"], _said(path)["rate"]) == (0, 0.0)


def test_more_rows_than_were_counted_leave_nothing_to_do(pace: Pace, clock: _Clock, path: Path) -> None:
    pace.begin("public.t", "c", 10)
    clock.now = 2
    pace.did(12)
    assert _said(path)["left_s"] == 0


def test_it_speaks_about_once_a_second_and_also_while_it_waits(pace: Pace, clock: _Clock, path: Path) -> None:
    pace.begin("public.t", "c", 10)
    clock.now = 0.9
    pace.did(1)
    pace.tick()
    assert _said(path)["done"] == 0
    pace.is_paused = lambda: True
    clock.now = 1.0
    pace.tick()
    assert (_said(path)["done"], _said(path)["paused"]) == (1, True)


def test_it_speaks_while_it_rests(clock: _Clock, path: Path) -> None:
    heard: list[float] = []

    def sleep(seconds: float) -> None:
        clock.now += seconds
        heard.append(_said(path)["t"])

    pace = Pace("prepared", progress_path=str(path), clock=clock, sleep=sleep, wall_clock=clock)
    pace.begin("public.t", "c", 10)
    pace.rest(2.5)
    pace.rest(-1)
    assert (clock.now, heard) == (2.5, [0.0, 1.0, 2.0])


def test_a_worker_that_was_forked_off_does_not_speak(pace: Pace, clock: _Clock, path: Path) -> None:
    pace.begin("public.t", "c", 10)
    clock.now = 5
    worker = os.fork()
    if not worker:
        pace.tick()
        os._exit(0)
    assert os.waitpid(worker, 0)[1] == 0
    assert _said(path)["t"] == 1000.0
    pace.tick()
    assert _said(path)["t"] == 1005.0


@pytest.mark.parametrize(
    ("left", "calls"),
    [
        ([0], 1),
        ([5, 0], 2),
        ([5, 4, 3, 2, 1, 0], 6),  # each takes longer than the longest wait
        ([5, 5], 2),
        ([5, 4, 6, 3, 3], 3),
    ],
)
def test_what_dwindles_is_waited_for(pace: Pace, clock: _Clock, left: list[int], calls: int) -> None:
    called = []

    def once() -> int:
        clock.now += 100
        called.append(left[len(called)])
        return called[-1]

    assert dwindling(pace, "rows", once) == called[-1]
    assert called == left[:calls]


def test_pauses_grow_so_that_others_get_their_turn() -> None:
    slept: list[float] = []
    patience = Patience(lambda: 0.0, slept.append, 1.0, "t")
    for _attempt in range(40):
        patience.pause()
    assert all(0 < seconds <= 0.05 for seconds in slept[:1])
    assert max(slept) <= 0.5
    assert sum(slept[20:]) > 4 * sum(slept[:5])


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    pace = Pace("in_place")
    pace.begin("public.t", "c", 10)
    pace.tick()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            {"done": 120_000, "total": 200_000, "rate": 45_000.4, "left_s": 1.8},
            "public.t.c 120 000 of 200 000 rows (60 %), 45 000/s, 2 s left",
        ),
        (
            {"done": 1, "total": 200_000, "rate": 7.0, "left_s": 28571.3},
            "public.t.c 1 of 200 000 rows (0 %), 7/s, 7.9 h left",
        ),
        ({"done": 5, "total": 10, "rate": 1.0, "left_s": 600}, "public.t.c 5 of 10 rows (50 %), 1/s, 10 min left"),
        ({"done": 5, "total": 10, "rate": 9.0, "left_s": 1, "paused": True}, "public.t.c 5 of 10 rows (50 %), paused"),
        (
            {"done": 5, "total": 10, "rate": 9.0, "left_s": 1, "paused": False, "behind": True},
            "public.t.c 5 of 10 rows (50 %), waits for a standby that is behind",
        ),
        ({"done": 0, "total": 10, "rate": 0.0, "left_s": None}, "public.t.c 0 of 10 rows (0 %)"),
        ({"done": 5000, "total": 0, "rate": 50.0, "left_s": None}, "public.t.c 5 000 rows, 50/s"),
    ],
    ids=["seconds", "hours", "minutes", "paused", "behind", "begun", "uncounted"],
)
def test_people_read_a_line(said: dict[str, Any], line: str) -> None:
    assert progress({"table": "public.t", "column": "c", **said}) == line
