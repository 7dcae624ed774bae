# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access lists (``setfacl``) as the kernel has them, without the programs."""

from __future__ import annotations

import os
import struct
from pathlib import Path

__all__ = ["INHERITED", "LIST", "LIST_AND_MODE", "give"]

_NOBODY = 0xFFFFFFFF
_OWNER, _USER, _GROUP, _MASK, _OTHER = 1, 2, 4, 16, 32


def _packed(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


#: The owner writes, one more user reads, the group does nothing: its mode shows as 0640 all the same.
LIST = _packed((_OWNER, 6, _NOBODY), (_USER, 4, 12345), (_GROUP, 0, _NOBODY), (_MASK, 4, _NOBODY), (_OTHER, 0, _NOBODY))
#: The same list, and the mode that such a file shows.
LIST_AND_MODE = (LIST, 0o640)
#: What a folder hands down to each new file: one more user reads and writes.
INHERITED = _packed(
    (_OWNER, 6, _NOBODY), (_USER, 6, 54321), (_GROUP, 4, _NOBODY), (_MASK, 6, _NOBODY), (_OTHER, 0, _NOBODY)
)


def give(path: Path, entries: bytes, name: str = "system.posix_acl_access") -> None:
    """Set the list of a file, or with ``system.posix_acl_default`` what a folder hands down."""
    os.setxattr(path, name, entries)
