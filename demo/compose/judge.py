# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says whether exactly what should have turned has turned: in files, containers and servers.

``mark`` remembers the stack as it is, in a file of mode 0600; ``judge`` compares with that.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psycopg
import redis

from demo.compose.stack import Stack
from demo.dotenv import read_env

__all__ = ["Verdict", "judge", "mark"]

_URL = "DATABASE_URL"
#: What each container gets, and from whose files.
_GIVEN = {
    "db": ("core", ["POSTGRES_PASSWORD"]),
    "cache": ("core", ["REDIS_PASSWORD"]),
    "api": ("core", ["REDIS_PASSWORD", "JWT_SECRET", "SESSION_SECRET", _URL]),
    "gateway": ("core", ["ANON_KEY"]),
    "worker": ("jobs", ["REDIS_PASSWORD", "SERVICE_ROLE_KEY", _URL]),
}
#: What is checked by somebody else.
_CHECKED = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "ANON_KEY")


@dataclass
class Verdict:
    """What was seen.

    :param wrong: each thing that is not as it should be, in a line without any value.
    """

    turned: list[str]
    values: int = 0
    containers: int = 0
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all of it is right."""
        return not self.wrong

    def __str__(self) -> str:
        """One line, and one for each thing that is wrong."""
        turned = ", ".join(self.turned) or "nothing"
        line = f"turned: {turned}; {self.values} values in {self.containers} containers as their files say"
        line += f"; accepted: {', '.join(self.accepted)}; refused: {', '.join(self.refused) or 'nothing'}"
        return "\n".join([line, *(f"WRONG: {entry}" for entry in self.wrong)])


def mark(stack: Stack) -> None:
    """Remember what the files hold and which containers there are."""
    kept = {
        "values": stack.values(),
        "files": {str(path): base64.b64encode(path.read_bytes()).decode() for path in stack.env_files},
        "containers": {name: entry["Id"] for name, entry in stack.containers().items()},
    }
    with os.fdopen(os.open(stack.folder / "mark.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(kept, stream)


def judge(stack: Stack, turned: Collection[str]) -> Verdict:
    """Compare with what was remembered.

    :param turned: the secrets that should have another value now; with none, every file must be as it was, to the byte.
    """
    verdict = Verdict(sorted(turned))
    kept = json.loads((stack.folder / "mark.json").read_text(encoding="utf-8"))
    now = stack.values()
    _judge_files(stack, verdict, kept, now)
    _judge_containers(stack, verdict, kept["containers"])
    for name in _CHECKED:
        place = f"core/keyturn-shop/.env:{name}"
        _judge_login(stack, verdict, name, now[place], kept["values"][place])
    return verdict


def _secret(place: str) -> str:
    """The secret that stands at a place."""
    name = place.partition(":")[2]
    return "POSTGRES_PASSWORD" if name == _URL else name


def _judge_files(stack: Stack, verdict: Verdict, kept: dict[str, dict[str, str]], now: dict[str, str]) -> None:
    if now.keys() != kept["values"].keys():
        verdict.wrong.append("a file has other variables than before")
    for place, before in kept["values"].items():
        if (now.get(place) != before) != (_secret(place) in verdict.turned):
            verdict.wrong.append(f"{place} is {'as before' if now.get(place) == before else 'another'}")
    for path in stack.env_files:
        if path.stat().st_mode & 0o777 != 0o600:
            verdict.wrong.append(f"{path.relative_to(stack.folder)} has the mode {path.stat().st_mode & 0o777:o}")
        if not verdict.turned and base64.b64encode(path.read_bytes()).decode() != kept["files"][str(path)]:
            verdict.wrong.append(f"{path.relative_to(stack.folder)} has other bytes")


def _judge_containers(stack: Stack, verdict: Verdict, before: dict[str, str]) -> None:
    core = {**read_env(stack.env_files[1]), **read_env(stack.env_files[0])}
    core[_URL] = f"postgres://app:{core['POSTGRES_PASSWORD']}@db/app"
    files = {"core": core, "jobs": read_env(stack.env_files[2])}
    if urlsplit(files["jobs"][_URL]).password != core["POSTGRES_PASSWORD"]:
        verdict.wrong.append("the hosts have different passwords of the database")
    for name in ("REDIS_PASSWORD", "SERVICE_ROLE_KEY"):
        if files["jobs"][name] != core[name]:
            verdict.wrong.append(f"the hosts have a different {name}")
    found = stack.containers()
    for service, (host, names) in _GIVEN.items():
        container = found.get(service)
        state = (container or {}).get("State", {}).get("Health", {}).get("Status")
        if container is None or state != "healthy":
            verdict.wrong.append(f"{service} is {state or 'not there'}")
            continue
        verdict.containers += 1
        environment = dict(entry.split("=", 1) for entry in container["Config"]["Env"])
        for name in names:
            verdict.values += 1
            if environment.get(name) != files[host][name]:
                verdict.wrong.append(f"the container of {service} has another {name} than the file")
        concerned = any(_secret(f":{name}") in verdict.turned for name in names)
        anew = container["Id"] != before[service]
        if verdict.turned and anew != concerned:
            verdict.wrong.append(f"the container of {service} was {'made anew' if anew else 'not made anew'}")


def _judge_login(stack: Stack, verdict: Verdict, name: str, now: str, before: str) -> None:
    """The value of now is accepted; that of before is refused if another one has come."""
    if _accepts(stack, name, now):
        verdict.accepted.append(name)
    else:
        verdict.wrong.append(f"{name} is refused")
    replaced = name in verdict.turned and (name != "ANON_KEY" or "JWT_SECRET" in verdict.turned)
    if now == before or not replaced:
        return
    if _accepts(stack, name, before):
        verdict.wrong.append(f"the {name} of before is still accepted")
    else:
        verdict.refused.append(f"{name} of before")


def _accepts(stack: Stack, name: str, value: str) -> bool:
    """Ask the server that checks it, over TCP.

    :raises OSError: when it does not answer.
    """
    if name == "POSTGRES_PASSWORD":
        try:
            psycopg.connect(
                host=stack.address("db"), user="app", dbname="app", password=value, connect_timeout=5
            ).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" not in str(error):
                raise
            return False
        return True
    if name == "REDIS_PASSWORD":
        client = redis.Redis(stack.address("cache"), password=value, socket_timeout=5)
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return False
        finally:
            client.close()
    request = urllib.request.Request(f"{stack.gateway}/items", headers={"Authorization": f"Bearer {value}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        return False
