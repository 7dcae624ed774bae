# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client as a browser is one: it takes the public token from the page, presents it, and tries again when refused."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from types import TracebackType

__all__ = ["TIMEOUT", "Client"]

#: Seconds after which it does not wait for an answer any more.
TIMEOUT = 5.0
_PAUSE = 0.1
_RETRY = 0.2


class Client:
    """Asks until the context ends, and counts.

    A request is tried again until it is answered, so ``failed`` says little; ``longest_gap`` (seconds without any
    answer) says how long somebody had to wait.

    :param url: the gateway.
    :param patience: seconds after which a request that was tried again and again has failed.
    """

    def __init__(self, url: str, patience: float = 600.0) -> None:
        self.served = 0
        self.failed = 0
        self.refused = 0
        self.longest_gap = 0.0
        self._url = url
        self._patience = patience
        self._token = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __str__(self) -> str:
        """The figures in a line."""
        return (
            f"requests    {self.served} served, {self.failed} failed, longest gap {self.longest_gap:.1f} s;"
            f" a token was refused {self.refused} times and then fetched anew"
        )

    def __enter__(self) -> Client:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, after the request in hand."""
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        last = time.monotonic()
        while not self._ending.wait(_PAUSE):
            answered = self._ask_again_and_again()
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last)
            if answered:
                self.served += 1
                last = now
            else:
                self.failed += 1

    def _ask_again_and_again(self) -> bool:
        begun = time.monotonic()
        while not self._ask():
            if time.monotonic() - begun > self._patience:
                return False
            time.sleep(_RETRY)
        return True

    def _ask(self) -> bool:
        try:
            if not self._token:
                with urllib.request.urlopen(f"{self._url}/config.json", timeout=TIMEOUT) as answer:
                    self._token = json.load(answer)["anon_key"]
            request = urllib.request.Request(f"{self._url}/items", headers={"Authorization": f"Bearer {self._token}"})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return "items" in json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 401:
                self.refused += 1
                self._token = ""
            return False
        except (OSError, ValueError):
            return False
