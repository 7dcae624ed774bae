# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the parts of a raw envelope lie."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import Part

__all__ = ["slices_of"]


def slices_of(parts: Sequence[Part]) -> dict[str, slice]:
    """The place of each part; what follows the ciphertext is counted from the end."""
    at = {}
    here = 0
    for index, part in enumerate(parts):
        if part.name == "ciphertext":
            behind = sum(later.size for later in parts[index + 1 :])
            at[part.name] = slice(here, -behind or None)
            here = -behind
        else:
            at[part.name] = slice(here, (here + part.size) or None)
            here += part.size
    return at
