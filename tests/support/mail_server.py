# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real mail server in a thread, with or without TLS and a login, that keeps what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

__all__ = ["MailServer", "mail_server"]


@dataclass
class MailServer:
    """Where it listens and what it was sent."""

    port: int = 0
    letters: list[EmailMessage] = field(default_factory=list)
    logins: list[bool] = field(default_factory=list)


def _handler(here: MailServer, refused: str) -> Any:
    """What the server does with a recipient and with a letter."""

    async def take_recipient(
        _self: Any, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address == refused:
            return f"550 {address} is not here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def take_letter(_self: Any, _server: Any, _session: Any, envelope: Any) -> str:
        here.letters.append(message_from_bytes(envelope.content, policy=SMTP_POLICY))
        return "250 OK"

    return type("Handler", (), {"handle_RCPT": take_recipient, "handle_DATA": take_letter})()


@contextlib.contextmanager
def mail_server(
    tls: tuple[Path, Path] | None = None,
    *,
    wrapped: bool = False,
    login: tuple[str, str] | None = None,
    refuse: str = "",
) -> Iterator[MailServer]:
    """Listen on a free port of 127.0.0.1 until the block ends.

    :param tls: certificate and key; a client must use STARTTLS then, or TLS from its first byte with ``wrapped``.
    :param login: the user and the password that it takes.
    :param refuse: an address that it does not take.
    """
    here = MailServer()

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        given = (data.login.decode(), data.password.decode()) if isinstance(data, LoginPassword) else ("", "")
        here.logins.append(given == login)
        return AuthResult(success=here.logins[-1])

    how: dict[str, Any] = {"authenticator": check, "auth_required": True} if login else {}
    context: ssl.SSLContext | None = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        how.update({"auth_require_tls": False} if wrapped else {"tls_context": context, "require_starttls": True})
    handler = _handler(here, refuse)
    loop = asyncio.new_event_loop()
    listening = loop.create_server(
        lambda: SMTP(handler, loop=loop, **how), "127.0.0.1", 0, ssl=context if wrapped else None
    )
    server = loop.run_until_complete(listening)
    here.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield here
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in (waiting := asyncio.all_tasks(loop)):
            task.cancel()
        if waiting:
            loop.run_until_complete(asyncio.wait(waiting))
        loop.close()
