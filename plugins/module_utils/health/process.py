# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of a host: by name, or by the number in a pid file (proc(5))."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import HEALTHY, UNHEALTHY, UNKNOWN, Outcome

__all__ = ["check_process"]


@dataclass(frozen=True)
class _Process:
    pid: int
    names: frozenset[str]
    since: str


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _bytes_of(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def _boot_time() -> int:
    found = re.search(rb"^btime (\d+)$", _bytes_of("/proc/stat"), re.MULTILINE)
    return int(found[1]) if found else 0


def _process(pid: int) -> _Process | None:
    """A process that lives; None for one that has ended, also when nobody has buried it yet."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return None
    stat = _bytes_of(f"/proc/{pid}/stat")
    if not stat:
        return _Process(pid, frozenset(), "")
    name = stat[stat.index(b"(") + 1 : stat.rindex(b")")].decode("utf-8", "replace")
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    argv = _bytes_of(f"/proc/{pid}/cmdline").split(b"\0")
    names = {name, os.path.basename(argv[0]).decode("utf-8", "replace")}
    booted = _boot_time()
    since = _utc(booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")) if booted else ""
    return _Process(pid, frozenset(names - {""}), since)


def _pid_in(path: str) -> int:
    """The number in a pid file; 0 for anything else."""
    words = atomic.read_file(path)[:64].split()
    return int(words[0]) if words and words[0].isdigit() else 0


def check_process(health: Mapping[str, Any]) -> Outcome:
    """Look for the process; one that has ended counts as gone, also when nobody has buried it yet."""
    wanted = {key: value for key, value in (health["process"] or {}).items() if value}
    command = wanted.get("command")
    if wanted.get("pid_file"):
        return _check_pid_file(wanted["pid_file"], command)
    if not command:
        return Outcome(UNKNOWN, "process needs pid_file or command", final=True)
    found = [process for process in map(_process, _pids()) if process is not None and command in process.names]
    if not found:
        return Outcome(UNHEALTHY, f"no process {command}")
    return Outcome(HEALTHY, f"{len(found)} running", min(process.since for process in found))


def _pids() -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return []


def _check_pid_file(path: str, command: str | None) -> Outcome:
    try:
        pid = _pid_in(path)
    except KeyturnError as error:
        return Outcome(UNHEALTHY if error.code == "file-missing" else UNKNOWN, f"pid file {error.message}")
    if not pid:
        return Outcome(UNKNOWN, "pid file holds no number")
    process = _process(pid)
    if process is None:
        return Outcome(UNHEALTHY, f"process {pid} has ended")
    if command and command not in process.names:
        return Outcome(UNHEALTHY, f"process {pid} is not {command}")
    return Outcome(HEALTHY, f"process {pid} runs", process.since)
