# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception of the core: a stable code, what was wrong, where, and what to do next.

The text of an error is shown to people and kept in logs, so it never holds a value.
"""

from __future__ import annotations

import os

__all__ = ["KeyturnError", "refusal_of"]


class KeyturnError(Exception):
    """A refusal or failure that a person can act on.

    :param code: stable, lower-case with dashes (``env-file-missing``); tests and callers match on it.
    :param message: what was wrong, one sentence, no secret in it.
    :param where: the file, table, host or catalog path it is about.
    :param hint: what to do next.
    """

    def __init__(self, code: str, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(code, message, where, hint)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = self.message.rstrip(".")
        if self.where:
            text = f"{self.where}: {text}"
        text += "."
        if self.hint:
            hint = self.hint.rstrip(".")
            text += f" {hint}" if hint.endswith("?") else f" {hint}."
        return text

    def as_result(self) -> dict[str, str]:
        """The keys that a module hands to ``fail_json``."""
        return {"msg": str(self), "code": self.code, "where": self.where, "hint": self.hint}


def refusal_of(error: Exception) -> KeyturnError | None:
    """What a person can act on where the system refused a file and nobody caught it; nothing for any other error.

    Only the path and the system's own words for the number are taken: the text of an exception may carry a value.
    """
    if not isinstance(error, OSError) or type(error).__module__ != "builtins" or error.errno is None:
        return None
    path = error.filename
    if not isinstance(path, str) or not os.path.isabs(path):
        return None
    return KeyturnError(
        "file-failed",
        f"cannot be used ({os.strerror(error.errno)})",
        where=path,
        hint="Check space, permissions and the file system, then run the same command again",
    )
