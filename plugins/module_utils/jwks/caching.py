# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a cache on the way may show an answer, from its headers (RFC 9111). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

__all__ = ["Freshness", "freshness"]

_DIRECTIVE = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*)))?\s*(?:,|$)')
#: A larger number counts as this (RFC 9111 section 1.2.2).
_LONGEST = 2**31


@dataclass(frozen=True)
class Freshness:
    """What the headers say, in seconds.

    :param max_age: for any cache, from ``max-age`` or else ``Expires``; None where neither is there.
    :param shared_max_age: for shared caches such as a gateway's or a CDN's (``s-maxage``).
    :param age: how old the answer was already (``Age``): more than 0 means that a cache gave it.
    :param longest: how long after its making some cache may still show it; None when the headers do not say, for then
        each cache chooses for itself (RFC 9111 section 4.2.2).
    """

    max_age: int | None
    shared_max_age: int | None
    age: int
    longest: int | None


def freshness(headers: Mapping[str, str]) -> Freshness:
    """From the headers of an answer, by name in small letters."""
    directives = _directives(headers.get("cache-control", ""))
    max_age = _seconds(directives.get("max-age"))
    if max_age is None and "max-age" not in directives:
        max_age = _until_expiry(headers)
    shared = _seconds(directives.get("s-maxage"))
    age = _seconds(headers.get("age", "").split(",")[0].strip()) or 0
    if {"no-store", "no-cache"} & set(directives):
        return Freshness(max_age, shared, age, 0)
    known = [seconds for seconds in (max_age, shared) if seconds is not None]
    if not known:
        return Freshness(None, None, age, None)
    # Beyond its time an answer may be shown while a new one is fetched, or cannot be (RFC 5861)
    stale = 0
    if not {"must-revalidate", "proxy-revalidate"} & set(directives):
        stale = max(_seconds(directives.get(f"stale-{why}")) or 0 for why in ("while-revalidate", "if-error"))
    return Freshness(max_age, shared, age, min(max(known) + stale, _LONGEST))


def _directives(text: str) -> dict[str, str]:
    """Cache-Control by directive in small letters; of one that stands twice the larger, as the later end is safe."""
    found: dict[str, str] = {}
    for match in _DIRECTIVE.finditer(text):
        name, value = match[1].lower(), match[2] if match[2] is not None else match[3] or ""
        if name not in found or (_seconds(value) or 0) > (_seconds(found[name]) or 0):
            found[name] = value
    return found


def _seconds(text: str | None) -> int | None:
    if text is None or not re.fullmatch(r"[0-9]{1,20}", text):
        return None
    return min(int(text), _LONGEST)


def _until_expiry(headers: Mapping[str, str]) -> int | None:
    """From Date to Expires; an Expires that is no date means that the time is over (RFC 9111 section 5.3)."""
    if "expires" not in headers or "date" not in headers:
        return None
    try:
        expires, date = (parsedate_to_datetime(headers[name]) for name in ("expires", "date"))
        return min(max(0, int((expires - date).total_seconds())), _LONGEST)
    except (TypeError, ValueError):
        return 0
