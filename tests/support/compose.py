# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small Compose projects on the tests' own Docker daemon, and what their containers really have."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from demo.dockerd import BASE_IMAGE

__all__ = ["Project", "sleeper"]

_QUICK = {"interval": "500ms", "timeout": "2s", "retries": 2}


def sleeper(check: str = "true", **more: Any) -> dict[str, Any]:
    """A Compose service that does nothing; it is well while ``check``, a line of shell, says so."""
    service: dict[str, Any] = {
        "image": BASE_IMAGE,
        "command": ["sh", "-c", "trap 'exit 0' TERM; echo began; sleep 3600 & wait"],
        "network_mode": "none",
        "init": True,
        "stop_grace_period": "2s",
        "healthcheck": {"test": ["CMD-SHELL", check], **_QUICK},
    }
    if not check:
        del service["healthcheck"]
    return {**service, **more}


class Project:
    """One Compose project in a folder of its own; gone with everything when the context ends.

    :param docker_host: the daemon.
    :param files: name of each Compose file to its content.
    :param environment: what ``.env`` holds.
    """

    #: More options of Compose itself, as a person may start it with.
    options: list[str]

    def __init__(
        self, folder: Path, docker_host: str, files: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.name = folder.name
        self.docker_host = docker_host
        self._files = list(files)
        self.options: list[str] = []
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        self.write_environment(**(environment or {}))

    def __enter__(self) -> Project:
        """Start it."""
        self.compose("up", "--detach", "--wait")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove its containers, whatever has become of the Compose files."""
        subprocess.run(
            ["docker", "--host", self.docker_host, "compose", "--project-name", self.name, "down", "--timeout=1"],
            cwd=self.folder.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )

    def write_environment(self, **environment: str) -> None:
        """Write ``.env``."""
        path = self.folder / ".env"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))

    def compose(self, *arguments: str) -> str:
        """Run Compose; what it prints."""
        files = [f"--file={self.folder / name}" for name in self._files]
        done = subprocess.run(
            [
                "docker",
                "compose",
                *files,
                "--project-directory",
                str(self.folder),
                "--project-name",
                self.name,
                *self.options,
                *arguments,
            ],
            env={**os.environ, "DOCKER_HOST": self.docker_host},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"docker compose {arguments[0]}: {done.stderr[-1500:]}")
        return done.stdout

    def entry(self, service: str, **more: Any) -> dict[str, Any]:
        """A service as the catalog has it."""
        found: dict[str, Any] = {
            "manager": "compose",
            "project_dir": str(self.folder),
            "project": self.name,
            "service": service,
            "docker_host": self.docker_host,
        }
        if len(self._files) > 1:
            found["files"] = self._files
        return {**found, **more}

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What the daemon says of each container of a service."""
        ids = self.compose("ps", "--all", "--quiet", service).split()
        if not ids:
            return []
        shown = subprocess.run(
            ["docker", "--host", self.docker_host, "inspect", *ids], capture_output=True, text=True, check=True
        )
        found: list[dict[str, Any]] = json.loads(shown.stdout)
        return found

    def address(self, service: str) -> str:
        """The address of its first container on its first network; this machine reaches it."""
        networks = self.containers(service)[0]["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def environment(self, service: str) -> list[dict[str, str]]:
        """The environment that each container of a service really has."""
        return [
            dict(entry.split("=", 1) for entry in container["Config"]["Env"]) for container in self.containers(service)
        ]

    def ids(self, service: str) -> set[str]:
        """The containers of a service."""
        return {container["Id"] for container in self.containers(service)}

    def execute(self, service: str, line: str, index: int = 1) -> str:
        """Run a line of shell in a container."""
        return self.compose("exec", "--no-TTY", f"--index={index}", service, "sh", "-c", line)
