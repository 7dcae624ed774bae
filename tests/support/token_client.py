# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that gets tokens all the time and presents fresh and old ones to every gateway."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

import jwt

from tests.support.peers import Peers

__all__ = ["Held", "TokenClient"]


@dataclass(frozen=True)
class Held:
    """A token that the issuer gave."""

    text: str
    kid: str
    issued: float
    expires: float

    @classmethod
    def of(cls, text: str) -> Held:
        """Read what a token says of itself."""
        claims = jwt.decode(text, options={"verify_signature": False})
        return cls(text, jwt.get_unverified_header(text)["kid"], claims["iat"], claims["exp"])


@dataclass
class TokenClient:
    """Asks each gateway from a thread of its own, in turn with the newest token and with the oldest that is valid.

    :param accepted: requests that were let in, by gateway and kid.
    :param aged: those of them with a token that had lived for more than half of its time, by gateway.
    :param failures: everything else: what was asked, of whom, how old the token was, and what came. Only a token that
        had ended by the time of the answer is no failure.
    """

    peers: Peers
    pause: float = 0.2
    accepted: Counter[tuple[str, str]] = field(default_factory=Counter)
    aged: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)
    _end: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def _get(self) -> None:
        try:
            token = Held.of(self.peers.token())
        except (OSError, jwt.PyJWTError) as error:
            self.failures.append(f"no token: {error}")
            return
        with self._lock:
            self.held[token.text] = token

    def _valid(self) -> list[Held]:
        with self._lock:
            return [token for token in self.held.values() if token.expires > time.time() + 0.2]

    def _present(self, gateway: str, token: Held) -> None:
        age = time.time() - token.issued
        try:
            status = str(self.peers.present(gateway, token.text))
        except OSError as error:
            status = str(error)
        with self._lock:
            if status == "200":
                self.accepted[gateway, token.kid] += 1
                self.aged[gateway] += age > (token.expires - token.issued) / 2
            elif time.time() < token.expires:
                self.failures.append(f"{gateway} answered {status} to a token of {token.kid}, {age:.1f} s old")

    def _collect(self) -> None:
        while not self._end.wait(2 * self.pause):
            self._get()

    def _ask(self, gateway: str) -> None:
        choice = 0
        while not self._end.wait(self.pause):
            valid = self._valid()
            if valid:
                choice = -1 if choice == 0 else 0
                self._present(gateway, valid[choice])

    def requests(self, gateway: str) -> int:
        """How many were let in by a gateway."""
        with self._lock:
            return sum(count for (name, _kid), count in self.accepted.items() if name == gateway)

    def kids(self, gateways: Sequence[str]) -> set[str]:
        """The kids whose tokens every one of these gateways has let in."""
        with self._lock:
            return set.intersection(*({kid for name, kid in self.accepted if name == one} for one in gateways))

    def __enter__(self) -> TokenClient:
        """Begin, with a token in hand."""
        self._get()
        self._threads = [threading.Thread(target=self._collect)]
        self._threads += [threading.Thread(target=self._ask, args=(gateway,)) for gateway in self.peers.gateways]
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
