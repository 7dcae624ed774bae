# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A part of a variable or of a file as a store: the password in a URL, or what a pattern finds.

All around the part stays as it is, also where somebody changed it meanwhile.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import Single, Slots

__all__ = ["InsideStore", "Pattern", "Place", "UrlPassword", "open_place"]

#: RFC 3986: the authority ends at the first of / ? #, its userinfo at the last @, the user at the first colon.
_URL = re.compile(rb"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#@:]*:(?P<password>[^/?#]*)@[^@/?#]*(?:[/?#]|\Z)", re.S)
_UNRESERVED = "-._~"


class Place(ABC):
    """Where in a text the value stands."""

    #: How reports call it.
    label: str

    @abstractmethod
    def span(self, text: bytes, where: str) -> tuple[int, int]:
        """Begin and end of the written value.

        :raises KeyturnError: ``place-missing``, ``place-several``.
        """

    def decoded(self, written: bytes) -> bytes:
        """The value behind the written form."""
        return written

    def encoded(self, value: bytes) -> bytes:
        """The written form of a value."""
        return value


class UrlPassword(Place):
    """The password of a URL, percent-encoded."""

    label = "url"

    def span(self, text: bytes, where: str) -> tuple[int, int]:
        """The password between the user's name and the @."""
        found = _URL.match(text)
        if not found or not found["password"]:
            raise KeyturnError(
                "place-missing",
                "holds no URL with a password",
                where=where,
                hint="Write scheme://user:password@host there, or take the store out",
            )
        return found.span("password")

    def decoded(self, written: bytes) -> bytes:
        """Without percent-encoding."""
        return unquote_to_bytes(written)

    def encoded(self, value: bytes) -> bytes:
        """Everything but unreserved characters is percent-encoded."""
        return quote(value, safe=_UNRESERVED).encode()


class Pattern(Place):
    """What the one group of a regular expression finds; lines are lines to ``^`` and ``$``."""

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern.encode(), re.MULTILINE)
        except re.error:
            raise KeyturnError(
                "store-invalid", "is no regular expression", where="inside.pattern", hint="Correct the pattern"
            ) from None
        if self._pattern.groups != 1:
            raise KeyturnError(
                "store-invalid",
                f"has {self._pattern.groups} groups",
                where="inside.pattern",
                hint="Put the value, and nothing else, into ( )",
            )
        self.label = f"/{pattern}/"

    def span(self, text: bytes, where: str) -> tuple[int, int]:
        """The group of the one match."""
        found = list(self._pattern.finditer(text))
        if len(found) != 1 or not found[0].group(1):
            raise KeyturnError(
                "place-several" if len(found) > 1 else "place-missing",
                f"the pattern of this store finds {len(found)} values",
                where=where,
                hint="Make it match exactly one",
            )
        return found[0].span(1)


def open_place(inside: Any, where: str = "inside") -> Place:
    """The place that the option ``inside`` names: ``url``, or ``{pattern: …}``.

    :raises KeyturnError: ``store-invalid``.
    """
    if inside == "url":
        return UrlPassword()
    if isinstance(inside, Mapping) and list(inside) == ["pattern"] and isinstance(inside["pattern"], str):
        return Pattern(inside["pattern"])
    raise KeyturnError("store-invalid", "is no place", where=where, hint="Write url, or {pattern: 'key=(.+)'}")


class InsideStore(Store):
    """One part of what another store holds.

    :param outer: the variable or the file; it holds one version.
    """

    def __init__(self, outer: Store, place: Place) -> None:
        if not isinstance(outer.layout, Single):
            raise KeyturnError(
                "store-invalid", "a part holds one version only", where=outer.path, hint="Leave layout away"
            )
        name = f"{outer.variable} {place.label}".lstrip()
        super().__init__(outer.path, Single(name))
        self.outer = outer
        self.place = place

    def _text(self, slots: Mapping[str, bytes | None]) -> bytes:
        return slots[self.outer.layout.variable] or b""

    @property
    def _where(self) -> str:
        return f"{self.path} {self.outer.variable}".rstrip()

    def _part(self, text: bytes) -> bytes | None:
        start, end = self.place.span(text, self._where)
        return self.place.decoded(text[start:end])

    def written_span(self, workspace: Workspace) -> tuple[int, int]:
        """Where the part begins and ends in what the outer store holds.

        :raises KeyturnError: as :meth:`read`.
        """
        return self.place.span(self._text(self.outer.read(workspace)), self._where)

    def read(self, workspace: Workspace) -> Slots:
        """The value of the part.

        :raises KeyturnError: as the outer store; ``place-missing``, ``place-several``.
        """
        return {self.variable: self._part(self._text(self.outer.read(workspace)))}

    def record(self, workspace: Workspace) -> dict[str, Any]:
        """What the outer store records."""
        return self.outer.record(workspace)

    def original(self, record: Mapping[str, Any]) -> Slots:
        """The value of the part in a record."""
        return {self.variable: self._part(self._text(self.outer.original(record)))}

    def plan(self, workspace: Workspace, wanted: Mapping[str, bytes | None], record: Mapping[str, Any]) -> None:
        """Put another value into the place; the recorded one as it was written then."""
        value = wanted[self.variable] or b""
        text = self._text(self.outer.read(workspace))
        start, end = self.place.span(text, self._where)
        before = self._text(self.outer.original(record))
        first, last = self.place.span(before, self._where)
        original = self.place.decoded(before[first:last]) == value
        written = before[first:last] if original else self.place.encoded(value)
        if not original and self.place.decoded(text[start:end]) == value:
            return
        result = text[:start] + written + text[end:]
        self._check(result, text[:start], text[end:], value)
        self.outer.plan(workspace, {self.outer.layout.variable: result}, record)

    def _check(self, result: bytes, head: bytes, tail: bytes, value: bytes) -> None:
        """The value reads back, and what is around it is what it was."""
        try:
            start, end = self.place.span(result, self._where)
        except KeyturnError:
            start, end = 0, 0
        around = (result[:start], result[end:]) == (head, tail)
        if not value or not around or self.place.decoded(result[start:end]) != value:
            raise KeyturnError(
                "value-unwritable",
                "the value would not read back from its place",
                where=self._where,
                hint="Use a value of letters and digits, or another pattern",
            )
