# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dotenv file as a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace, dotenv
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import Layout, Slots

__all__ = ["EnvFileStore", "read_variable"]


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def read_variable(content: bytes, variable: str, where: str) -> bytes | None:
    """The value of one variable in the bytes of a dotenv file; None when it is not there or empty.

    :raises KeyturnError: as :meth:`dotenv.Document.find`.
    """
    line = dotenv.parse(content).find(variable, where)
    return _to_bytes(line.value) if line and line.value else None


class EnvFileStore(Store):
    """Variables in a dotenv file.

    :param add: a variable, or the file, that is not there yet is made when the secret is promoted.
    """

    def __init__(self, path: str, layout: Layout, *, add: bool = False) -> None:
        super().__init__(path, layout)
        self.add = add

    def read(self, workspace: Workspace) -> Slots:
        """What each variable holds.

        :raises KeyturnError: ``env-file-missing``, ``variable-missing``, and as :meth:`dotenv.Document.find`.
        """
        content = workspace.read(self.path)
        if content is None and not self.add:
            raise KeyturnError(
                "env-file-missing", "does not exist", where=self.path, hint="Check the path, or set if_missing to add"
            )
        document = dotenv.parse(content or b"")
        slots: Slots = {}
        for name in self.layout.variables:
            line = document.find(name, self.path)
            if name == self.variable and (line is None or line.value is None) and not (self.add and line is None):
                raise KeyturnError(
                    "variable-missing",
                    f"{name} is not set" if line is None else f"line {line.number} names {name} without a value",
                    where=self.path,
                    hint="Check the name, or set if_missing to add"
                    if line is None
                    else f"Write {name}= there to adopt it",
                )
            slots[name] = _to_bytes(line.value) if line and line.value else None
        return slots

    def record(self, workspace: Workspace) -> dict[str, Any]:
        """The written form of each variable, whether the file was there, and whether it ended with a line end."""
        content = workspace.on_disk(self.path)
        document = dotenv.parse(workspace.read(self.path) or b"")
        lines = {name: document.find(name, self.path) for name in self.layout.variables}
        return {
            "file": content is not None,
            "final_newline": not content or content.endswith((b"\n", b"\r")),
            "slots": {name: None if line is None else line.raw for name, line in lines.items()},
        }

    def original(self, record: Mapping[str, Any]) -> Slots:
        """The values in a record."""
        return {name: self._value(raw) for name, raw in record["slots"].items()}

    def _value(self, raw: str | None) -> bytes | None:
        if not raw:
            return None
        return read_variable(_to_bytes(f"X={raw}\n"), "X", self.path)

    def plan(self, workspace: Workspace, wanted: Mapping[str, bytes | None], record: Mapping[str, Any]) -> None:
        """Change only the bytes of the values that differ."""
        content = workspace.read(self.path)
        document = dotenv.parse(content or b"")
        original = self.original(record)
        present = self.read(workspace)
        changes: dict[str, str | None] = {}
        for name, value in wanted.items():
            raw: str | None = record["slots"].get(name)
            if value == present[name] and not (raw is None and value is None):
                continue
            if value == original.get(name):
                changes[name] = raw
                continue
            line = document.find(name, self.path)
            quote, before = (line.quote, line.raw) if line else ("", "")
            text = self._text(value or b"", name)
            changes[name] = dotenv.encode(text, quote, before=before, name=name, where=self.path)
        changes = {name: raw for name, raw in changes.items() if raw is not None or document.find(name, self.path)}
        if not changes:
            return
        result = dotenv.edit(content or b"", changes, self.path, final_newline=record["final_newline"])
        workspace.write(self.path, result if result or record["file"] else None)
        after = self.read(workspace) if result or record["file"] else dict.fromkeys(wanted)
        if any(after[name] != value for name, value in wanted.items()):
            raise KeyturnError(
                "value-unwritable",
                "a value would not read back as it is",
                where=self.path,
                hint="Use a value of one line of printable characters",
            )

    def _text(self, value: bytes, name: str) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise KeyturnError(
                "value-unwritable",
                f"the value for {name} is no text",
                where=self.path,
                hint="Generate it with an encoding, or use a plain file",
            ) from None
