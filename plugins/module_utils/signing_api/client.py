# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the API. Secrets go into headers and bodies; what comes back is shown nowhere."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import web
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api import declared
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.answers import (
    Issued,
    Listed,
    issued,
    kid_made,
    listed,
)

__all__ = ["PASSING", "Client", "LostError"]

#: What waiting may mend: the issuer starts again, or is slow to show what it did.
PASSING = ("signing-api-lost", "signing-api-token")


class LostError(KeyturnError):
    """Nobody knows whether the request was carried out."""


@dataclass(frozen=True)
class Client:
    """One API and who asks it.

    :param api: as :func:`declared.parse_api` gives it.
    :param headers: templates by name.
    :param secret: of the client that a token is issued to.
    :param timeout: seconds for each wait on the network.
    """

    api: Mapping[str, Any]
    bearer: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret: str = field(default="", repr=False)
    timeout: float = 10.0
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def look(self) -> Listed:
        """The keys as the list shows them.

        :raises KeyturnError: ``signing-api-refused``, ``signing-api-lost``, and what :func:`answers.listed` raises.
        """
        return listed(self._send("list"), self.api["list"], self._place("list"))

    def generate(self) -> str:
        """Make a key. Its kid, or an empty text where the answer does not say it.

        :raises KeyturnError: ``signing-api-refused``, ``signing-api-answer``; :class:`LostError`.
        """
        answer = self._send("generate")
        place = self.api["generate"].get("kid") or ""
        return kid_made(answer, place, self._place("generate")) if place else ""

    def change(self, step: str, kid: str) -> None:
        """Promote or disable a key.

        :param step: ``promote`` or ``disable``.
        :raises KeyturnError: ``signing-api-refused``; :class:`LostError`.
        """
        self._send(step, kid)

    def issued(self) -> Issued:
        """A token that is issued now, by the client-credentials grant (RFC 6749 section 4.4).

        :raises KeyturnError: ``signing-api-token``, ``signing-api-refused``, ``signing-api-lost``.
        """
        token = self.api["token"]
        form = {"grant_type": "client_credentials"}
        if token.get("scope"):
            form["scope"] = token["scope"]
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if token.get("auth") == "body":
            form.update(client_id=token["client"], client_secret=self.secret)
        else:
            pair = ":".join(urllib.parse.quote_plus(part) for part in (token["client"], self.secret))
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        content = urllib.parse.urlencode(form).encode()
        answer = self._ask("token", declared.address(self.api, token), "POST", headers, content)
        return issued(answer, self._place("token"))

    def _place(self, step: str) -> str:
        return f"{step} at {self.api['base']}"

    def _send(self, step: str, kid: str = "") -> str:
        request = self.api[step]
        headers = {"Accept": "application/json"}
        content = declared.body(request, kid)
        if content is not None:
            headers["Content-Type"] = "application/json"
        if request["auth"]:
            headers.update({name: declared.header(text, kid) for name, text in self.headers.items()})
            if self.bearer:
                headers["Authorization"] = f"Bearer {self.bearer}"
        url = declared.address(self.api, request, kid)
        return self._ask(step, url, request["method"], headers, content)

    def _ask(self, step: str, url: str, method: str, headers: Mapping[str, str], content: bytes | None) -> str:
        answer = web.ask(
            web.Question(
                url,
                method=method,
                headers=headers,
                body=b"" if content is None and method == "POST" else content,
                timeout=self.timeout,
                ca_file=self.ca_file,
                cert_file=self.cert_file,
                key_file=self.key_file,
            )
        )
        if answer.status is None or answer.status >= 500:
            said = answer.reason or f"HTTP {answer.status}"
            hint = "Look at the issuer, then run the same call again"
            raise LostError("signing-api-lost", f"no usable answer: {said}", where=self._place(step), hint=hint)
        if not 200 <= answer.status < 300:
            hint = "Check the path, the bearer, the headers and the client certificate"
            raise KeyturnError("signing-api-refused", f"HTTP {answer.status}", where=self._place(step), hint=hint)
        return answer.body
