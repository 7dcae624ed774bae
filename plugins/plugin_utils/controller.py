# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs this, from where, and which other runs this controller can see alive or dead."""

from __future__ import annotations

import getpass
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.processes import start_time

__all__ = ["identity", "on_record", "seen_alive", "whoami"]


def _place() -> str:
    """This boot and this process namespace; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        namespace = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        return ""
    return f"{boot}.{namespace}"


def _controller_pid() -> int:
    """The process of ``ansible-playbook``: actions run in workers that it forks."""
    return os.getppid()


def identity() -> dict[str, Any]:
    """``run_id`` (the same for all tasks of one ``ansible-playbook``), ``place``, ``user`` and ``controller``."""
    pid = _controller_pid()
    place = _place()
    return {
        "run_id": f"{place or platform.node()}.{pid}.{start_time(pid) or '0'}",
        "place": place,
        "user": whoami()["user"],
        "controller": platform.node(),
    }


def seen_alive(runs: Iterable[str]) -> dict[str, bool]:
    """For each run that was started from this boot and process namespace: whether its controller still lives."""
    place = _place()
    seen: dict[str, bool] = {}
    for run in runs:
        if place and run.startswith(f"{place}."):
            pid, start = run[len(place) + 1 :].split(".")[:2]
            seen[run] = start_time(int(pid)) == start
    return seen


def whoami(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Who runs this: the user, who stands behind sudo, and the job of AWX or of a CI system."""
    env = os.environ if environment is None else environment
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    who = {"user": user, "controller": platform.node()}
    for key, name in (
        ("sudo_user", "SUDO_USER"),
        ("awx_job", "JOB_ID"),
        ("ci", "CI_JOB_URL"),
        ("ci", "GITHUB_RUN_ID"),
    ):
        if env.get(name):
            who[key] = env[name]
    return who


def on_record(who: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`whoami` found, as a record of the evidence says it."""
    return {
        "user": who.get("user", "unknown"),
        **{key: who.get(key) for key in ("controller", "sudo_user", "ci")},
        "awx": {"job_id": who["awx_job"]} if who.get("awx_job") else None,
    }
