# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with secrets in dotenv files: what many secrets cost against one, and many hosts against empty modules."""

from __future__ import annotations

import json
import resource
import secrets
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.bench.report import Figure, Report
from tests.support.controller import Controller
from tests.support.local import LOCAL

__all__ = ["Cost", "Fleet", "hosts", "many_secrets"]

_COUNTER = Path(__file__).resolve().parents[1] / "support/callbacks"
_SERVICE = {"manager": "command", "start": ["true"], "stop": ["true"], "health": {"command": ["true"]}}


@dataclass(frozen=True)
class Cost:
    """What a playbook took: seconds by the clock, and seconds of processor with all that it started."""

    seconds: float
    processor: float


def _measured(work: Callable[[], object]) -> Cost:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    started, before = time.perf_counter(), spent()
    work()
    return Cost(time.perf_counter() - started, spent() - before)


class Fleet:
    """Hosts on this machine, the first of which keeps the register.

    :param secrets_per_file: how many each of ``files`` holds, on every host.
    :param served: whether a service reads them and is restarted.
    """

    def __init__(self, folder: Path, count: int, files: int, secrets_per_file: int, *, served: bool) -> None:
        self.folder = folder
        self.hosts = [f"h{number:02}" for number in range(1, count + 1)]
        self.log = folder / "executions"
        self.inventory = folder / "inventory.yml"
        self.names = []
        variables: dict[str, Any] = {
            **LOCAL,
            "keyturn_state_host": self.hosts[0],
            "keyturn_services": {"app": {"hosts": "all", **_SERVICE}} if served else {},
            "keyturn_secrets": {},
        }
        for file in range(files):
            names = [f"SECRET_{file}_{number}" for number in range(secrets_per_file)]
            self.names += names
            content = "".join(f"{name}={secrets.token_hex(16)}\n" for name in names)
            for host in self.hosts:
                place = self._file(host, file)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch(0o600)
                place.write_text(content)
            for name in names:
                variables["keyturn_secrets"][name] = {
                    "kind": "env_secret",
                    "generate": {"type": "string", "length": 40},
                    "stores": [
                        {"hosts": host, "type": "env_file", "path": str(self._file(host, file))} for host in self.hosts
                    ],
                    "consumers": ["app"] if served else [],
                    "overlap_min": "0s",
                }
        hosts = {host: {"keyturn_state_dir": str(folder / host / "state")} for host in self.hosts}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": variables, "hosts": hosts}}))
        self._controller = Controller(
            folder / "home",
            {
                "ANSIBLE_FORKS": str(count),
                "ANSIBLE_CALLBACK_PLUGINS": str(_COUNTER),
                "ANSIBLE_CALLBACKS_ENABLED": "count_executions",
                "KEYTURN_EXECUTIONS": str(self.log),
            },
        )

    def _file(self, host: str, number: int) -> Path:
        return self.folder / host / f"{number}.env"

    def values(self, host: str) -> dict[str, str]:
        """What the files of a host hold, by secret."""
        lines = [line for path in sorted((self.folder / host).glob("*.env")) for line in path.read_text().splitlines()]
        return dict(line.split("=", 1) for line in lines)

    def rotate(self, names: Sequence[str] = ()) -> Cost:
        """Turn these secrets, or all, on every host.

        :raises RuntimeError: it did not turn.
        """
        self.log.unlink(missing_ok=True)
        only = ",".join(names or self.names)
        ended = []
        cost = _measured(lambda: ended.append(self._controller.run(self.inventory, "rotate", only=only)))
        if ended[0].code != 0:
            raise RuntimeError(ended[0].output)
        return cost

    def executions(self) -> dict[str, int]:
        """Module executions of the last rotation by host."""
        rows = [json.loads(line) for line in self.log.read_text().splitlines()]
        return {host: sum(row["host"] == host for row in rows) for host in self.hosts}

    def empty(self, counts: dict[str, int]) -> Cost:
        """A play of as many empty modules on each host: those of all hosts first, then what the first has besides."""
        everywhere = min(counts.values())
        ping = "    - ansible.builtin.ping:\n        data: {}\n"
        tasks = [ping.format(number) for number in range(everywhere)]
        besides = range(everywhere, max(counts.values()))
        tasks += [f"{ping.format(number)}      run_once: true\n" for number in besides]
        play = self.folder / "empty.yml"
        play.write_text(f"- hosts: all\n  gather_facts: false\n  tasks:\n{''.join(tasks)}")
        command = self._controller.command(self.inventory, "rotate")
        command[command.index("keyturn.rotation.rotate")] = str(play)

        def run() -> None:
            subprocess.run(
                command, env=self._controller.environment, cwd=self.folder, check=True, stdout=subprocess.DEVNULL
            )

        return _measured(run)


def _ratio(report: Report, name: str, pairs: Sequence[tuple[Cost, Cost]], against: str) -> None:
    seconds = statistics.median(work.seconds / floor.seconds for work, floor in pairs)
    processor = statistics.median(work.processor / floor.processor for work, floor in pairs)
    floors = statistics.median(floor.seconds for _work, floor in pairs)
    report.add(Figure(name, seconds, f"{against}, {floors:.1f} s", len(pairs)))
    report.add(Figure(f"{name}_processor", processor, f"{against}, time of processor", len(pairs)))


def many_secrets(report: Report, folder: Path, runs: int = 3) -> None:
    """Thirty secrets in three files on one host against one of them; nothing is restarted."""
    pairs = []
    for number in range(runs):
        fleet = Fleet(folder / f"secrets{number}", 1, 3, 10, served=False)
        one = fleet.rotate(fleet.names[:1])
        few = fleet.executions()
        fleet = Fleet(folder / f"secrets{number}-all", 1, 3, 10, served=False)
        pairs.append((fleet.rotate(), one))
        print(f"module executions: {fleet.executions()} for thirty secrets, {few} for one")
    _ratio(report, "thirty_secrets", pairs, "one secret")


def hosts(report: Report, folder: Path, count: int = 20, runs: int = 1) -> None:
    """A secret on many hosts, with a service that reads it, against a play of as many empty modules."""
    pairs = []
    for number in range(runs):
        fleet = Fleet(folder / f"hosts{number}", count, 1, 1, served=True)
        cost = fleet.rotate()
        counts = fleet.executions()
        print(f"module executions per host: {min(counts.values())}, on the state host: {max(counts.values())}")
        pairs.append((cost, fleet.empty(counts)))
    _ratio(report, f"{count}_hosts", pairs, "as many empty modules")
