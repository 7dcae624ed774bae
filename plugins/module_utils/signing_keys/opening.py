# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the private rows open under the key that new ones will be encrypted with."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, plaintext_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.rows import KeyRow

__all__ = ["Opened", "look", "refuse_closed"]

#: How ciphertexts of cloud services begin, where they have a beginning of their own.
_CLOUDS = (
    (b"vault:v", "HashiCorp Vault transit"),
    (b"\x01\x02\x02\x00", "AWS KMS"),
    (b"\x0a\x24\x00", "Google Cloud KMS"),
)
_NAMED = 20
_PORTION = 200


@dataclass
class Opened:
    """Counts of rows by what their private part is; the kids of those that do not open."""

    opened: int = 0
    plaintext: int = 0
    missing: int = 0
    closed: int = 0
    kids: list[str] = field(default_factory=list)
    clouds: set[str] = field(default_factory=set)


def cloud_of(cell: bytes) -> str:
    """The cloud service that a cell looks like it comes from, or an empty text. A guess: most have no mark."""
    forms = [cell]
    with contextlib.suppress(binascii.Error, ValueError):
        forms.append(base64.b64decode(cell, validate=True))
    return next((name for head, name in _CLOUDS for form in forms if form.startswith(head)), "")


def look(envelope: Envelope, rows: Iterable[KeyRow]) -> Opened:
    """Try every usable row, and count; memory does not grow with them."""
    found = Opened()
    portion: list[KeyRow] = []
    for row in rows:
        if row.is_usable:
            portion.append(row)
        if len(portion) == _PORTION:
            _try(envelope, portion, found)
            portion = []
    _try(envelope, portion, found)
    return found


def _try(envelope: Envelope, rows: list[KeyRow], found: Opened) -> None:
    cells = [(row.kid, row.cell) for row in rows if row.cell]
    found.missing += len(rows) - len(cells)
    for (kid, cell), plaintext in zip(cells, envelope.open_many([cell for _kid, cell in cells])):
        if plaintext is not None:
            found.opened += 1
        elif plaintext_of(envelope.spec, cell) is not None:
            found.plaintext += 1
        else:
            found.closed += 1
            found.kids += [kid] if len(found.kids) < _NAMED else []
            found.clouds |= {cloud_of(cell)} - {""}


def refuse_closed(found: Opened, where: str) -> None:
    """Refuse rows that this key does not open: a new one under it might be unreadable to the service.

    :raises KeyturnError: ``signing-rows-closed``.
    """
    if not found.closed:
        return
    names = ", ".join(found.kids) + (", ..." if found.closed > len(found.kids) else "")
    if found.clouds:
        hint = f"They look like those of {' and '.join(sorted(found.clouds))}: rotate them with the service's own API"
    else:
        hint = (
            "Check the encryption key: where a rotation of it is open, finish it or roll it back first. Rows under a "
            "cloud KMS are rotated with the service's own API"
        )
    message = f"{found.closed} private keys do not open under the encryption key (kid {names})"
    raise KeyturnError("signing-rows-closed", message, where=where, hint=hint)
