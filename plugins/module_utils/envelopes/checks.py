# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plaintext must look like, where the cipher itself proves nothing."""

from __future__ import annotations

import json
import re
from typing import Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import Check

__all__ = ["make_check"]

_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _decoded(plaintext: bytes) -> str | None:
    try:
        return plaintext.decode()
    except UnicodeDecodeError:
        return None


def _is_text(plaintext: bytes) -> bool:
    return _CONTROLS.search(plaintext) is None and _decoded(plaintext) is not None


def _is_json(plaintext: bytes) -> bool:
    """An object or an array; almost any digit is a number, so those are no proof."""
    text = _decoded(plaintext)
    if text is None or not text.lstrip(" \t\r\n").startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def make_check(check: Check) -> Callable[[bytes], bool]:
    """The test of one plaintext."""
    has_form = _is_json if check.form == "json" else _is_text
    if not check.pattern:
        return has_form
    matches = re.compile(check.pattern, re.DOTALL).fullmatch

    def is_match(plaintext: bytes) -> bool:
        return has_form(plaintext) and matches(plaintext.decode()) is not None

    return is_match
