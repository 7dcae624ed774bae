# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells that were never encrypted: recognising them, and what in them is to be encrypted."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec

__all__ = ["plaintext_of"]

_JSON_BLANKS = b" \t\r\n"


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def plaintext_of(spec: EnvelopeSpec, cell: bytes) -> bytes | None:
    """The bytes that are to be encrypted when the cell is in the plaintext form of this spec, else None.

    A wrapped value comes as JSON text with Python's default separators; a bare one as it stands.
    """
    form = spec.plaintext
    if form.form != "json-object" or not cell.lstrip(_JSON_BLANKS).startswith(b"{"):
        return None
    try:
        parsed = json.loads(cell.decode(), parse_constant=_refuse_constant)
        if not form.marker or not parsed.get(form.marker):
            return cell
        inner = parsed.get(form.member)
        return json.dumps(inner, allow_nan=False).encode() if isinstance(inner, dict) else None
    except (ValueError, RecursionError):
        return None
