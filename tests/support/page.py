# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A page as a reader meets it: the text of each part, and its tables; strict about tags that do not close."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["Page"]

_VOID = {"meta", "rect", "br"}


class Page(HTMLParser):
    """Parse a page.

    ``sections``: text by id of the section. ``tables``: rows of cells by id of the section. ``tags``: every tag seen.
    ``attributes``: every attribute seen, with its value.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {"": ""}
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self._open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Enter a tag."""
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.sections[self._section] = ""
        if tag == "tr":
            self.tables.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.tables[self._section][-1].append("")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Leave a tag; it has to be the last one that was entered."""
        if tag in _VOID:
            return
        assert self._open.pop() == tag, f"{tag} closes something else"
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        """Text."""
        if "style" in self._open:
            return
        self.sections[self._section] += data
        if "td" in self._open or "th" in self._open:
            self.tables[self._section][-1][-1] += data
