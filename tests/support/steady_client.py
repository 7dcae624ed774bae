# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that asks all the time and counts what it gets."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections import Counter
from types import TracebackType

__all__ = ["SteadyClient"]

#: A slow answer on a busy machine is no failed request.
_PATIENCE = 60.0


class SteadyClient:
    """Asks an address from some threads until the context ends."""

    def __init__(self, url: str, threads: int = 3, pause: float = 0.01) -> None:
        self.url = url
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._pause = pause
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _number in range(threads)]

    def _ask(self) -> None:
        while not self._end.is_set():
            try:
                with urllib.request.urlopen(self.url, timeout=_PATIENCE) as answer:
                    self.answers[answer.read().decode().strip()] += 1
            except OSError as error:
                self.failures.append(str(error))
            time.sleep(self._pause)

    def __enter__(self) -> SteadyClient:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._end.set()
        for thread in self._threads:
            thread.join()
