# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where values live on a host: the abstract store, and the workspace in which all files of one call change together.

Everything is computed in memory first; :meth:`Workspace.commit` then replaces all files or none.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import Layout, Slots

__all__ = ["Outside", "Store", "Workspace"]


class Outside(ABC):
    """Something that is no file and changes together with files: it is read whole, and changed whole or put back."""

    @abstractmethod
    def read(self) -> bytes | None:
        """What it holds."""

    @abstractmethod
    def change(self, before: bytes | None, after: bytes | None) -> None:
        """Bring it from one content to another.

        :raises KeyturnError: what went wrong; a part may have been done then.
        """

    @abstractmethod
    def take_back(self, before: bytes | None, after: bytes | None) -> None:
        """Take back what a :meth:`change` has done of its work, and nothing that somebody else did meanwhile.

        :raises KeyturnError: what went wrong.
        """


#: What to do about files, and about what is none.
_MEND = ("Make the disk writable", "See what refuses it")
_CHECK = ("Check space and permissions", "See what refuses it")


class Workspace:
    """Files as they are on disk and as they shall be; None stands for a file that is not there.

    :param instead: contents that are looked at in place of what the disk holds, for looking only.
    """

    def __init__(self, instead: Mapping[str, bytes | None] | None = None) -> None:
        self._before: dict[str, bytes | None] = dict(instead or {})
        self._after: dict[str, bytes | None] = {}
        self._outside: dict[str, Outside] = {}

    def attach(self, path: str, outside: Outside) -> None:
        """From now on this path stands for something that is no file."""
        self._outside.setdefault(path, outside)

    def _look(self, path: str) -> bytes | None:
        """What is there now."""
        if path in self._outside:
            return self._outside[path].read()
        try:
            return atomic.read_file(path)
        except KeyturnError as error:
            if error.code != "file-missing":
                raise
            return None

    def on_disk(self, path: str) -> bytes | None:
        """What the file held when this call first looked.

        :raises KeyturnError: ``file-unsafe``, ``file-failed``.
        """
        if path not in self._before:
            self._before[path] = self._look(path)
        return self._before[path]

    def read(self, path: str) -> bytes | None:
        """What the file shall hold, as planned so far."""
        return self._after[path] if path in self._after else self.on_disk(path)

    def write(self, path: str, content: bytes | None) -> None:
        """Plan a new content; None plans to remove the file."""
        self.on_disk(path)
        self._after[path] = content

    @property
    def changes(self) -> dict[str, bytes | None]:
        """Path to new content, for the files that would differ."""
        return {path: content for path, content in self._after.items() if content != self._before[path]}

    def loose(self) -> list[str]:
        """The files, of those looked at, that others than their owner may read."""
        return sorted(path for path in self._before if os.path.lexists(path) and os.lstat(path).st_mode & 0o044)

    def commit(self) -> list[str]:
        """Write all planned files, or none, and return the paths that changed.

        :raises KeyturnError: ``file-changed`` when a file was edited meanwhile; ``write-failed`` when the disk refuses
            (nothing is changed then); ``write-torn`` when neither forward nor back was possible, with the paths.
        """
        changes = self.changes
        for path in changes:
            if self._look(path) != self._before[path]:
                raise KeyturnError(
                    "file-changed",
                    "was edited by somebody else meanwhile",
                    where=path,
                    hint="Run the same command again",
                )
        outside = [path for path in changes if path in self._outside]
        files = {path: content for path, content in changes.items() if path not in self._outside}
        written = {path: content for path, content in files.items() if content is not None}
        try:
            for path in outside:  # first, since a file can be put back without anybody's help
                self._outside[path].change(self._before[path], changes[path])
            atomic.write_files(written)
            for path in files:
                if path not in written:
                    atomic.remove_file(path)
        except (OSError, KeyturnError) as error:
            self._undo(changes, error)
        return sorted(changes)

    def _undo(self, changes: Mapping[str, bytes | None], cause: OSError | KeyturnError) -> None:
        """Put back what was already replaced, then say truthfully how it stands."""
        torn = []
        reason = cause.strerror if isinstance(cause, OSError) else cause.message
        for path in changes:
            before = self._before[path]
            try:
                present = self._look(path)
                if present == before:
                    continue
                if path in self._outside:
                    self._outside[path].take_back(before, changes[path])
                elif before is None:
                    atomic.remove_file(path)
                else:
                    atomic.write_file(path, before)
            except (OSError, KeyturnError):
                torn.append(path)
        if torn:
            raise KeyturnError(
                "write-torn",
                f"some files were replaced and could not be put back ({reason}): " + ", ".join(torn),
                where=torn[0],
                hint=f"{_MEND[torn[0] in self._outside]} and run the same command again: it finishes the change",
            ) from None
        where = cause.where if isinstance(cause, KeyturnError) else sorted(changes)[0]
        raise KeyturnError(
            "write-failed",
            f"the files could not all be replaced ({reason}), so none was changed",
            where=where,
            hint=f"{_CHECK[where in self._outside]}, then run the same command again",
        ) from None


class Store(ABC):
    """One place that holds a secret's versions.

    :param path: the file, absolute.
    :param layout: how many versions it holds, and in which variables.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        if not os.path.isabs(path) or os.path.normpath(path) != path:
            raise KeyturnError(
                "store-invalid",
                "the path of a store is absolute and has no dots in it",
                where=path,
                hint="Write it out",
            )
        self.path = path
        self.layout = layout

    @property
    def variable(self) -> str:
        """The variable that holds the primary version; empty where the file is the value."""
        return self.layout.variable

    @abstractmethod
    def read(self, workspace: Workspace) -> Slots:
        """What each variable of the layout holds; None for one that is not there or empty."""

    @abstractmethod
    def record(self, workspace: Workspace) -> dict[str, Any]:
        """What is needed to put the store back to the byte (JSON; holds secrets)."""

    def record_sent(self, workspace: Workspace, old: bytes | None, new: bytes) -> dict[str, Any]:
        """The same, where another host has made this new value, and may have written it to the very same place."""
        del old, new
        return self.record(workspace)

    @abstractmethod
    def plan(self, workspace: Workspace, wanted: Mapping[str, bytes | None], record: Mapping[str, Any]) -> None:
        """Compute the file with the wanted values; where one is the recorded original, its original bytes."""

    @abstractmethod
    def original(self, record: Mapping[str, Any]) -> Slots:
        """The values in a record, as :meth:`read` gave them then."""
