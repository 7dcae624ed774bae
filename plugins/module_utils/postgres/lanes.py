# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several connections working side by side: the database writes one batch while another is encrypted."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, TypeVar

from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link

__all__ = ["Lanes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """One connection for each worker, opened when first needed.

    :param first: the connection that is there already; with one worker all work is done on it.
    :param open_link: opens another one.
    """

    def __init__(self, first: Link, open_link: Callable[[], Link], workers: int) -> None:
        self.first = first
        self._workers = max(1, workers)
        self._open_link = open_link
        self._links: list[Link] = []

    def close(self) -> None:
        """Close the connections that were opened here."""
        for link in self._links:
            link.close()
        self._links = []

    def each(self, work: Callable[[Link, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The result of ``work`` for each item, in their order; a few items are in work at once."""
        if self._workers == 1:
            for item in items:
                yield work(self.first, item)
            return
        while len(self._links) < self._workers:
            self._links.append(self._open_link())
        free: queue.SimpleQueue[Link] = queue.SimpleQueue()
        for link in self._links:
            free.put(link)

        def on_a_lane(item: Item) -> Result:
            lane = free.get()
            try:
                return work(lane, item)
            finally:
                free.put(lane)

        waiting: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(on_a_lane, item))
                    if len(waiting) >= 2 * self._workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
