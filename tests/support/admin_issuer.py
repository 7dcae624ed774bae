# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small issuer with an admin API: real HTTP, real keys, real tokens, and keys in memory until it is restarted."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.endpoint import Asked, Endpoint, endpoint

__all__ = ["AdminIssuer", "Reply", "admin_issuer"]

Reply = tuple[int, dict[str, str], str]
_PRIVATE = "d"


@dataclass
class _Key:
    """One row."""

    jwk: dict[str, Any]
    current: bool = False
    enabled: bool = True


@dataclass
class AdminIssuer:
    """What is stored, what it has in memory, and how its next answers go wrong.

    :param restart_file: it is restarted when this file is there.
    :param in_memory: whether it reads what is stored only when it is restarted.
    :param views: other addresses of the list, each with how it is shown there.
    :param faults: by step; each is called with the work of the request, once.
    """

    folder: Path
    in_memory: bool = False
    bearer: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    stored: dict[str, _Key] = field(default_factory=dict)
    faults: dict[str, Callable[[Callable[[], Reply]], Reply]] = field(default_factory=dict)
    views: dict[str, Callable[[Callable[[], Reply]], Reply]] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    privates: list[str] = field(default_factory=list)
    restarts: int = 0
    here: Endpoint = field(default_factory=lambda: Endpoint("", 0))
    _loaded: dict[str, tuple[dict[str, Any], bool]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        """The first key signs."""
        kid = self.make()
        self.stored[kid].current = True
        self._load()

    @property
    def restart(self) -> list[str]:
        """The command that restarts it."""
        return ["touch", str(self.folder / "restart")]

    def make(self) -> str:
        """Store one more key, which does not sign."""
        kid = secrets.token_urlsafe(12)
        key = ec.generate_private_key(ec.SECP256R1())
        jwk: dict[str, Any] = {**jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True), "kid": kid}
        self.privates.append(jwk[_PRIVATE])
        self.stored[kid] = _Key(jwk)
        return kid

    def _load(self) -> None:
        self._loaded = {kid: (key.jwk, key.current) for kid, key in self.stored.items() if key.enabled}

    def _keys(self) -> dict[str, tuple[dict[str, Any], bool]]:
        mark = self.folder / "restart"
        if mark.exists():
            mark.unlink()
            self.restarts += 1
            self._load()
        if not self.in_memory:
            self._load()
        return self._loaded

    def signing(self) -> str:
        """The kid of what it signs with now."""
        return next((kid for kid, (_jwk, current) in self._keys().items() if current), "")

    def asked(self, step: str) -> list[Asked]:
        """The requests of one step."""
        return [one for one in self.here.asked if self._step(one)[0] == step]

    @staticmethod
    def _step(asked: Asked) -> tuple[str, str]:
        parts = urllib.parse.urlsplit(asked.path)
        path = parts.path
        if path in ("/.well-known/jwks.json", "/oauth2/token"):
            return ("list" if path.endswith("json") else "token"), ""
        words = path.removeprefix("/api/v1/admin/keys").strip("/").split("/")
        if words in (["rotate"], [""]):
            return ("generate" if words == ["rotate"] else "admin_list"), ""
        if len(words) == 1:
            return words[0], urllib.parse.parse_qs(parts.query).get("kid", [""])[0]
        return words[1], urllib.parse.unquote(words[0])

    def answer(self, asked: Asked) -> Reply:
        """Do what was asked."""
        if asked.path in self.views:
            return self.views[asked.path](self._list)
        step, kid = self._step(asked)
        work: dict[str, Callable[[], Reply]] = {
            "list": self._list,
            "admin_list": self._admin_list,
            "token": lambda: self._token(asked),
            "generate": self._generate,
            "promote": lambda: self.answer_promote(kid),
            "disable": lambda: self._disable(kid),
        }
        if step not in ("list", "token") and asked.headers.get("Authorization") != f"Bearer {self.bearer}":
            return 401, {}, f"not {self.bearer}"
        fault = self.faults.pop(step, None)
        with self._lock:
            return fault(work[step]) if fault else work[step]()

    def _list(self) -> Reply:
        keys = [{k: v for k, v in jwk.items() if k != _PRIVATE} for jwk, _current in self._keys().values()]
        return 200, {"Cache-Control": "max-age=300"}, json.dumps({"keys": keys})

    def _admin_list(self) -> Reply:
        rows = [
            {"id": kid, "status": "current" if key.current else "other", "enabled": key.enabled}
            for kid, key in self.stored.items()
        ]
        return 200, {}, json.dumps({"data": {"rows": rows}})

    def _token(self, asked: Asked) -> Reply:
        pair = base64.b64encode(f"probe:{self.secret}".encode()).decode()
        form = urllib.parse.parse_qs(asked.body.decode())
        in_body = (form.get("client_id"), form.get("client_secret")) == (["probe"], [self.secret])
        if asked.headers.get("Authorization") != f"Basic {pair}" and not in_body:
            return 401, {}, "no such client"
        kid = self.signing()
        if form["grant_type"] != ["client_credentials"] or not kid:
            return 500, {}, "no keys available"
        key = jwt.PyJWK(self._keys()[kid][0]).key
        token = jwt.encode({"scope": form.get("scope")}, key, "ES256", {"kid": kid})
        self.tokens.append(token)
        return 200, {}, json.dumps({"access_token": token, "token_type": "Bearer"})

    def _generate(self) -> Reply:
        kid = self.make()
        return 200, {}, json.dumps({"nextKid": kid, "jwk": self.stored[kid].jwk})

    def answer_promote(self, kid: str) -> Reply:
        """Two updates: the first takes the mark away before the kid is looked for."""
        for key in self.stored.values():
            key.current = False
        if kid in self.stored:
            self.stored[kid].current = True
        return 200, {}, "{}"

    def _disable(self, kid: str) -> Reply:
        self.stored[kid].enabled = False
        return 200, {}, "{}"


@contextlib.contextmanager
def admin_issuer(
    folder: Path, tls: tuple[Path, Path] | None = None, clients: Path | None = None, **more: Any
) -> Iterator[AdminIssuer]:
    """An issuer with one key until the block ends."""
    one = AdminIssuer(folder, **more)
    with endpoint(one.answer, tls, clients) as here:
        one.here = here
        yield one
