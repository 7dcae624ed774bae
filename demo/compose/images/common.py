# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API and the worker share: their connections, and a fault for those who want to see one."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import redis

__all__ = ["ERRORS", "Stores", "content"]

#: What goes wrong while a server is made anew or refuses a password.
ERRORS = (psycopg.Error, redis.RedisError, OSError)
_FAULTS = Path("/srv/faults")
_PATIENCE = 2


class Stores:
    """PostgreSQL and Redis, connected once and again after an error."""

    def __init__(self) -> None:
        self._database: psycopg.Connection | None = None
        self.redis = redis.Redis("cache", password=os.environ["REDIS_PASSWORD"], socket_timeout=_PATIENCE)

    @property
    def database(self) -> psycopg.Connection:
        """A connection that is believed to work."""
        if self._database is None:
            url = os.environ["DATABASE_URL"]
            self._database = psycopg.connect(url, connect_timeout=_PATIENCE, autocommit=True)
        return self._database

    def forget(self) -> None:
        """Connect anew next time."""
        if self._database is not None:
            self._database.close()
        self._database = None


def content() -> bool:
    """Whether no variable has another value than the one it was pinned to, in a file of its name."""
    pinned = _FAULTS.iterdir() if _FAULTS.is_dir() else ()
    return all(os.environ.get(path.name) == path.read_text() for path in pinned)
