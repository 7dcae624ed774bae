# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Crash campaigns: a rotation is killed at a chance moment and finished from another controller; nothing may be lost.

Every round has a database, two services and a client of its own. The run is killed with SIGKILL, its modules with it
(or left behind as zombies), then the same command or the rollback playbook goes on from another home and another
working folder, with no rotation_id given. At the end the client's model judges every row.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.postgres import PostgresServer
from demo.stack import SECRET, Stack

from tests.support.controller import Controller, Ended, kill_marked, registry

__all__ = ["PHASES", "Order", "Round", "plan_rounds", "run_campaign", "run_round", "wait_for_phase"]

PHASES = ("preflight", "backup", "stage", "migrate", "promote", "restart", "verify")
#: Longest pause between the entry of a phase and the kill, in seconds.
_WITHIN = {"preflight": 3.0, "backup": 0.8, "stage": 1.6, "migrate": 1.6, "promote": 2.6, "restart": 1.6, "verify": 2.4}
_WHOLE_RUN = 16.0


@dataclass
class Round:
    """What one round showed.

    :param faults: what must not be; empty when all is well.
    """

    number: int
    phase: str
    way: str
    kills: int = 0
    zombies: int = 0
    faults: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    output: str = ""


def wait_for_phase(stack: Stack, phase: str, process: subprocess.Popen[str]) -> bool:
    """Wait until the register says that the phase was entered; False when the run ended before."""
    while process.poll() is None:
        rotations = registry(stack.state_dir("db"))["rotations"]
        if any(phase in rotation["entered"] for rotation in rotations.values()):
            return True
        time.sleep(0.01)
    return False


def _kill(controller: Controller, process: subprocess.Popen[str], zombies: bool) -> str:
    """SIGKILL the whole process group; with ``zombies`` what left the group goes on."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if not zombies:
        kill_marked(controller)
    # services hold the pipe open, so it is not read to its end
    process.wait()
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return process.stdout.read() or ""


def _interrupt(stack: Stack, folder: Path, result: Round, chance: random.Random) -> bool:
    """Run the rotation and kill it; False when it ended before the kill."""
    controller = Controller(folder / "first")
    process = controller.start(stack.inventory, "rotate", only=SECRET, reason="campaign")
    if result.phase == "any":
        deadline = time.monotonic() + chance.uniform(0.5, _WHOLE_RUN)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    elif wait_for_phase(stack, result.phase, process):
        time.sleep(chance.uniform(0.0, _WITHIN[result.phase]))
    if process.poll() is not None:
        result.output = process.communicate()[0]
        return False
    zombies = chance.random() < 0.5
    result.output = _kill(controller, process, zombies)
    result.kills += 1
    result.zombies += zombies
    return True


def _go_on(stack: Stack, folder: Path, result: Round) -> Ended:
    controller = Controller(folder / "second")
    if result.way == "rollback":
        return controller.run(stack.inventory, "rollback", only=SECRET)
    return controller.run(stack.inventory, "rotate", only=SECRET, reason="campaign")


def run_round(
    number: int,
    folder: Path,
    server: PostgresServer,
    jwks: Sequence[dict[str, str]],
    *,
    phase: str = "any",
    way: str = "rotate",
    seed: int = 0,
    rows: int = 300,
) -> Round:
    """One round.

    :param phase: in which the run is killed, or ``any``.
    :param way: ``rotate`` (the same command again) or ``rollback``.
    """
    chance = random.Random(seed)
    result = Round(number, phase, way)
    stack = Stack(folder, rows=rows, tokens=20, server=server, database=f"round{number}_{os.getpid()}", jwks=jwks)
    with stack:
        before = stack.key()
        client = stack.client(rate=40, workers=2)
        try:
            killed = _interrupt(stack, folder, result, chance)
            began = bool(registry(stack.state_dir("db"))["rotations"])
            ended = _go_on(stack, folder, result) if killed else Ended(0, "")
            result.output += "\n----\n" + ended.output
        finally:
            outcome = client.stop()
        result.summary = outcome.summary
        _judge(stack, result, ended, outcome.model, before, killed=killed, began=began)
    return result


def _judge(
    stack: Stack, result: Round, ended: Ended, model: Any, before: bytes | None, *, killed: bool, began: bool
) -> None:
    """Note all that must not be."""
    faults = result.faults
    back = result.way == "rollback" and killed
    nothing_to_undo = back and not began and "nothing" in ended.output.lower()
    if ended.code and not nothing_to_undo:
        faults.append(f"the second run ended with {ended.code}")
    if (stack.key() == before) != back:
        faults.append("the key is not the one that this way ends with")
    if stack.key("api1") != stack.key("api2"):
        faults.append("the hosts hold different keys")
    judged = stack.verify(model, plaintext_ok=back)
    if not judged.ok:
        faults.append(f"rows: {judged}")
    lookups = stack.verify_lookups()
    if not lookups.ok:
        faults.append(f"lookups: {lookups}")
    if result.summary["failed"]:
        faults.append(f"{result.summary['failed']} requests failed: {result.summary['failures']}")
    register = registry(stack.state_dir("db"))
    rotations = register["rotations"]
    if len(rotations) > 1:
        faults.append(f"{len(rotations)} rotations, not one")
    if register["secrets"].get(SECRET, {}).get("open"):
        faults.append("the rotation is still open")
    for rotation_id, rotation in rotations.items():
        wanted = "rolled_back" if back else "overlap"
        if rotation["status"] != wanted:
            faults.append(f"the rotation is {rotation['status']}, not {wanted}")
        folders = list((stack.state_dir("db") / "evidence").glob(f"{rotation_id}.*/evidence.json"))
        if not folders:
            faults.append("no evidence")
        elif killed and began and '"interrupted": true' not in "".join(path.read_text() for path in folders):
            faults.append("the evidence does not tell of the interruption")


@dataclass(frozen=True)
class Order:
    """What a round is to do."""

    number: int
    phase: str
    way: str
    seed: int


def plan_rounds(*, whole: int, phases: int, seed: int) -> list[Order]:
    """Rounds that are killed anywhere, and rounds that are killed in each phase in turn; every other one goes back."""
    ways = ("rotate", "rollback")
    anywhere = [("any", ways[number % 2]) for number in range(whole)]
    each = [(PHASES[number % len(PHASES)], ways[number // len(PHASES) % 2]) for number in range(phases)]
    return [Order(number, phase, way, seed + number) for number, (phase, way) in enumerate(anywhere + each)]


def run_campaign(
    orders: Sequence[Order],
    folder: Path,
    server: PostgresServer,
    jwks: Sequence[dict[str, str]],
    *,
    workers: int,
    tell: Callable[[Round], None] = lambda _round: None,
) -> list[Round]:
    """Run the rounds side by side, each in a folder and a database of its own."""

    def one(order: Order) -> Round:
        place = folder / f"round{order.number}"
        try:
            result = run_round(order.number, place, server, jwks, phase=order.phase, way=order.way, seed=order.seed)
        except Exception as error:
            result = Round(order.number, order.phase, order.way, faults=[f"{type(error).__name__}: {error}"])
        tell(result)
        return result

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(one, orders))
