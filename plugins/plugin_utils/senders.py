# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling one recipient: an HTTP address, a mail server, or a command. Runs on the controller.

Each answers with why it did not work, or an empty text. The text never holds an address of a webhook, a login, or
anything that the other side said.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_quietly
from ansible_collections.keyturn.rotation.plugins.module_utils.web import Question, ask, check_url
from ansible_collections.keyturn.rotation.plugins.plugin_utils import notices

__all__ = ["send", "send_all"]

_SECONDS = 5
#: How much longer than its own timeout a recipient may take: looking up a name has none.
_GRACE = 10
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SHAPES: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "webhook": dict,
    "slack": notices.slack,
    "teams": notices.teams,
}


def send(recipient: Mapping[str, Any], told: Mapping[str, Any], where: str) -> str:
    """Tell one recipient (checked, its values fetched); empty when it was told, else why not."""
    try:
        if recipient["type"] == "mail":
            return _mail(recipient, told, where)
        if recipient["type"] == "command":
            return _command(recipient, told)
        return _post(recipient, told, where)
    except KeyturnError as error:
        return str(error)
    except Exception as error:  # its text may hold the address
        return f"internal error {type(error).__name__}"


def send_all(recipients: Sequence[tuple[str, Mapping[str, Any]]], told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Tell all of them side by side: each name, and why it was not told (empty when it was).

    One that does not come back is left behind, so that no recipient holds up a rotation.
    """
    answers: dict[int, str] = {}

    def one(number: int, where: str, recipient: Mapping[str, Any]) -> None:
        answers[number] = send(recipient, told, where)

    threads = [
        threading.Thread(target=one, args=(number, where, recipient), daemon=True)
        for number, (where, recipient) in enumerate(recipients)
    ]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    for thread, (_where, recipient) in zip(threads, recipients):
        thread.join(max(0.0, begun + _timeout(recipient) + _GRACE - time.monotonic()))
    return [(where, answers.get(number, "no end in time")) for number, (where, _entry) in enumerate(recipients)]


def _timeout(recipient: Mapping[str, Any]) -> float:
    seconds = recipient.get("timeout", _SECONDS)
    return float(seconds) if isinstance(seconds, (int, float)) else _SECONDS


def _post(recipient: Mapping[str, Any], told: Mapping[str, Any], where: str) -> str:
    url = str(recipient["url"])
    check_url(url, f"{where}.url")
    headers = {"Content-Type": "application/json"}
    if recipient.get("token"):
        headers["Authorization"] = f"Bearer {recipient['token']}"
    shape = _SHAPES[recipient["type"]]
    answer = ask(
        Question(
            url,
            method="POST",
            headers=headers,
            body=json.dumps(shape(told)).encode(),
            timeout=_timeout(recipient),
            ca_file=recipient.get("ca_file"),
            proxy=recipient.get("proxy"),
        )
    )
    if answer.status is None:
        return answer.reason
    return "" if 200 <= answer.status < 300 else f"HTTP {answer.status}"


def _command(recipient: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    ending = run_quietly([str(word) for word in recipient["command"]], _timeout(recipient), json.dumps(told).encode())
    if ending.code is None:
        return ending.reason
    return "" if ending.code == 0 else f"exit code {ending.code}"


def _addresses(recipient: Mapping[str, Any]) -> list[str]:
    to = recipient["to"]
    return [to] if isinstance(to, str) else [str(address) for address in to]


def _letter(recipient: Mapping[str, Any], told: Mapping[str, Any]) -> EmailMessage:
    letter = EmailMessage()
    letter["Subject"] = f"[keyturn] {told['title']}"
    letter["From"] = recipient["from"]
    letter["To"] = ", ".join(_addresses(recipient))
    letter["Date"] = formatdate(localtime=False)
    letter["Message-ID"] = make_msgid(domain=recipient["from"].rpartition("@")[2] or None)
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(notices.plain(told))
    return letter


def _mail(recipient: Mapping[str, Any], told: Mapping[str, Any], where: str) -> str:
    """Submit one letter (RFC 6409); without ``tls: none`` the connection is encrypted and its certificate checked."""
    tls = recipient.get("tls", "starttls")
    host, port = str(recipient.get("host") or "localhost"), int(recipient.get("port") or _PORTS[tls])
    seconds = _timeout(recipient)
    if recipient.get("password") and tls == "none":
        raise KeyturnError("mail-unsafe", "a password would go in clear", where=f"{where}.tls", hint="Use starttls")
    try:
        context = ssl.create_default_context(cafile=recipient.get("ca_file"))
        connection = (
            smtplib.SMTP_SSL(host, port, timeout=seconds, context=context)
            if tls == "tls"
            else smtplib.SMTP(host, port, timeout=seconds)
        )
        with connection:
            if tls == "starttls":
                connection.starttls(context=context)
            if recipient.get("user"):
                connection.login(str(recipient["user"]), str(recipient.get("password") or ""))
            refused = connection.send_message(_letter(recipient, told))
    except smtplib.SMTPResponseException as error:  # what the server said may quote the login
        return f"the mail server answered {error.smtp_code}"
    except smtplib.SMTPException as error:
        return f"the mail was not taken ({type(error).__name__})"
    except ssl.SSLCertVerificationError as error:
        return f"certificate not valid ({error.verify_message})"
    except OSError as error:
        return f"no connection ({error.strerror or type(error).__name__})"
    return f"{len(refused)} of {len(_addresses(recipient))} addresses were refused" if refused else ""
