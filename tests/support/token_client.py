# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that gets tokens all the time and presents fresh and old ones to every gateway."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

import jwt

from tests.support.peers import Peers

__all__ = ["Held", "Presented", "TokenClient"]


@dataclass(frozen=True)
class Held:
    """A token, and what it says of itself."""

    text: str
    kid: str
    issued: float
    expires: float

    @classmethod
    def of(cls, text: str) -> Held:
        """Read a token."""
        claims = jwt.decode(text, options={"verify_signature": False})
        return cls(text, jwt.get_unverified_header(text)["kid"], claims["iat"], claims["exp"])


@dataclass(frozen=True)
class Presented:
    """One request: to whom, with which token, when, and what came."""

    gateway: str
    token: Held
    sent: float
    answered: float
    status: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.gateway}: {self.status} for {self.token.kid}, {self.sent - self.token.issued:.1f} s old"

    @property
    def is_accepted(self) -> bool:
        """Whether it was let in."""
        return self.status == "200"

    @property
    def is_failure(self) -> bool:
        """Whether it was not, though the token was valid when the answer was there."""
        return not self.is_accepted and self.answered < self.token.expires

    @property
    def is_aged(self) -> bool:
        """Whether the token had lived for more than half of its time."""
        return self.sent - self.token.issued > (self.token.expires - self.token.issued) / 2


@dataclass
class TokenClient:
    """Asks each gateway from a thread of its own: in turn with the newest token, the oldest valid one, and the others.

    :param others: tokens that somebody else has made.
    :param log: every request.
    :param without: why no token was given, each time that happened.
    """

    peers: Peers
    others: tuple[str, ...] = ()
    pause: float = 0.2
    log: list[Presented] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    _held: dict[str, Held] = field(default_factory=dict)
    _end: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def _get(self) -> None:
        try:
            token = Held.of(self.peers.token())
        except (OSError, jwt.PyJWTError) as error:
            self.without.append(str(error))
            return
        with self._lock:
            self._held[token.text] = token

    def _present(self, gateway: str, token: Held) -> None:
        sent = time.time()
        try:
            status = str(self.peers.present(gateway, token.text))
        except OSError as error:
            status = str(error)
        with self._lock:
            self.log.append(Presented(gateway, token, sent, time.time(), status))

    def _collect(self) -> None:
        while not self._end.wait(2 * self.pause):
            self._get()

    def _ask(self, gateway: str) -> None:
        others = [Held.of(text) for text in self.others]
        turn = 0
        while not self._end.wait(self.pause):
            with self._lock:
                valid = [token for token in self._held.values() if token.expires > time.time()]
            choice = [*valid[:1], *valid[-1:], *others]
            if choice:
                turn += 1
                self._present(gateway, choice[turn % len(choice)])

    @property
    def failures(self) -> list[str]:
        """Every request for a token, or with one that was valid, that failed."""
        with self._lock:
            return [*self.without, *(str(one) for one in self.log if one.is_failure)]

    def accepted(self, gateway: str) -> list[Presented]:
        """What a gateway has let in."""
        with self._lock:
            return [one for one in self.log if one.gateway == gateway and one.is_accepted]

    @property
    def kids(self) -> set[str]:
        """The kids whose tokens every gateway has let in."""
        return set.intersection(*({one.token.kid for one in self.accepted(name)} for name in self.peers.gateways))

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
