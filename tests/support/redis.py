# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Redis server for tests, from the Debian package ``redis-server``, with all it was told in its slow log."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import redis
from demo.postgres import free_port
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["RedisServer"]


class RedisServer:
    """One server with a folder of its own.

    :param password: the ``requirepass``.
    :param way: how it is started: ``config_file``, ``acl_file`` (which the first start writes), or ``arguments``.
    """

    def __init__(self, folder: Path, password: str, way: str = "config_file") -> None:
        self.folder, self.way, self.port = folder, way, free_port()
        folder.mkdir(parents=True)
        self._settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "slowlog-log-slower-than": "0",
            "slowlog-max-len": "10000",
            "logfile": str(folder / "server.log"),
            "loglevel": "debug",
        }
        if way == "acl_file":
            self.acl_file.write_text(f"user default on >{password} ~* &* +@all\n")
            self._settings["aclfile"] = str(self.acl_file)
        else:
            self._settings["requirepass"] = password
        if way != "arguments":
            lines = [
                f'{name} "{value}"' if value == "" else f"{name} {value}" for name, value in self._settings.items()
            ]
            self.config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "redis.conf"

    @property
    def acl_file(self) -> Path:
        """The ACL file."""
        return self.folder / "users.acl"

    @property
    def address(self) -> str:
        """As the catalog has it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = ["redis-server"]
        if self.way == "arguments":
            for name, value in self._settings.items():
                words += [f"--{name}", value]
        else:
            words.append(str(self.config))
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _attempt in range(500):
            if self.accepts("wrong") is not None:
                return
            time.sleep(0.02)
        raise RuntimeError("Redis does not start")

    def stop(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def link(self, password: str, user: str = "default") -> Any:
        """A connection."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            username=user,
            password=password,
            protocol=2,
            decode_responses=True,
            socket_timeout=20,
            retry=Retry(NoBackoff(), 0),
        )

    def accepts(self, password: str, user: str = "default") -> bool | None:
        """Whether it lets this login in; None when it does not answer."""
        link = self.link(password, user)
        try:
            link.ping()
        except redis.AuthenticationError:
            return False
        except redis.exceptions.NoPermissionError:
            return True
        except redis.ConnectionError:
            return None
        finally:
            link.close()
        return True
