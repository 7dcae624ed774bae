# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keysets as stores: a JSON file, two variables of a dotenv file, or commands of the user's.

The value that turns is a key with its kid (:class:`keysets.model.Entry`): it comes in beside the active one, becomes
the active one, and the former one goes. Other keys that were there stay.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import stat
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.forms import (
    parse_document,
    parse_inline,
    render_document,
    render_inline,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry, Keyset
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_reading
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Outside, Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.file import FileStore
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import Layout, Slots

__all__ = [
    "LAST_GOOD",
    "DocumentKeyset",
    "InlineKeyset",
    "KeysetCommandStore",
    "KeysetFileStore",
    "KeysetLayout",
    "command_place",
]

#: Behind the name of a keyset file: the keyset that was there before the last change.
LAST_GOOD = ".last-known-good"
_COMMANDS = ("read", "provision", "promote", "remove")
_TIMEOUT = 60.0


class KeysetLayout(Layout):
    """Several keys by kid, one of them active."""

    is_keyset = True

    def __init__(self, variable: str, where: str) -> None:
        super().__init__(variable)
        self.where = where

    @abstractmethod
    def load(self, slots: Mapping[str, bytes | None]) -> Keyset | None:
        """The keyset that the variables hold, or None.

        :raises KeyturnError: ``keyset-invalid``.
        """

    @abstractmethod
    def dump(self, keyset: Keyset) -> Slots:
        """What the variables hold for a keyset.

        :raises KeyturnError: ``keyset-unwritable``.
        """

    def primary(self, slots: Mapping[str, bytes | None]) -> bytes | None:
        """The active key with its kid."""
        keyset = self.load(slots)
        return None if keyset is None else keyset.active_entry.encode()

    def searched(self, slots: Mapping[str, bytes | None]) -> set[bytes]:
        """The active key by itself."""
        keyset = self.load(slots)
        return set() if keyset is None else {keyset.active_entry.key.encode()}

    def is_without(self, slots: Mapping[str, bytes | None], old: bytes | None, new: bytes) -> bool:
        """Whether the old key is in and no key has the kid of the new one; others may have come in, or be active."""
        keyset = self.load(slots)
        if keyset is None or old is None or Entry.decode(new, self.where).kid in keyset.keys:
            return False
        former = Entry.decode(old, self.where)
        return keyset.keys.get(former.kid) == former.key

    def wanted(self, state: str, original: Mapping[str, bytes | None], old: bytes | None, new: bytes) -> Slots:
        """What the variables hold in ``state``, given what they held before the rotation.

        :raises KeyturnError: ``kid-taken``, ``keyset-unwritable``.
        """
        del old
        entry = Entry.decode(new, self.where)
        before = self.load(original)
        if before is None:
            first = Keyset(entry.kid, {entry.kid: entry.key}, self.where)
            return dict(original) if state in ("rolled_back", "staged") else self.dump(first)
        staged = before.with_key(entry)
        if state == "rolled_back":
            return dict(original)
        if state == "staged":
            return self.dump(staged)
        promoted = staged.with_active(entry.kid)
        return self.dump(promoted if state == "promoted" else promoted.without(before.active))

    def _staged(self, before: Slots, new: bytes) -> Slots:
        return self.wanted("staged", before, None, new)

    def _promoted(self, before: Slots, new: bytes) -> Slots:
        return self.wanted("promoted", before, None, new)

    def _retired(self, original: Mapping[str, bytes | None], new: bytes) -> Slots:
        return self.wanted("retired", original, None, new)


class DocumentKeyset(KeysetLayout):
    """A JSON document; here as its canonical bytes, so that its style and order are no difference."""

    def load(self, slots: Mapping[str, bytes | None]) -> Keyset | None:
        """The keyset in the document."""
        content = slots[self.variable]
        return None if content is None else parse_document(content, self.where)

    def dump(self, keyset: Keyset) -> Slots:
        """The document."""
        return {self.variable: keyset.canonical()}


class InlineKeyset(KeysetLayout):
    """``kid:key,kid:key`` in one variable, and the active kid in another; both change in one write."""

    def __init__(self, variable: str, active_variable: str, where: str) -> None:
        super().__init__(variable, f"{where} {variable}")
        if not active_variable or active_variable == variable:
            raise KeyturnError(
                "store-invalid",
                "a keyset in a dotenv file has a second variable for its active kid",
                where=where,
                hint="Set active_variable",
            )
        self.active_variable = active_variable

    @property
    def variables(self) -> tuple[str, ...]:
        """The keys, then the active kid."""
        return (self.variable, self.active_variable)

    def load(self, slots: Mapping[str, bytes | None]) -> Keyset | None:
        """The keyset in both variables."""
        content = slots[self.variable]
        if content is None:
            return None
        try:
            text, active = content.decode(), (slots[self.active_variable] or b"").decode()
        except UnicodeDecodeError:
            raise KeyturnError("keyset-invalid", "is no text", where=self.where, hint="Use UTF-8") from None
        return parse_inline(text, active, self.where)

    def dump(self, keyset: Keyset) -> Slots:
        """Both variables."""
        text, active = render_inline(keyset)
        return {self.variable: text.encode(), self.active_variable: active.encode()}


class KeysetFileStore(FileStore):
    """A JSON file with a keyset.

    Beside it lies the keyset of before the last change, for people who have to repair something; it never holds a key
    that the file itself has no more.

    :param add: a file that is not there yet is made (0600) when the first key is promoted.
    :param mode: the most that its permissions may be; more is refused.
    """

    def __init__(self, path: str, layout: DocumentKeyset, *, add: bool = False, mode: int = 0o600) -> None:
        super().__init__(path, layout, add=add)
        self.keyset = layout
        self.mode = mode

    def _value(self, content: bytes | None) -> bytes | None:
        return parse_document(content, self.path).canonical() if content is not None else None

    def read(self, workspace: Workspace) -> Slots:
        """The keyset.

        :raises KeyturnError: ``file-missing``, ``file-unsafe``, ``file-loose``, ``keyset-invalid``.
        """
        slots = super().read(workspace)
        if os.path.lexists(self.path) and stat.S_IMODE(os.lstat(self.path).st_mode) & ~self.mode:
            raise KeyturnError(
                "file-loose",
                f"has the mode {stat.S_IMODE(os.lstat(self.path).st_mode):04o}, which is more than {self.mode:04o}",
                where=self.path,
                hint=f"chmod {self.mode:04o}, and give it to the user that reads it",
            )
        return slots

    def original(self, record: Mapping[str, Any]) -> Slots:
        """The keyset in a record."""
        return {self.layout.variable: self._value(base64.b64decode(record["content"]) if record["file"] else None)}

    @property
    def _last_good(self) -> str:
        return self.path + LAST_GOOD

    def record(self, workspace: Workspace) -> dict[str, Any]:
        """The whole content, and that of the file beside it."""
        kept = workspace.read(self._last_good)
        return {
            **super().record(workspace),
            "last_good": None if kept is None else base64.b64encode(kept).decode(),
        }

    def plan(self, workspace: Workspace, wanted: Mapping[str, bytes | None], record: Mapping[str, Any]) -> None:
        """Replace the content; the file beside it comes first, so that it is never left with a key too many."""
        value, content = wanted[self.layout.variable], workspace.read(self.path)
        before = base64.b64decode(record["content"]) if record["file"] else None
        result = content
        if value != self._value(content):
            result = before if value == self._value(before) else self._rendered(value, content or before)
        if value == self._value(before):
            kept = record.get("last_good")
            workspace.write(self._last_good, None if kept is None else base64.b64decode(kept))
        elif content is not None and result is not None and result != content:
            workspace.write(self._last_good, content if self._covers(result, content) else result)
        workspace.write(self.path, result)

    def _rendered(self, value: bytes | None, like: bytes | None) -> bytes | None:
        return None if value is None else render_document(parse_document(value, self.path), like)

    def _covers(self, content: bytes, other: bytes) -> bool:
        """Whether every key of another document is in this one."""
        mine, others = (parse_document(document, self.path).keys for document in (content, other))
        return all(mine.get(kid) == key for kid, key in others.items())


# -- commands ----------------------------------------------------------------------------------------------------------


def command_place(read: Sequence[str]) -> str:
    """What a keyset behind commands is called where others have a path."""
    return f"command: {shlex.join(read)}"


def _kid_line(kid: str) -> bytes:
    return json.dumps({"kid": kid}, ensure_ascii=False).encode() + b"\n"


class _Commands(Outside):
    """A keyset that only commands reach. Kids and keys go in and out by standard input and output."""

    def __init__(self, place: str, commands: Mapping[str, Sequence[str]], timeout: float) -> None:
        self._place = place
        self._commands = commands
        self._timeout = timeout

    def _run(self, name: str, given: bytes | None) -> bytes:
        ending, printed = run_reading(self._commands[name], self._timeout, given)
        if ending.code != 0:
            why = ending.reason if ending.code is None else f"exit code {ending.code}"
            raise KeyturnError(
                "keyset-command-failed",
                f"the command {name} failed ({why}); what it printed is not shown",
                where=self._place,
                hint="Run it by hand on this host",
            )
        return printed

    def read(self) -> bytes | None:
        """The canonical bytes of what the read command prints."""
        return parse_document(self._run("read", None), self._place).canonical()

    def change(self, before: bytes | None, after: bytes | None) -> None:
        """Provision what is new, then promote, then remove what is gone, and read it back."""
        was, shall = (None if side is None else parse_document(side, self._place) for side in (before, after))
        if was is None or shall is None:
            raise KeyturnError(
                "keyset-invalid", "a keyset behind commands is never empty", where=self._place, hint="Provision one key"
            )
        for kid in shall.keys.keys() - was.keys.keys():
            self._run("provision", shall.entry(kid).encode() + b"\n")
        if was.active != shall.active:
            self._run("promote", _kid_line(shall.active))
        for kid in was.keys.keys() - shall.keys.keys():
            self._run("remove", _kid_line(kid))
        self._expect(after)

    def take_back(self, before: bytes | None, after: bytes | None) -> None:
        """Only what lies between the two: a key that somebody else has provisioned or promoted meanwhile stays."""
        was, shall, now = (parse_document(side or b"", self._place) for side in (before, after, self.read()))
        gone, made = was.keys.keys() - shall.keys.keys(), shall.keys.keys() - was.keys.keys()
        wanted = now
        for kid in sorted(gone - now.keys.keys()):
            self._run("provision", was.entry(kid).encode() + b"\n")
            wanted = wanted.with_key(was.entry(kid))
        if was.active != shall.active == now.active:
            self._run("promote", _kid_line(was.active))
            wanted = wanted.with_active(was.active)
        for kid in sorted(made & now.keys.keys() - {wanted.active}):
            self._run("remove", _kid_line(kid))
            wanted = wanted.without(kid)
        self._expect(wanted.canonical())

    def _expect(self, content: bytes | None) -> None:
        if self.read() != content:
            raise KeyturnError(
                "keyset-command-failed",
                "the commands ended well, but what is read back is not what they were to make",
                where=self._place,
                hint="Compare provision, promote and remove with what read prints",
            )


class KeysetCommandStore(Store):
    """A keyset that commands of the user's read and change, such as the client of a key management service.

    :param commands: ``read`` prints the JSON document; ``provision`` takes ``{"kid", "key"}``, ``promote`` and
        ``remove`` take ``{"kid"}`` as one line of JSON.
    """

    def __init__(self, layout: DocumentKeyset, commands: Mapping[str, Any], timeout: float | None = None) -> None:
        missing = [name for name in _COMMANDS if not commands.get(name)]
        if missing:
            raise KeyturnError(
                "store-invalid",
                f"the command {missing[0]} is missing",
                where="keyset_command",
                hint="Give read, provision, promote and remove as lists",
            )
        super().__init__("/", layout)
        self.path = command_place(commands["read"])
        layout.where = self.path
        self._outside = _Commands(self.path, commands, timeout or _TIMEOUT)

    @property
    def variable(self) -> str:
        """Empty: there is nothing beside the keyset."""
        return ""

    def read(self, workspace: Workspace) -> Slots:
        """What the read command prints.

        :raises KeyturnError: ``keyset-command-failed``, ``keyset-invalid``.
        """
        workspace.attach(self.path, self._outside)
        return {self.layout.variable: workspace.read(self.path)}

    def record(self, workspace: Workspace) -> dict[str, Any]:
        """The keyset."""
        return self._record(self.read(workspace)[self.layout.variable] or b"")

    def record_sent(self, workspace: Workspace, old: bytes | None, new: bytes) -> dict[str, Any]:
        """The keyset as it was without the new key: commands of several hosts may lead to the same service."""
        content = self.read(workspace)[self.layout.variable] or b""
        keyset, entry = parse_document(content, self.path), Entry.decode(new, self.path)
        if old is None or old == new or keyset.keys.get(entry.kid) != entry.key:
            return self._record(content)
        former = Entry.decode(old, self.path)
        before = keyset.with_key(former)
        if keyset.active == entry.kid:
            before = before.with_active(former.kid)
        return self._record(before.without(entry.kid).canonical())

    @staticmethod
    def _record(content: bytes) -> dict[str, Any]:
        return {"content": base64.b64encode(content).decode()}

    def original(self, record: Mapping[str, Any]) -> Slots:
        """The keyset in a record."""
        return {self.layout.variable: base64.b64decode(record["content"]) or None}

    def plan(self, workspace: Workspace, wanted: Mapping[str, bytes | None], record: Mapping[str, Any]) -> None:
        """Have the commands make it so."""
        del record
        workspace.attach(self.path, self._outside)
        workspace.write(self.path, wanted[self.layout.variable])
