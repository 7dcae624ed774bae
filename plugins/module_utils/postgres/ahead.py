# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One batch is written while the next is encrypted: else processor and database take turns where one worker is alone.

There is one connection and one batch on its way. Whoever reads with the connection settles first.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Callable, Generic, TypeVar

__all__ = ["Ahead"]

Result = TypeVar("Result")


class Ahead(Generic[Result]):
    """Writes in the order in which it is given them, one at a time.

    :param take: what becomes of each result, in the caller's own thread.
    :param sends: set by the write just before it sends what takes long. Until then the caller waits: two threads of
        Python do not run at once, and one that computes would keep the other from sending.
    :param is_on: otherwise each is written at once.
    """

    def __init__(self, take: Callable[[Result], None], sends: threading.Event, is_on: bool) -> None:
        self._take, self._sends = take, sends
        self._pool = ThreadPoolExecutor(1) if is_on else None
        self._on_its_way: Future[Result] | None = None

    def __enter__(self) -> Ahead[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last one. Where it failed, that counts more than what the block raised: it came before."""
        try:
            self.settle()
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=True)

    def put(self, write: Callable[[], Result]) -> None:
        """Write this one as soon as the one before is written.

        :raises Exception: what the one before raised; this one is not written then.
        """
        self.settle()
        if self._pool is None:
            self._take(write())
        else:
            self._sends.clear()
            self._on_its_way = self._pool.submit(self._run, write)
            self._sends.wait()

    def _run(self, write: Callable[[], Result]) -> Result:
        try:
            return write()
        finally:
            self._sends.set()

    def settle(self) -> None:
        """Wait until nothing is on its way.

        :raises Exception: what the write raised.
        """
        future, self._on_its_way = self._on_its_way, None
        if future is not None:
            self._take(future.result())
