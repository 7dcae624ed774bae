# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small issuer and gateways in front of it: real HTTP, real signatures, real caches.

The issuer publishes its keys; a gateway keeps what it fetched for as long as the header says, answers with it, and lets
a token in when a key that it knows verifies it. Signatures are checked by PyJWT, so not by what is tested.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from tests.support.endpoint import Asked, Endpoint, endpoint

__all__ = ["Gateway", "Issuer", "gateway", "issuer"]

Reply = tuple[int, Mapping[str, str], str]


@dataclass
class Issuer:
    """What it publishes, and how it answers."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=lambda: {"Cache-Control": "public, max-age=300"})
    status: int = 200
    here: Endpoint = field(default_factory=lambda: Endpoint("", 0))

    @property
    def url(self) -> str:
        """Where the keys are."""
        return f"{self.here.url}/.well-known/jwks.json"

    def answer(self, _asked: Asked) -> Reply:
        """The keys as they are now."""
        return self.status, self.headers, json.dumps({"keys": self.keys})


@contextlib.contextmanager
def issuer(*keys: Mapping[str, Any], **more: Any) -> Iterator[Issuer]:
    """An issuer that publishes these public keys until the block ends."""
    one = Issuer([dict(key) for key in keys], **more)
    with endpoint(one.answer) as here:
        one.here = here
        yield one


@dataclass
class Gateway:
    """A gateway with a cache of its own.

    :param clock: seconds; a test that moves it need not wait.
    :param unknown_kid: whether it fetches again for a token whose kid it does not know.
    """

    source: str
    clock: Callable[[], float] = time.monotonic
    unknown_kid: bool = False
    here: Endpoint = field(default_factory=lambda: Endpoint("", 0))
    fetched: int = 0
    _body: str = ""
    _since: float = 0.0
    _lifetime: float = -1.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where it shows the keys."""
        return f"{self.here.url}/.well-known/jwks.json"

    @property
    def api(self) -> str:
        """What it guards."""
        return f"{self.here.url}/api"

    def purge(self) -> None:
        """Forget what was fetched, as a restart does."""
        self._lifetime = -1.0

    def _fetch(self) -> None:
        with urllib.request.urlopen(self.source) as response:
            self._body = response.read().decode()
            directives = response.headers.get("Cache-Control", "")
        self._lifetime = float(directives.partition("max-age=")[2].partition(",")[0] or 0)
        self._since = self.clock()
        self.fetched += 1

    def _known(self) -> dict[str, Any]:
        if self.clock() - self._since >= self._lifetime:
            self._fetch()
        return {key["kid"]: key for key in json.loads(self._body)["keys"]}

    def _lets_in(self, token: str) -> bool:
        try:
            kid = str(jwt.get_unverified_header(token).get("kid"))
            if kid not in self._known() and self.unknown_kid:
                self._fetch()
            key = jwt.PyJWK(self._known()[kid])
            jwt.decode(token, key, algorithms=[key.algorithm_name], options={"verify_aud": False})
        except (jwt.PyJWTError, KeyError):
            return False
        return True

    def answer(self, asked: Asked) -> Reply:
        """The keys, or whether a token is let in."""
        with self._lock:
            if asked.path == "/purge":
                self.purge()
                return 200, {}, "purged"
            if asked.path != "/api":
                self._known()
                age = int(self.clock() - self._since)
                return 200, {"Cache-Control": f"max-age={self._lifetime:.0f}", "Age": str(age)}, self._body
            token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
            return (200 if self._lets_in(token) else 401), {}, ""


@contextlib.contextmanager
def gateway(source: str, **more: Any) -> Iterator[Gateway]:
    """A gateway in front of an issuer until the block ends."""
    one = Gateway(source, **more)
    with endpoint(one.answer) as here:
        one.here = here
        yield one
