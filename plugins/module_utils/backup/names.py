# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What backups are called: a time in UTC in a form that the catalog chooses, and a number where two share it. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["DEFAULT_FORMAT", "STAMP", "check_format", "is_left", "is_partial", "name_of", "short_name", "time_of"]

DEFAULT_FORMAT = "secrets-backup-%Y%m%d-%H%M%S"
STAMP = "%Y%m%d-%H%M%S"
_PARTIAL = ".partial"
_SCRATCH = re.compile(r"\.scratch-[0-9a-f]{16}")
_DAY = ("%Y", "%m", "%d")
_KNOWN = (*_DAY, "%H", "%M", "%S")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}")
_NUMBERED = re.compile(r"(?P<name>.+)-(?P<number>[1-9]\d{0,3})")


def check_format(text: str, where: str = "filename_format") -> str:
    """A form that gives safe names from which the day can be read again.

    :raises KeyturnError: ``format-invalid``.
    """
    parts = re.findall(r"%.?", text)
    sample = datetime(2026, 11, 21, 12, 30, 15).strftime(text) if set(parts) <= set(_KNOWN) else ""
    if not all(part in parts for part in _DAY) or not _SAFE.fullmatch(sample) or sample.endswith(_PARTIAL):
        raise KeyturnError(
            "format-invalid",
            "does not give names of backups",
            where=where,
            hint="Write letters, digits, dot and dash, with %Y, %m and %d and, where wanted, %H, %M and %S",
        )
    return text


def name_of(now: datetime, form: str, number: int = 0) -> str:
    """The name of a backup that is made now; the second one of the same name has the number 1."""
    name = now.astimezone(timezone.utc).strftime(form)
    return f"{name}-{number}" if number else name


def time_of(name: str, form: str) -> tuple[datetime, int] | None:
    """When a backup of this name was made, and its number; None for what is no backup's name.

    The default form is always known: the form may have been chosen later, and other programs use it.
    """
    for known in dict.fromkeys((form, DEFAULT_FORMAT)):
        whole = _parsed(name, known)
        if whole:
            return whole, 0
        match = _NUMBERED.fullmatch(name)
        first = _parsed(match.group("name"), known) if match else None
        if match and first:
            return first, int(match.group("number"))
    return None


def _parsed(name: str, form: str) -> datetime | None:
    try:
        parsed = datetime.strptime(name, form)
    except ValueError:
        return None
    return parsed.replace(tzinfo=timezone.utc) if parsed.strftime(form) == name else None


def short_name(made_at: datetime, number: int) -> str:
    """A backup's time as people type it: ``20251031-143000``, with its number where it has one."""
    return made_at.strftime(STAMP) + (f"-{number}" if number else "")


def is_partial(name: str) -> bool:
    """Whether this is the name of a backup that is not whole."""
    return name.endswith(_PARTIAL)


def is_left(name: str, form: str) -> bool:
    """Whether a folder of this name is what a call that was killed left behind."""
    whole = name[: -len(_PARTIAL)] if is_partial(name) else ""
    return bool(_SCRATCH.fullmatch(name) or (whole and time_of(whole, form)))
