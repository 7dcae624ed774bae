# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plain file that is the value, with or without a line end behind it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import Layout, Slots

__all__ = ["FileStore", "without_newline"]


def without_newline(content: bytes) -> bytes:
    """The content without one line end behind it."""
    for end in (b"\r\n", b"\n"):
        if content.endswith(end):
            return content[: -len(end)]
    return content


class FileStore(Store):
    """A file whose content is the value.

    :param add: a file that is not there yet is made (0600) when the secret is promoted.
    :param newline: True: a line end stands behind the value. False: every byte is the value. None: as the file has it.
    """

    def __init__(self, path: str, layout: Layout, *, add: bool = False, newline: bool | None = None) -> None:
        super().__init__(path, layout)
        if len(layout.variables) > 1:
            raise KeyturnError(
                "store-invalid", "a plain file holds no pair", where=path, hint="Use the layout single or list"
            )
        self.add = add
        self.newline = newline

    @property
    def variable(self) -> str:
        """Empty: the file is the value."""
        return ""

    def _value(self, content: bytes | None) -> bytes | None:
        if not content:
            return None
        return (content if self.newline is False else without_newline(content)) or None

    def read(self, workspace: Workspace) -> Slots:
        """The value.

        :raises KeyturnError: ``file-missing``, ``file-unsafe``.
        """
        content = workspace.read(self.path)
        if content is None and not self.add:
            raise KeyturnError(
                "file-missing", "does not exist", where=self.path, hint="Check the path, or set if_missing to add"
            )
        return {self.layout.variable: self._value(content)}

    def record(self, workspace: Workspace) -> dict[str, Any]:
        """The whole content."""
        content = workspace.read(self.path)
        return {"file": content is not None, "content": base64.b64encode(content or b"").decode()}

    def original(self, record: Mapping[str, Any]) -> Slots:
        """The value in a record."""
        return {self.layout.variable: self._value(base64.b64decode(record["content"]))}

    def plan(self, workspace: Workspace, wanted: Mapping[str, bytes | None], record: Mapping[str, Any]) -> None:
        """Replace the content."""
        value = wanted[self.layout.variable]
        content = workspace.read(self.path)
        if value == self._value(content) and value is not None:
            return
        before = base64.b64decode(record["content"])
        if value == self._value(before):
            workspace.write(self.path, before if record["file"] else None)
            return
        like = content if content is not None else before
        end = b"\r\n" if like.endswith(b"\r\n") else b"\n"
        ended = like.endswith(b"\n") if self.newline is None else self.newline
        result = (value or b"") + (end if ended else b"")
        if self._value(result) != value:  # the value itself ends with a line end
            result = (value or b"") + end
        workspace.write(self.path, result)
