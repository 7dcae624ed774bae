# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dotenv files, byte for byte: what is not named is not touched.

The values are those that python-dotenv (without interpolation) and Docker Compose read. Readers disagree about some
forms: a ``$`` outside of single quotes (Compose and shells expand it), text behind a closing quote, a comment right
behind the equals sign, or behind a tab (which Compose takes for a part of the value). Such a form is kept when it
belongs to another key, and refused when it is the one asked for. A new value is written only in a form that all readers
take the same way: one with ``${NAME}`` in none, since python-dotenv expands that in single quotes too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Document", "Line", "decode", "edit", "encode", "parse", "render"]

_END = re.compile(r"\r\n|\n|\r")
_REST = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|$)")
_START = re.compile(
    r"(?P<before>\ufeff?[^\S\r\n]*(?:export[^\S\r\n]+)?(?:'(?P<quoted>[^'\r\n]+)'|(?P<name>[^=#\s]+))[^\S\r\n]*)"
)
_EQUALS = re.compile(r"=[^\S\r\n]*")
_SINGLE = re.compile(r"'((?:\\'|[^'])*)'")
_DOUBLE = re.compile(r'"((?:\\"|[^"])*)"')
_BEHIND = re.compile(r"[^\S\r\n]*(?:#[^\r\n]*)?(?:\r\n|\n|\r|$)")
_SINGLE_ESCAPE = re.compile(r"\\([\\'])")
_DOUBLE_ESCAPE = re.compile(r"\\([\\'\"abfnrtv])")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_BRACED = re.compile(r"\$\{[^}:]*(?::-[^}]*)?\}")
_DOLLAR = re.compile(r"\$[A-Za-z0-9_{($]|\\\$")
_PLAIN = re.compile(r"[A-Za-z0-9_./+:@%,=^-]*")
_PLAIN_ONE = re.compile(r"[A-Za-z0-9_./+:@%,=^-]")
_NEVER_PLAIN = frozenset(" \t#$'\"`\\")
_IN_SINGLE = re.compile(r"(?:[^'\\\x00-\x08\x0a-\x1f\x7f]|\\(?![\\']|$))*")
_IN_DOUBLE = re.compile(r"[^\"\\$`\x00-\x08\x0a-\x1f\x7f]*")


@dataclass(frozen=True)
class Line:
    """One setting, or one line that is none (``name`` is empty and all of it is ``before``).

    :param before: everything up to the value: indent, ``export``, name, equals sign.
    :param raw: the value as it is written, with its quotes.
    :param after: everything behind it: spaces, comment, line end.
    :param value: what a reader gets; None for a bare name without an equals sign.
    :param number: the first line of the file it stands on, from 1.
    :param doubt: why readers disagree about the value, or empty: ``interpolated`` or ``ambiguous``.
    """

    number: int
    before: str
    raw: str = ""
    after: str = ""
    name: str = ""
    value: str | None = None
    doubt: str = ""

    @property
    def text(self) -> str:
        """The whole line as it stands in the file."""
        return self.before + self.raw + self.after

    @property
    def quote(self) -> str:
        """The quote character of the value, or an empty text."""
        return self.raw[0] if self.raw[:1] in ("'", '"') else ""


@dataclass(frozen=True)
class Document:
    """A dotenv file in parts; ``broken`` is the first line whose quotes or bytes make the rest uncertain, or 0."""

    lines: tuple[Line, ...]
    broken: int = 0

    def find(self, name: str, where: str = "") -> Line | None:
        """The one line that sets ``name``, or None.

        :raises KeyturnError: ``env-file-invalid`` (unbalanced quote, NUL byte), ``variable-duplicate``,
            ``variable-interpolated``, ``variable-ambiguous`` (readers disagree about the present value).
        """
        if self.broken:
            raise KeyturnError(
                "env-file-invalid",
                f"line {self.broken} has an unbalanced quote or a NUL byte, so it cannot be read safely",
                where=where,
                hint="Correct this line by hand",
            )
        found = [line for line in self.lines if line.name == name]
        if len(found) > 1:
            numbers = ", ".join(str(line.number) for line in found)
            raise KeyturnError(
                "variable-duplicate",
                f"{name} is set more than once, on lines {numbers}",
                where=where,
                hint="Keep one of these lines",
            )
        if not found:
            return None
        line = found[0]
        if line.doubt:
            what = "refers to another variable, or has a $ that some readers expand"
            if line.doubt != "interpolated":
                what = "is written in a way that readers do not agree about"
            raise KeyturnError(
                f"variable-{line.doubt}",
                f"the value of {name} on line {line.number} {what}",
                where=where,
                hint="Write the plain value in single quotes",
            )
        return line


def decode(data: bytes) -> str:
    """Bytes to text, reversible for any bytes."""
    return data.decode("utf-8", "surrogateescape")


def render(document: Document) -> bytes:
    """The bytes of a document; ``render(parse(data)) == data`` for any data."""
    return "".join(line.text for line in document.lines).encode("utf-8", "surrogateescape")


def parse(data: bytes) -> Document:
    """Take a dotenv file apart. Never fails: a line that is no setting is kept as it is."""
    text = decode(data)
    lines: list[Line] = []
    at, number, broken = 0, 1, 0
    while at < len(text):
        line, unsafe = _parse_line(text, at, number)
        if not broken and (unsafe or "\0" in line.text):
            broken = number
        lines.append(line)
        at += len(line.text)
        number += len(_END.findall(line.text))
    return Document(tuple(lines), broken)


def _rest(text: str, at: int) -> str:
    found = _REST.match(text, at)
    return found.group() if found else ""


def _parse_line(text: str, at: int, number: int) -> tuple[Line, bool]:
    """One line from ``at`` on, and whether what follows it is uncertain."""
    start = _START.match(text, at)
    if not start:
        return Line(number, _rest(text, at)), False
    name = start.group("quoted") or start.group("name")
    equals = _EQUALS.match(text, start.end())
    if not equals:
        behind = _BEHIND.match(text, start.end())
        if not behind:
            return Line(number, _rest(text, at)), False
        return Line(number, start.group(), "", behind.group(), name), False
    before = text[at : equals.end()]
    first = text[equals.end() : equals.end() + 1]
    if first in ("'", '"'):
        return _quoted(text, equals.end(), number, before, name)
    return _unquoted(_rest(text, equals.end()), number, before, name), False


def _unquoted(rest: str, number: int, before: str, name: str) -> Line:
    body = _END.sub("", rest)
    raw = re.sub(r"\s+#.*", "", body).rstrip()
    if raw.startswith("#"):
        return Line(number, before, "", rest, name, "", "ambiguous")
    if raw != body.split(" #", 1)[0].rstrip():  # where a comment begins to Compose
        return Line(number, before, raw, rest[len(raw) :], name, raw, "ambiguous")
    doubt = "interpolated" if _DOLLAR.search(raw) else ""
    return Line(number, before, raw, rest[len(raw) :], name, raw, doubt)


def _quoted(text: str, at: int, number: int, before: str, name: str) -> tuple[Line, bool]:
    single = text[at] == "'"
    found = (_SINGLE if single else _DOUBLE).match(text, at)
    if not found:
        return Line(number, before, "", _rest(text, at), name, "", "ambiguous"), True
    raw, inner = found.group(), found.group(1)
    behind = _BEHIND.match(text, found.end())
    if not behind:  # text behind the closing quote; over several lines, nobody can say what belongs to what
        return Line(number, before, "", _rest(text, at), name, "", "ambiguous"), bool(_END.search(raw))
    if single:
        return Line(number, before, raw, behind.group(), name, _SINGLE_ESCAPE.sub(r"\1", inner)), False
    value = _DOUBLE_ESCAPE.sub(lambda match: _ESCAPES.get(match.group(1), match.group(1)), inner)
    doubt = "interpolated" if _DOLLAR.search(inner) else ""
    return Line(number, before, raw, behind.group(), name, value, doubt), False


def encode(value: str, quote: str = "", *, before: str = "", name: str = "", where: str = "") -> str:
    """Write a value so that all readers get it back; in the given quote style where the value allows it.

    A reader that takes quotes for a part of the value (``docker run --env-file``) must not get them where there were
    none: characters that stood there without quotes stand there again.

    :param quote: an empty text, a single or a double quote.
    :param before: the value as it was written.
    :raises KeyturnError: ``value-unwritable`` for a value that no such form holds (a line feed, both kinds of quotes).
    """
    forms = {"": _PLAIN, "'": _IN_SINGLE, '"': _IN_DOUBLE}
    others = [other for other in ("", "'", '"') if other != quote]
    if quote:
        others.remove("")
    if not quote and _is_as_plain(value, before):
        return value
    is_expanded = not {*_BRACED.findall(value)} <= {*_BRACED.findall(before)}
    for form in (quote, *others):
        if forms[form].fullmatch(value) and not is_expanded:
            return f"{form}{value}{form}"
    raise KeyturnError(
        "value-unwritable",
        f"the value for {name or 'this variable'} has characters that a dotenv file does not hold safely",
        where=where,
        hint="Use a value of one line that has not both kinds of quotes and no ${NAME}, or a plain file",
    )


def _is_as_plain(value: str, before: str) -> bool:
    """Whether a value needs no character without quotes that was not there without quotes before."""
    special = set(_PLAIN_ONE.sub("", value))
    return bool(value) and special <= set(before) and not special & _NEVER_PLAIN and value.isprintable()


def edit(data: bytes, changes: Mapping[str, str | None], where: str = "", *, final_newline: bool = True) -> bytes:
    """Change the named keys only; the result is parsed again and compared.

    :param changes: name to the new value as it is to be written (see :func:`encode`); None takes the line away.
    :param final_newline: False when a line taken away was added to a file that did not end with a line end.
    :raises KeyturnError: as :meth:`Document.find`; ``edit-failed`` when the result is not what was asked for.
    """
    before = parse(data)
    lines = list(before.lines)
    for name, raw in changes.items():
        line = before.find(name, where)
        if line is None:
            if raw is not None:
                _append(lines, name, raw, before)
            continue
        at = lines.index(line)
        if raw is not None:
            start = line.before if "=" in line.before else f"{line.before}="  # a bare name gets its value
            lines[at] = Line(line.number, start, raw, line.after, name)
            continue
        del lines[at]
        if lines and at == len(lines) and not final_newline:
            lines[-1] = _without_end(lines[-1])
    result = render(Document(tuple(lines)))
    _compare(before, parse(result), changes, where)
    return result


def _append(lines: list[Line], name: str, raw: str, document: Document) -> None:
    found = next((end for end in (_END.search(line.text) for line in document.lines) if end), None)
    end = found.group() if found else "\n"
    if lines and not lines[-1].text.endswith(("\n", "\r")) and lines[-1].text != "\ufeff":
        last = lines[-1]
        lines[-1] = Line(last.number, last.before, last.raw, last.after + end, last.name, last.value, last.doubt)
    lines.append(Line(len(lines) + 1, f"{name}=", raw, end, name))


def _without_end(line: Line) -> Line:
    return Line(line.number, re.sub(r"(?:\r\n|\n|\r)\Z", "", line.text))


def _compare(before: Document, after: Document, changes: Mapping[str, str | None], where: str) -> None:
    """Exactly the named keys differ, and each is what was asked for."""

    def others(document: Document) -> list[tuple[str, str, str | None]]:
        kept = [line for line in document.lines if line.name not in changes]
        return [(line.name, _END.sub("\n", line.text).rstrip("\n"), line.value) for line in kept]

    wanted = {name: raw for name, raw in changes.items() if raw is not None}
    got = {line.name: line.raw for line in after.lines if line.name in changes}
    if after.broken or wanted != got or others(before) != others(after):
        raise KeyturnError(
            "edit-failed",
            "the changed text would not read back as it should, so it was not written",
            where=where,
            hint="Look at the lines of " + ", ".join(sorted(changes)),
        )
