# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rotation that takes its time: seen, paused, resumed and stopped from another terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from demo.stack import SECRET, Stack

from tests.integration.conftest import StackMaker
from tests.integration.test_rotation import assert_turned, assert_untouched, evidence, status_of
from tests.support.catalog_file import edit, load
from tests.support.controller import Controller, Ended, registry

pytestmark = pytest.mark.one_instance


def _treat(stack: Stack, **pace: Any) -> None:
    """Say in the catalog how the database is treated."""
    variables = load(stack)
    database = {"hosts": "db", "dsn": variables["keyturn_databases"]["app"]["dsn"]}
    variables["keyturn_databases"]["app"] = {**database, **pace}
    edit(stack, variables)


@pytest.fixture
def slow(make_stack: StackMaker) -> Stack:
    """A stack whose rows take half a minute."""
    stack = make_stack(rows=600)
    _treat(stack, workers=1, batch_rows=5, rate=20)
    return stack


def _progress(stack: Stack) -> dict[str, Any]:
    """What the job says of itself; empty while there is none."""
    try:
        text = (stack.state_dir("db") / f"host/progress-{SECRET}-app.json").read_text()
    except FileNotFoundError:
        return {}
    said: dict[str, Any] = json.loads(text)
    return said


def _wait_for(stack: Stack, process: subprocess.Popen[str], reached: Callable[[dict[str, Any]], bool]) -> None:
    while not reached(_progress(stack)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def _works(said: dict[str, Any]) -> bool:
    return said.get("state") == "prepared" and 0 < said["done"] < said["total"]


def _rests() -> Callable[[dict[str, Any]], bool]:
    """Whether it was paused the last two times that it spoke, and did nothing in between."""
    last: dict[str, Any] = {}

    def reached(said: dict[str, Any]) -> bool:
        rests = said["paused"] and last.get("paused") and said["t"] > last["t"] and said["done"] == last["done"]
        if said["t"] != last.get("t"):
            last.update(said)
        return bool(rests)

    return reached


def test_a_rotation_is_seen_paused_and_resumed(slow: Stack, controller: Controller) -> None:
    before = slow.key()
    process = controller.start(slow.inventory, "rotate", only=SECRET)
    _wait_for(slow, process, _works)
    seen = controller.run(slow.inventory, "status")
    assert seen.code == 0, seen.output
    assert "    app on db: public.jwks_keys.private_jwk" in seen.output
    assert " s left" in seen.output

    paused = controller.run(slow.inventory, "pace", only=SECRET, pace="pause")
    assert paused.code == 0, paused.output
    assert "    app on db: public.jwks_keys.private_jwk" in paused.output
    _wait_for(slow, process, _rests())
    done = _progress(slow)["done"]
    seen = controller.run(slow.inventory, "status")
    assert f"{done} of 600 rows" in seen.output
    assert ", paused" in seen.output
    assert process.poll() is None

    faster = controller.run(slow.inventory, "pace", only=SECRET, pace=100_000)
    assert faster.code == 0, faster.output
    output = process.communicate(timeout=600)[0]
    assert ", paused" in output
    assert re.search(r"^  db: public\.jwks_keys\.private_jwk \d+ of 600 rows .*/s, ", output, re.MULTILINE)
    assert_turned(slow, Ended(process.returncode, output), before)
    (rotation,) = registry(slow.state_dir("db"))["rotations"].values()
    assert (rotation["status"], len(rotation["runs"])) == ("overlap", 1)
    assert list((slow.state_dir("db") / "host").glob("pace-*")) == []

    late = controller.run(slow.inventory, "pace", only=SECRET, pace="pause")
    assert late.code == 2, late.output
    assert "no re-encryption runs now" in late.output
    assert "app on db" not in controller.run(slow.inventory, "status").output


def test_a_rotation_is_stopped_and_the_same_command_finishes_it(slow: Stack, controller: Controller) -> None:
    before = slow.key()
    process = controller.start(slow.inventory, "rotate", only=SECRET)
    _wait_for(slow, process, _works)
    word = controller.run(slow.inventory, "pace", only=SECRET, pace="halt")
    assert word.code == 2, word.output
    assert "'halt' is none" in word.output
    stopped = controller.run(slow.inventory, "pace", only=SECRET, pace="stop")
    assert stopped.code == 0, stopped.output
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 2, output
    assert "stopped as asked" in output
    assert "stopped in migrate as asked" in output
    assert status_of(slow) == ["open"]
    assert_untouched(slow, before)

    _treat(slow, calm=True)
    again = controller.run(slow.inventory, "rotate")
    assert_turned(slow, again, before)
    (rotation,) = registry(slow.state_dir("db"))["rotations"].values()
    assert (rotation["status"], len(rotation["runs"])) == ("overlap", 2)
    assert [entry["interrupted"] for entry in rotation["runs"]] == [False, False]


def test_a_worker_that_is_killed_is_called_that_and_everything_goes_back(slow: Stack, controller: Controller) -> None:
    before = slow.key()
    process = controller.start(slow.inventory, "rotate", only=SECRET)
    _wait_for(slow, process, _works)
    os.kill(_progress(slow)["pid"], signal.SIGKILL)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 2, output
    assert "Traceback" not in output
    why = "db: Write every row under the new key beside the old one: the module on this host ended without a result"
    assert f"The rotation failed and everything was brought back. {why}" in output
    assert why in " ".join(evidence(slow, "rolled_back")["messages"])
    assert status_of(slow) == ["rolled_back"]
    assert_untouched(slow, before)


def test_lines_of_progress_are_as_rare_as_asked(make_stack: StackMaker, controller: Controller) -> None:
    """Ten seconds of work, which would say ten lines; asked is one in an hour."""
    stack = make_stack(rows=200)
    _treat(stack, workers=1, batch_rows=5, rate=20)
    before = stack.key()
    ended = controller.run(stack.inventory, "rotate", only=SECRET, progress_seconds=3600)
    assert_turned(stack, ended, before)
    assert re.findall(r"^  db: public\.jwks_keys\.private_jwk (\d+) of 200 rows", ended.output, re.MULTILINE) == []
