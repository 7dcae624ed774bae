# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP question and its answer, for health checks and probes.

Certificates are always checked, no proxy of the environment is used (an answer must be the endpoint's own), a request
never moves to another host, and why there was no answer is said without the address or anything that was sent.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["CREDENTIAL_HEADERS", "Answer", "Question", "ask", "check_url"]

#: Headers, in small letters, whose values are secrets.
CREDENTIAL_HEADERS = ("authorization", "proxy-authorization", "cookie", "x-api-key", "apikey")

_BODY_BYTES = 1024 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 5
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True)
class Question:
    """What is asked.

    :param timeout: seconds for each wait on the network, and for reading the body.
    :param ca_file: certificates to trust instead of the system's.
    :param follow: whether redirects within the same host are followed; they never leave it, nor lead back to ``http``.
    :param proxy: the address of an HTTP proxy to go through.
    :param cert_file: a client certificate, PEM; ``key_file`` is its key where that is not in the same file.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout: float = 5.0
    ca_file: str | None = None
    follow: bool = False
    proxy: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True)
class Answer:
    """What came back.

    :param status: the HTTP status; None when there was no answer.
    :param reason: why there was none.
    :param headers: by name in small letters; a header that came several times is one list (RFC 9110 section 5.3).
    """

    status: int | None
    body: str = field(default="", repr=False)
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def check_url(url: str, where: str) -> None:
    """Accept only a whole ``http`` or ``https`` address without a password in it.

    :raises KeyturnError: ``url-invalid``; the address is not shown, it may hold what it must not.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        plain = False
    if not plain or re.search(r"[\x00-\x20\x7f]", url):
        raise KeyturnError("url-invalid", "this is no http or https address", where=where, hint="Write it whole")
    if "@" in parts.netloc:
        raise KeyturnError("url-invalid", "a login stands in the address", where=where, hint="Use a header instead")


def ask(question: Question) -> Answer:
    """Ask once.

    :raises KeyturnError: ``url-invalid``, ``header-invalid``, ``ca-file-unusable``, ``cert-file-unusable``; never for
        an endpoint that is down.
    """
    _check_headers(question.headers)
    url, method, body = question.url, question.method, question.body
    for _hop in range(_HOPS):
        request = urllib.request.Request(url, data=body, headers=dict(question.headers), method=method)
        if not request.has_header("User-agent"):
            request.add_header("User-Agent", "keyturn.rotation")
        opener = _opener(url, question)
        try:
            with opener.open(request, timeout=question.timeout) as response:
                status, location = response.status, response.headers.get("Location")
                received = {
                    name.lower(): ", ".join(response.headers.get_all(name) or ()) for name in set(response.headers)
                }
                text = _read(response, question.timeout).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Answer(None, reason=_reason(error, question.timeout))
        onward = _onward(url, location) if question.follow and status in _REDIRECTS else None
        if onward is None:
            return Answer(status, text, headers=received)
        url = onward
        if status == 303 or (status in (301, 302) and method != "HEAD"):
            method, body = "GET", None
    return Answer(None, reason="too many redirects")


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise KeyturnError(
                "header-invalid",
                "a header cannot be sent as it is",
                where=repr(name),
                hint="Name and value must be printable, on one line",
            )


def _opener(url: str, question: Question) -> urllib.request.OpenerDirector:
    """HTTP or HTTPS only; without an error processor every status is an answer, and no redirect is followed."""
    opener = urllib.request.OpenerDirector()
    if question.proxy:
        opener.add_handler(urllib.request.ProxyHandler({"http": question.proxy, "https": question.proxy}))
    if not url.lower().startswith("https:"):
        opener.add_handler(urllib.request.HTTPHandler())
        return opener
    try:
        context = ssl.create_default_context(cafile=question.ca_file)
    except OSError:
        raise KeyturnError(
            "ca-file-unusable", "holds no readable certificates", where=str(question.ca_file), hint="Name a PEM file"
        ) from None
    if question.cert_file:
        _show_certificate(context, question.cert_file, question.key_file)
    opener.add_handler(urllib.request.HTTPSHandler(context=context))
    return opener


def _show_certificate(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    """A key with a passphrase is refused: nobody is there to be asked for it."""

    def refuse() -> str:
        raise ValueError

    try:
        context.load_cert_chain(cert_file, key_file, refuse)
    except (OSError, ValueError):
        raise KeyturnError(
            "cert-file-unusable",
            "holds no client certificate with its key",
            where=cert_file,
            hint="Name PEM files that this user may read, the key without a passphrase",
        ) from None


def _read(response: http.client.HTTPResponse, seconds: float) -> bytes:
    """At most 1 MiB of the body; an endless one is cut, a slow one is no answer."""
    deadline = time.monotonic() + seconds
    parts: list[bytes] = []
    size = 0
    while size < _BODY_BYTES:
        part = response.read1(min(65536, _BODY_BYTES - size))
        if not part:
            break
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)


def _onward(url: str, location: str | None) -> str | None:
    """Where a redirect leads, if that is the same host and port, or the same host's ``https``."""
    if not location:
        return None
    target = urllib.parse.urljoin(url, location)
    try:
        check_url(target, "redirect")
    except KeyturnError:
        return None
    here, there = urllib.parse.urlsplit(url), urllib.parse.urlsplit(target)
    same = (here.scheme, here.netloc.lower()) == (there.scheme, there.netloc.lower())
    upgrade = here.hostname == there.hostname and (here.scheme, there.scheme) == ("http", "https")
    return target if same or upgrade else None


def _reason(error: Exception, timeout: float) -> str:
    """Why there was no answer, from the kind of error alone: its text may quote the request."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):  # socket.timeout is another name for it from Python 3.10 on
        return f"no answer within {timeout:g} s"
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"certificate not valid ({inner.verify_message})"
    if isinstance(inner, ssl.SSLError):
        return "no TLS connection"
    if isinstance(inner, http.client.RemoteDisconnected):
        return "connection closed without an answer"
    if isinstance(inner, http.client.HTTPException):
        return "no HTTP answer"
    if isinstance(inner, OSError) and type(inner).__name__ == "timeout":
        return f"no answer within {timeout:g} s"
    if isinstance(inner, OSError):
        return f"no connection ({inner.strerror or type(inner).__name__})"
    return "cannot be asked"
