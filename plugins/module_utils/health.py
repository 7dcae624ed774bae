# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether services are well: explicit states only, and none that nobody has seen.

A check is one key of a service's ``health``; :data:`CHECKERS` holds the function behind each, so a new way to look is
one more entry. What is missing, empty or still starting is never ``healthy``.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import (
    HEALTHY,
    RANK,
    STARTING,
    UNHEALTHY,
    UNKNOWN,
    Outcome,
    worst,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.polling import pauses
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_quietly

__all__ = [
    "CHECKERS",
    "HEALTHY",
    "STARTING",
    "UNHEALTHY",
    "UNKNOWN",
    "Outcome",
    "check",
    "observe",
    "parse_unit",
    "run",
    "worse",
]

_TIMEOUT = 5.0
_PARALLEL = 8

Clock = Callable[[], float]
Sleep = Callable[[float], None]
Checker = Callable[[Mapping[str, Any]], Outcome]


# -- ways to look ------------------------------------------------------------------------------------------------------


def _timeout(health: Mapping[str, Any]) -> float:
    return float(health.get("timeout") or _TIMEOUT)


# A host pays for what it imports in every execution, so what speaks to containers and to the web is read where it is
# needed: on most hosts one of them, or neither.


def _check_url(health: Mapping[str, Any]) -> Outcome:
    from ansible_collections.keyturn.rotation.plugins.module_utils import web

    headers = {str(name): str(value) for name, value in (health.get("headers") or {}).items()}
    answer = web.ask(
        web.Question(
            health["url"], headers=headers, timeout=_timeout(health), ca_file=health.get("ca_file"), follow=True
        )
    )
    if answer.status is None:
        return Outcome(UNHEALTHY, answer.reason)
    expected = health.get("expect_status") or [200]
    if answer.status not in expected:
        return Outcome(UNHEALTHY, f"HTTP {answer.status}, expected {', '.join(str(status) for status in expected)}")
    pattern = health.get("expect_body")
    if pattern and not re.search(pattern, answer.body):
        return Outcome(UNHEALTHY, f"HTTP {answer.status}, but the answer does not match expect_body")
    return Outcome(HEALTHY, f"HTTP {answer.status}")


def _address(text: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text)
    if not found or not 0 < int(found[3]) < 65536:
        return None
    return found[1] or found[2], int(found[3])


def _check_tcp(health: Mapping[str, Any]) -> Outcome:
    address = _address(health["tcp"])
    if address is None:
        return Outcome(UNKNOWN, "tcp is no host:port", final=True)
    try:
        with socket.create_connection(address, _timeout(health)):
            return Outcome(HEALTHY, "accepts connections")
    except socket.timeout:
        return Outcome(UNHEALTHY, f"no answer within {_timeout(health):g} s")
    except OSError as error:
        return Outcome(UNHEALTHY, f"no connection ({error.strerror or type(error).__name__})")


def _check_command(health: Mapping[str, Any]) -> Outcome:
    ending = run_quietly(health["command"], _timeout(health))
    if ending.code is None:
        return Outcome(UNKNOWN if ending.reason.startswith("cannot") else UNHEALTHY, ending.reason)
    return Outcome(UNHEALTHY if ending.code else HEALTHY, f"exit code {ending.code}")


# -- processes ---------------------------------------------------------------------------------------------------------


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


def _check_process(health: Mapping[str, Any]) -> Outcome:
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


# -- systemd -----------------------------------------------------------------------------------------------------------

_PROPERTIES = "LoadState,ActiveState,SubState,ActiveEnterTimestamp"
_RUNNING = ("running", "listening", "waiting", "mounted", "plugged", "active")


def parse_unit(text: str, running_is_enough: bool = False) -> Outcome:
    """What ``systemctl show`` says of a unit (systemd's D-Bus API, org.freedesktop.systemd1: unit states).

    :param text: ``Name=value`` lines of LoadState, ActiveState, SubState and ActiveEnterTimestamp, times in UTC.
    :param running_is_enough: accept a unit that is active although nothing of it runs any more (``exited``).
    """
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    load, active, sub = (said.get(name, "") for name in ("LoadState", "ActiveState", "SubState"))
    state = f"{active} ({sub})"
    if load == "not-found":
        return Outcome(UNKNOWN, "no such unit")
    if load != "loaded":
        return Outcome(UNHEALTHY if load == "masked" else UNKNOWN, f"unit is {load or 'not known'}")
    if active == "active":
        since = _unit_time(said.get("ActiveEnterTimestamp", ""))
        if sub in _RUNNING or (sub == "exited" and running_is_enough):
            return Outcome(HEALTHY, state, since)
        return Outcome(UNKNOWN, f"{state}: nothing of it runs", since)
    if sub.startswith("auto-restart"):
        return Outcome(UNHEALTHY, f"{state}: it keeps ending")
    if active in ("activating", "reloading", "refreshing"):
        return Outcome(STARTING, state)
    return Outcome(UNHEALTHY if active in ("inactive", "deactivating", "failed") else UNKNOWN, state)


def _unit_time(text: str) -> str:
    with contextlib.suppress(ValueError):
        return datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC").strftime("%Y-%m-%dT%H:%M:%SZ")
    return ""


def _check_systemd(health: Mapping[str, Any]) -> Outcome:
    argv = ["systemctl", "show", f"--property={_PROPERTIES}", "--", health["systemd"]]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
            timeout=_timeout(health),
            check=False,
        )
    except OSError:
        return Outcome(UNKNOWN, "there is no systemctl on this host", final=True)
    except subprocess.TimeoutExpired:
        return Outcome(UNKNOWN, "systemd does not answer")
    if done.returncode:
        return Outcome(UNKNOWN, "systemd does not answer")
    return parse_unit(done.stdout.decode("utf-8", "replace"), bool(health.get("running_is_enough")))


# -- Docker Compose ----------------------------------------------------------------------------------------------------


def _check_compose(health: Mapping[str, Any]) -> Outcome:
    """All containers of the service. Their own check counts; without one, running does where something else looks."""
    from ansible_collections.keyturn.rotation.plugins.module_utils import compose

    asked = health["compose"]
    try:
        with compose.connected(asked["place"].docker_host, _timeout(health)) as client:
            found = compose.inspected(client, asked["place"], asked["besides"])
    except KeyturnError as error:
        return Outcome(UNKNOWN, error.message, final=error.code == "docker-library-missing")
    return compose.judge(found, bool(health.get("running_is_enough")) or asked["other_checks"])


#: How to look, by the key of ``health`` that asks for it.
CHECKERS: dict[str, Checker] = {
    "url": _check_url,
    "tcp": _check_tcp,
    "process": _check_process,
    "systemd": _check_systemd,
    "command": _check_command,
    "compose": _check_compose,
}


# -- services ----------------------------------------------------------------------------------------------------------


def _declared(service: Mapping[str, Any]) -> dict[str, Any]:
    """The ``health`` of a service without what is not set; its own unit where running is said to be enough."""
    health = {key: value for key, value in (service.get("health") or {}).items() if value not in (None, "", [], {})}
    watched = any(key in health for key in CHECKERS)
    if health.get("running_is_enough") and not watched and service.get("unit"):
        health["systemd"] = service["unit"]
    if service.get("manager") == "compose":
        from ansible_collections.keyturn.rotation.plugins.module_utils import compose

        besides = tuple(service.get("besides") or ())
        health["compose"] = {"place": compose.place_of(service), "besides": besides, "other_checks": watched}
    return health


def check(service: Mapping[str, Any]) -> Outcome:
    """Look at one service once; with several checks the worst counts.

    :param service: ``health`` as in the catalog, ``unit`` where ``running_is_enough`` shall look at it, and where its
        ``manager`` is ``compose``, what finds its containers.
    """
    health = _declared(service)
    outcomes = [checker(health) for key, checker in CHECKERS.items() if key in health]
    if outcomes:
        lowest = worst(outcomes)
        since = lowest.since or max(outcome.since for outcome in outcomes)
        parts = next((outcome.parts for outcome in outcomes if outcome.parts is not None), None)
        return replace(lowest, since=since, parts=parts)
    if health.get("running_is_enough"):
        return Outcome(UNKNOWN, "running_is_enough needs a unit, systemd or process to look at", final=True)
    return Outcome(UNKNOWN, "no health check is declared", final=True)


def _validate(services: Sequence[Mapping[str, Any]]) -> None:
    names = [str(service["name"]) for service in services]
    for name in names:
        if names.count(name) > 1:
            raise KeyturnError(
                "service-twice", "is named twice", where=f"service {name}", hint="Name each service once"
            )
    for service in services:
        where, health = f"service {service['name']}", _declared(service)
        if "url" in health:
            from ansible_collections.keyturn.rotation.plugins.module_utils import web

            web.check_url(str(health["url"]), where)
        if "tcp" in health and _address(str(health["tcp"])) is None:
            raise KeyturnError("health-invalid", "tcp is no host:port", where=where, hint="Write 127.0.0.1:5432")
        try:
            re.compile(health.get("expect_body", ""))
        except re.error:
            raise KeyturnError(
                "health-invalid", "expect_body is no regular expression", where=where, hint="Escape special characters"
            ) from None


def _look(services: Sequence[Mapping[str, Any]]) -> dict[str, Outcome]:
    if not services:
        return {}
    with ThreadPoolExecutor(min(_PARALLEL, len(services))) as pool:
        return dict(zip((str(service["name"]) for service in services), pool.map(check, services)))


def observe(
    services: Sequence[Mapping[str, Any]],
    wait: float = 0.0,
    interval: float = 1.0,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> dict[str, Outcome]:
    """Look at services, and again at those that are not healthy, until all are or ``wait`` seconds are over.

    The last look is one at all of them: a service that was well for a moment only does not pass. It ends early when
    nothing that is left can become healthy.

    :param services: each with a ``restart_wait`` of its own is waited for so long instead, unless ``wait`` is 0.
    :param interval: the longest pause between two looks, in seconds; the first ones are shorter.
    :raises KeyturnError: ``service-twice``, ``health-invalid``, ``url-invalid``, ``header-invalid``,
        ``ca-file-unusable``.
    """
    _validate(services)
    began = clock()
    patience = {
        str(service["name"]): wait and float(wait if service.get("restart_wait") is None else service["restart_wait"])
        for service in services
    }
    seen = _look(services)
    together = True
    for pause in pauses(interval):
        behind = [service for service in services if seen[str(service["name"])].status != HEALTHY]
        if not behind and together:
            return seen
        if not behind:
            seen, together = _look(services), True
            continue
        left = began + max(patience.values()) - clock()
        hopeful = [
            service
            for service in behind
            if not seen[str(service["name"])].final and began + patience[str(service["name"])] > clock()
        ]
        if left <= 0 or not hopeful:
            return seen
        sleep(min(pause, left))
        seen.update(_look(behind))
        together = len(behind) == len(services)
    return seen


def worse(outcomes: Mapping[str, Outcome], baseline: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The services that are worse than before; one that is not there any more is ``unknown`` now.

    :param baseline: name to status, or to a mapping with ``status``; a status of no known name counts as unknown.
    """
    found: list[dict[str, Any]] = []
    for name in sorted(baseline):
        entry = baseline[name]
        status = str((entry.get("status") if isinstance(entry, Mapping) else entry) or "")
        before = status if status in RANK else UNKNOWN
        after = outcomes.get(name, Outcome(UNKNOWN, "not looked at this time"))
        if RANK[after.status] < RANK[before]:
            found.append({"name": name, "before": before, "after": after.status, "detail": after.detail})
    return found


def _sentence(outcomes: Iterable[tuple[str, Outcome]]) -> str:
    return "; ".join(f"{name} is {seen.status} ({seen.detail})" for name, seen in outcomes if seen.status != HEALTHY)


def _logs(service: Mapping[str, Any], outcome: Outcome, lines: int, values: Sequence[str]) -> list[str]:
    """The last lines of the worst container of a service, masked; none where the engine does not give them."""
    from ansible_collections.keyturn.rotation.plugins.module_utils import compose
    from ansible_collections.keyturn.rotation.plugins.module_utils.log_lines import mask_lines, values_in

    place = compose.place_of(service)
    try:
        with compose.connected(place.docker_host) as client:
            found = compose.inspected(client, place, tuple(service.get("besides") or ()))
            if not found:
                return []
            parts = outcome.parts or ()
            bad = min(parts, key=lambda part: RANK[compose.state_of(part.state, part.health).status], default=None)
            container = next((one for one in found if bad is not None and one.id == bad.id), found[0])
            secret = [value for one in found for value in values_in(one.environment)]
            return mask_lines(compose.last_lines(client, container, lines), [*values, *secret])
    except KeyturnError:
        return []


def _add_logs(params: Mapping[str, Any], answer: dict[str, Any], outcomes: Mapping[str, Outcome]) -> None:
    """Add ``log`` to what got worse, or to all that is not healthy."""
    got_worse = {entry["name"] for entry in answer["worse"]}
    services = {str(service["name"]): service for service in params["services"] if service.get("manager") == "compose"}
    wanted = {
        name
        for name in services
        if name in got_worse or (params.get("logs") == "unhealthy" and outcomes[name].status != HEALTHY)
    }
    lines = int(params.get("log_lines") or 0)
    if not wanted or lines < 1 or params.get("logs") == "none":
        return
    from ansible_collections.keyturn.rotation.plugins.module_utils.log_lines import kept_values

    values = kept_values(str(params.get("state_dir") or ""))
    for name in sorted(wanted):
        log = _logs(services[name], outcomes[name], lines, values)
        for entry in answer["worse"]:
            if entry["name"] == name:
                entry["log"] = log
        answer["services"][name]["log"] = log


def _shown(outcome: Outcome) -> dict[str, Any]:
    shown: dict[str, Any] = {"status": outcome.status, "detail": outcome.detail}
    if outcome.since:
        shown["since"] = outcome.since
    if outcome.parts is not None:
        shown["containers"] = [
            {"name": part.name, "state": part.state, "health": part.health} for part in outcome.parts
        ]
    return shown


def run(params: Mapping[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The result of the module ``service_health``: ``services``, ``healthy``, ``worse`` and a ``msg`` for people.

    No service at all is not healthy: nobody has seen one.
    """
    outcomes = observe(params["services"], params["wait"], params["interval"])
    problems = _sentence(outcomes.items()) if outcomes else "no service was named"
    answer: dict[str, Any] = {
        "changed": False,
        "services": {name: _shown(seen) for name, seen in outcomes.items()},
        "healthy": not problems,
        "worse": worse(outcomes, params["baseline"] or {}),
        "msg": problems or "all services are healthy",
    }
    _add_logs(params, answer, outcomes)
    return answer
