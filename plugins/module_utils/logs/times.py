# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a line was written, as far as the line tells. Pure but for the host's time zone."""

from __future__ import annotations

import calendar
import re
import time

__all__ = ["time_of"]

#: A time stands near the beginning of a line, if it has one.
_HEAD = 200
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ZONE = r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})"
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS = (
    # RFC 3339, ISO 8601, Python's logging
    re.compile(
        rf"(?<![0-9])(?P<year>[0-9]{{4}})[-/](?P<month>[0-9]{{2}})[-/](?P<day>[0-9]{{2}})[T ]{_CLOCK}"
        rf"(?:[.,][0-9]+)?\s?{_ZONE}?"
    ),
    # the common log format of web servers
    re.compile(rf"(?P<day>[0-9]{{2}})/(?P<name>[A-Z][a-z]{{2}})/(?P<year>[0-9]{{4}}):{_CLOCK} {_ZONE}"),
    # syslog as of RFC 3164, without a year
    re.compile(rf"^(?:<[0-9]{{1,3}}>)?(?P<name>[A-Z][a-z]{{2}}) +(?P<day>[0-9]{{1,2}}) {_CLOCK} "),
)
_EPOCH = re.compile(
    r"[\"']?\b(?:ts|time|timestamp)[\"']?\s*[=:]\s*[\"']?(?P<seconds>[0-9]{10})(?P<milli>[0-9]{3})?(?![0-9])"
)


def time_of(line: str, now: float) -> float | None:
    """Seconds since 1970 of the first time in a line; None where there is none.

    A time without a zone is one of this host. One without a year is of the last twelve months.

    :param now: seconds since 1970.
    """
    head = line[:_HEAD]
    epoch = _EPOCH.search(head)
    if epoch:
        return int(epoch["seconds"]) + int(epoch["milli"] or 0) / 1000
    for form in _FORMS:
        found = form.search(head)
        if found:
            return _seconds(found.groupdict(), now)
    return None


def _seconds(parts: dict[str, str | None], now: float) -> float | None:
    name = parts.get("name")
    if name is not None and name not in _MONTHS:
        return None
    month = _MONTHS.index(name) + 1 if name is not None else int(parts.get("month") or 0)
    day, hour, minute, second = (int(parts[key] or 0) for key in ("day", "hour", "minute", "second"))
    year = int(parts.get("year") or time.localtime(now).tm_year)
    zone = parts.get("zone")
    try:
        if zone is not None:
            sign = -1 if zone[0] == "-" else 1
            offset = 0 if zone == "Z" else sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
            return float(calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))) - offset
        local = time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
        if "year" not in parts and local > now + 86400:
            return time.mktime((year - 1, month, day, hour, minute, second, 0, 0, -1))
    except (OverflowError, ValueError):
        return None
    return local
