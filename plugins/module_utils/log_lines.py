# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of a service's log that can be shown: what is known to be secret, and what looks like it, is masked.

A log may hold anything, so this is stricter than :mod:`material`: long words of mixed characters go too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.material import MASK, redact

__all__ = ["kept_values", "mask_lines", "values_in"]

_LONGEST = 300
_LEAST = 4
_NAMED = re.compile(
    r"(?P<before>[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|credential|authori[sz]ation|[_-]key)[\w.-]*"
    r"[\"']?\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|(?:Bearer|Basic)\s+\S+|\S+)",
    re.I,
)
_WORD = re.compile(r"[A-Za-z0-9+/_=.~-]{20,}")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_USERINFO = re.compile(r"[a-z][a-z0-9+.-]*://[^\s:/@?#]*:(?P<password>[^\s/@]+)@", re.I)


def values_in(environment: Iterable[str]) -> list[str]:
    """What in a container's environment (``NAME=value``) must not be shown: values, and passwords in their URLs."""
    found = []
    for entry in environment:
        value = entry.partition("=")[2]
        found.append(value)
        for match in _USERINFO.finditer(value):
            found += [match["password"], unquote(match["password"])]
    return [value for value in found if len(value) >= _LEAST]


def kept_values(state_dir: str) -> list[str]:
    """The values of all versions that a host keeps; what cannot be read is left out."""
    found = []
    for folder, _folders, names in os.walk(os.path.join(state_dir, "secrets")):
        for name in ("new", "old"):
            if name in names:
                try:
                    found.append(atomic.read_file(os.path.join(folder, name)).decode("utf-8", "replace"))
                except KeyturnError:  # another task removed it in this moment
                    continue
    return found


def _looks_random(word: str) -> bool:
    kinds = (any(c.isdigit() for c in word), any(c.islower() for c in word), any(c.isupper() for c in word))
    return sum(kinds) >= 2 and not re.fullmatch(r"[\d:.TZ+-]+", word)


def _mask_word(found: re.Match[str]) -> str:
    return MASK if _looks_random(found[0]) else found[0]


def mask_lines(lines: Sequence[str], values: Iterable[str]) -> list[str]:
    """Lines without control characters, values and what looks like one, each cut to 300 characters."""
    # a value of several lines comes line by line, and without the blanks around it
    parts = [part for value in values for part in (value, *map(str.strip, value.splitlines()))]
    parts = [part for part in parts if len(part.strip()) >= _LEAST]
    # known values stand in the whole text first: a line may begin in the middle of one
    masked = redact("\n".join(_CONTROL.sub("", line) for line in lines), parts)
    shown = []
    for line in str(masked).split("\n") if lines else []:
        text = _NAMED.sub(lambda found: found["before"] + MASK, line)
        shown.append(_WORD.sub(_mask_word, text)[:_LONGEST])
    return shown
