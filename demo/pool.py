# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small pool of database connections for the threads of one process."""

from __future__ import annotations

import collections
import contextlib
import select
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

__all__ = ["Connection", "Pool"]

Connection = psycopg.Connection[tuple[Any, ...]]

_OPTIONS = "-c statement_timeout=5s -c lock_timeout=4s -c idle_in_transaction_session_timeout=10s"
_CONNECT_SECONDS = 2
_WAIT_SECONDS = 5.0


class Pool:
    """Hands out connections in autocommit mode, at most ``size`` at once; no statement is ever tried twice.

    :param url: the connection URL.
    :param application: what the server shows as ``application_name``.
    """

    def __init__(self, url: str, application: str, size: int = 8) -> None:
        self._url = url
        self._application = application
        self._places = threading.BoundedSemaphore(size)
        self._idle: collections.deque[Connection] = collections.deque()

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A live connection for the block.

        :raises psycopg.OperationalError: when the server cannot be reached or all connections stay in use.
        """
        if not self._places.acquire(timeout=_WAIT_SECONDS):
            raise psycopg.OperationalError("all connections are in use")
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._places.release()

    def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and not select.select([connection.fileno()], [], [], 0)[0]:
                return connection
            connection.close()  # an idle connection with something to read: the server has ended it
        return psycopg.connect(
            self._url,
            autocommit=True,
            application_name=self._application,
            options=_OPTIONS,
            connect_timeout=_CONNECT_SECONDS,
        )

    def _give_back(self, connection: Connection) -> None:
        if not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()
