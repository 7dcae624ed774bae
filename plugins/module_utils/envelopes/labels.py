# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cell says about its plaintext besides the bytes: the text's encoding, members of a header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Labelled", "keeps_labels", "labels_of"]

_Path = tuple[str, ...]


class Labelled(bytes):
    """A plaintext whose cell says more about it, which is written again when the same object is sealed."""

    labels: Mapping[_Path, Any]

    def __new__(cls, plaintext: bytes, labels: Mapping[_Path, Any] | None = None) -> Labelled:
        """The same bytes with labels."""
        made = super().__new__(cls, plaintext)
        made.labels = labels or {}
        return made


def labels_of(plaintext: bytes | None) -> Mapping[_Path, Any]:
    """Empty for a plaintext that has none."""
    return plaintext.labels if isinstance(plaintext, Labelled) else {}


def keeps_labels(opened: bytes | None, sealed: bytes) -> bool:
    """Whether what came out says all that was said of what went in."""
    found = labels_of(opened)
    return all(found.get(path) == label for path, label in labels_of(sealed).items())
