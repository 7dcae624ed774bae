# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny dotenv reader, as a small service would have one."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["parse_env", "read_env"]

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")


def parse_env(text: str) -> dict[str, str]:
    """Names and values of the assignments in ``text``; the last of several wins, other lines are passed over.

    A value in single or double quotes is taken as it stands between them; elsewhere `` #`` begins a comment.
    """
    values = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            name, value = match.groups()
            values[name] = _unquote(value)
    return values


def _unquote(value: str) -> str:
    if value[:1] in ("'", '"') and value.find(value[0], 1) > 0:
        return value[1 : value.find(value[0], 1)]
    return re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()


def read_env(path: Path) -> dict[str, str]:
    """The assignments in a dotenv file (UTF-8)."""
    return parse_env(path.read_text(encoding="utf-8"))
