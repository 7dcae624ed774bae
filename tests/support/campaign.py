# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Crash campaigns: a rotation is killed at chance moments and finished from another controller; nothing may be lost.

Every round has a database, two services and a client of its own. A run is killed with SIGKILL, its modules with it (or
left behind as zombies), then the same command or the rollback playbook goes on from another home and another working
folder, with no rotation_id given. It may be killed again and again. At the end the client's model judges every row.
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

__all__ = ["Order", "Round", "plan_rounds", "run_campaign", "run_round", "wait_for_phase"]

#: Longest pause between the entry of a phase and the kill, in seconds.
_WITHIN = {"preflight": 1.6, "backup": 0.5, "stage": 0.9, "migrate": 0.9, "promote": 1.2, "restart": 0.8, "verify": 0.9}
#: Longest time from the start of a run to a kill at any moment, in seconds; the way back is shorter.
_WHOLE_RUN = {"any": 6.5, "back": 4.5}
_GOALS = {"rotate": "overlap", "rollback": "rolled_back"}


@dataclass(frozen=True)
class Order:
    """What a round is to do.

    :param kills: where its runs are killed, one after the other: a phase on the way forward, ``any`` moment of it, or
        any moment of the way ``back``.
    :param way: how it is finished: ``rotate`` (the same command again) or ``rollback``.
    """

    number: int
    kills: tuple[str, ...]
    way: str
    seed: int

    def __str__(self) -> str:
        return f"round {self.number} (killed in {', '.join(self.kills)}; then {self.way})"


@dataclass
class Round:
    """What one round showed.

    :param faults: what must not be; empty when all is well.
    """

    order: Order
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


def _interrupt(stack: Stack, home: Path, kill: str, result: Round, chance: random.Random) -> bool:
    """Run the next playbook and kill it; False when it ended before."""
    controller = Controller(home)
    process = controller.start(
        stack.inventory, "rollback" if kill == "back" else "rotate", only=SECRET, reason="campaign"
    )
    if kill in _WITHIN and wait_for_phase(stack, kill, process):
        time.sleep(chance.uniform(0.0, _WITHIN[kill]))
    elif kill not in _WITHIN:
        deadline = time.monotonic() + chance.uniform(0.5, _WHOLE_RUN[kill])
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    if process.poll() is not None:
        result.output += process.communicate()[0]
        return False
    zombies = chance.random() < 0.5
    result.output += _kill(controller, process, zombies) + f"\n---- killed ({kill})\n"
    result.kills += 1
    result.zombies += zombies
    return True


def _statuses(stack: Stack) -> list[str]:
    return [rotation["status"] for rotation in registry(stack.state_dir("db"))["rotations"].values()]


def run_round(order: Order, folder: Path, server: PostgresServer, jwks: Sequence[dict[str, str]]) -> Round:
    """One round."""
    chance = random.Random(order.seed)
    result = Round(order)
    goal = _GOALS[order.way]
    began = False
    ended = Ended(0, "")
    stack = Stack(folder, rows=300, tokens=20, server=server, database=f"round{order.number}_{os.getpid()}", jwks=jwks)
    with stack:
        before = stack.key()
        client = stack.client(rate=40, workers=2, retry_seconds=180.0)  # services are down from a kill to the next run
        try:
            for number, kill in enumerate(order.kills):
                if _statuses(stack) != [goal]:  # a run may be killed in the moment after it was done
                    _interrupt(stack, folder / f"home{number}", kill, result, chance)
                    began = bool(_statuses(stack))
            if _statuses(stack) != [goal]:
                controller = Controller(folder / "last")
                ended = controller.run(stack.inventory, order.way, only=SECRET, reason="campaign")
                began = began and bool(result.kills)
            else:
                began = False  # nothing was left to finish, so no evidence tells of it
            result.output += ended.output
        finally:
            outcome = client.stop()
        result.summary = outcome.summary
        _judge(stack, result, ended, outcome.model, before, began=began)
    return result


def _judge(stack: Stack, result: Round, ended: Ended, model: Any, before: bytes | None, *, began: bool) -> None:
    """Note all that must not be.

    :param began: whether the rotation had begun when it was killed, and was left unfinished.
    """
    faults = result.faults
    back = result.order.way == "rollback"
    # What a killed run has left may finish the way back between the last look and the last run
    is_back = _statuses(stack) == [_GOALS["rollback"]] if began else "nothing" in ended.output.lower()
    if ended.code and not (back and is_back and (not began or "nothing-to-undo" in ended.output)):
        faults.append(f"the last run ended with {ended.code}")
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
        wanted = _GOALS[result.order.way]
        if rotation["status"] != wanted:
            faults.append(f"the rotation is {rotation['status']}, not {wanted}")
        folders = list((stack.state_dir("db") / "evidence").glob(f"{rotation_id}.*/evidence.json"))
        if not folders:
            faults.append("no evidence")
        elif began and '"interrupted": true' not in "".join(path.read_text() for path in folders):
            faults.append("the evidence does not tell of the interruption")


#: Kills of single phases, finished by the same command, and by going back (which is killed too).
_PHASE_KILLS = (
    (("preflight", "stage", "promote"), "rotate"),
    (("preflight", "back"), "rollback"),
    (("backup", "migrate", "restart"), "rotate"),
    (("backup", "back"), "rollback"),
    (("stage", "promote", "verify"), "rotate"),
    (("stage", "back"), "rollback"),
    (("migrate", "promote", "restart"), "rotate"),
    (("migrate", "back"), "rollback"),
    (("migrate", "restart", "verify"), "rotate"),
    (("promote", "back"), "rollback"),
    (("restart", "back"), "rollback"),
    (("verify", "back", "back"), "rollback"),
)
#: Kills anywhere.
_WHOLE_KILLS = (
    (("any", "any", "any"), "rotate"),
    (("any", "back", "back"), "rollback"),
    (("any", "any"), "rotate"),
    (("any", "back"), "rollback"),
)


def plan_rounds(kills: int, seed: int) -> list[Order]:
    """Rounds with so many kills: one in four anywhere, the others spread over the phases; half of them go back."""
    kinds = [_PHASE_KILLS[0:3], _WHOLE_KILLS[0:1], _PHASE_KILLS[3:6], _WHOLE_KILLS[1:2]]
    kinds += [_PHASE_KILLS[6:9], _WHOLE_KILLS[2:3], _PHASE_KILLS[9:12], _WHOLE_KILLS[3:4]]
    rounds = [entry for kind in kinds for entry in kind]
    orders: list[Order] = []
    while sum(len(order.kills) for order in orders) < kills:
        number = len(orders)
        where, way = rounds[number % len(rounds)]
        orders.append(Order(number, where, way, seed + number))
    return orders


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
            result = run_round(order, place, server, jwks)
        except Exception as error:
            result = Round(order, faults=[f"{type(error).__name__}: {error}"])
        tell(result)
        return result

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(one, orders))
