# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that stand where the catalog does not say so: other variables, other lines. Pure; shows no value."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ansible_collections.keyturn.rotation.plugins.module_utils.stores import dotenv

__all__ = ["SHORTEST", "Known", "find_copies"]

#: Shorter values stand in too many places by chance.
SHORTEST = 8
_DOTENV = re.compile(r"(?:^|/)(?:\.env[^/]*|[^/]+\.env)$")
_LINE = re.compile(rb"[^\r\n]+")


@dataclass(frozen=True)
class Known:
    """A value, and where the catalog says that it stands.

    :param variables: pairs of path and variable; an empty variable for a whole file.
    :param spans: by path, written texts in a file that are stores.
    """

    name: str
    value: bytes
    variables: frozenset[tuple[str, str]]
    spans: Mapping[str, tuple[tuple[int, int], ...]]

    def forms(self) -> dict[str, list[bytes]]:
        """How it may be written, by what that is called."""
        percent = quote(self.value, safe="").encode()
        encoded = [base64.b64encode(self.value).rstrip(b"="), base64.urlsafe_b64encode(self.value).rstrip(b"=")]
        return {"literal": [self.value], "percent-encoded": [percent], "base64": encoded}

    def form_in(self, *texts: bytes) -> str:
        """The form in which it stands in one of these texts, or an empty text."""
        for form, written in self.forms().items():
            if any(part in text for part in written for text in texts):
                return form
        return ""


def _is_dotenv(path: str, known: Iterable[Known]) -> bool:
    return bool(_DOTENV.search(path)) or any(
        there == path and variable for value in known for there, variable in value.variables
    )


def _blanked(content: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    """Without what is a store; as long as before, so that lines keep their numbers."""
    for start, end in spans:
        content = content[:start] + b" " * (end - start) + content[end:]
    return content


def find_copies(known: Iterable[Known], files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Where values stand besides their stores.

    :param files: path to content, of dotenv files and of others.
    :returns: ``secret``, ``path``, ``line``, ``variable`` (empty where the line sets none), ``form``.
    """
    values = [value for value in known if len(value.value) >= SHORTEST]
    found = []
    for path, content in sorted(files.items()):
        lines = _settings(content) if _is_dotenv(path, values) else None
        for value in values:
            if (path, "") in value.variables:
                continue
            for number, variable, texts in lines or _lines(_blanked(content, value.spans.get(path, ()))):
                form = "" if variable and (path, variable) in value.variables else value.form_in(*texts)
                if form:
                    found.append(
                        {"secret": value.name, "path": path, "line": number, "variable": variable, "form": form}
                    )
    return found


_Lines = list[tuple[int, str, tuple[bytes, ...]]]


def _settings(content: bytes) -> _Lines:
    def raw(text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape")

    return [(line.number, line.name, (raw(line.text), raw(line.value or ""))) for line in dotenv.parse(content).lines]


def _lines(content: bytes) -> _Lines:
    return [(content.count(b"\n", 0, match.start()) + 1, "", (match.group(),)) for match in _LINE.finditer(content)]
