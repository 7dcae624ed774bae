# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the cells lie in a value that holds several: members of JSON, elements of an array, a list, a pattern. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple, Protocol, Union

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = [
    "ArrayLayer",
    "JsonLayer",
    "Layer",
    "ListLayer",
    "PatternLayer",
    "Span",
    "parse_path",
    "plain_json",
    "read_json",
]


class Span(NamedTuple):
    """Where a piece stands in a text, and which paths led there."""

    start: int
    end: int
    paths: tuple[int, ...] = ()


class Layer(Protocol):
    """One way to find pieces in a text. All raise ValueError for a text that is not of their form."""

    def spans(self, text: str) -> list[Span]:
        """The pieces, from left to right."""

    def read(self, piece: str) -> bytes:
        """What a piece says; empty for one that holds nothing."""

    def write(self, value: bytes) -> str:
        """The piece that says this."""

    def write_plain(self, value: bytes) -> str:
        """The piece for a value that is not encrypted."""


#: A member's name, an element's number, or None for all members or elements: ``("member", "a")``.
Step = tuple[str, Union[str, int, None]]

_STEP = re.compile(
    r"""\.(?P<name>[^.\[\]\s"'*]+) | \.(?P<members>\*) | \[(?P<elements>\*)\] | \[(?P<number>[0-9]+)\]
      | \["(?P<double>[^"]*)"\] | \['(?P<single>[^']*)'\]""",
    re.VERBOSE,
)


def parse_path(path: str) -> tuple[Step, ...]:
    """The steps of ``$.credentials.apiKey``, ``$.accounts[*].token``, ``$["odd name"]``, ``$.*`` or ``$[0]``.

    :raises KeyturnError: ``path-invalid``.
    """
    steps: list[Step] = []
    at = 1
    while str(path).startswith("$") and at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            break
        at, kind, text = match.end(), match.lastgroup or "", match.group(match.lastgroup or 0)
        if kind == "number":
            steps.append(("element", int(text)))
        elif kind in ("members", "elements"):
            steps.append((kind[:-1], None))
        else:
            steps.append(("member", text))
    if not str(path).startswith("$") or at != len(path):
        hint = 'Write $.credentials.apiKey, $.accounts[*].token or $["odd name"]'
        raise KeyturnError("path-invalid", "is no path into JSON", where=str(path)[:80], hint=hint)
    return tuple(steps)


_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)  # numbers are only passed over
_BLANKS = re.compile(r"[ \t\r\n]*")
_Active = Sequence["tuple[int, tuple[Step, ...]]"]


def _past_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def read_json(raw: bytes) -> bytes:
    """What a JSON value holds as a cell: a string its text, ``null`` nothing, anything else itself."""
    if raw.startswith(b'"'):
        return str(json.loads(raw)).encode(errors="surrogatepass")
    return b"" if raw == b"null" else raw


class _RefusedError(ValueError):
    """The server would refuse it, and quote it in its log."""


def _refuse_constant(name: str) -> Any:
    raise _RefusedError(name)


def _permitted_number(text: str) -> str:
    """A number that ``numeric`` can hold."""
    number = Decimal(text)
    if number.adjusted() >= _MOST_DIGITS or -int(number.as_tuple().exponent) > _MOST_DECIMALS:
        raise _RefusedError("a number too large")
    return text


_MOST_DIGITS, _MOST_DECIMALS = 131072, 16383
_PLAIN = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)
_PLAIN_BINARY = json.JSONDecoder(
    parse_int=_permitted_number, parse_float=_permitted_number, parse_constant=_refuse_constant
)


def plain_json(value: bytes, is_binary: bool = False) -> str:
    """The JSON value for a plaintext: an object or array as it is, anything else as a string.

    :param is_binary: whether it is for ``jsonb``, which takes no half of a surrogate pair, nor any number.
    :raises ValueError: for what is no text, is nested too deep, has a NUL character, which only bytea holds, or what
        no JSON has (``NaN``).
    """
    text = value.decode()
    try:
        parsed = (_PLAIN_BINARY if is_binary else _PLAIN).decode(text)
        is_container = isinstance(parsed, (dict, list))
        if is_container and is_binary:
            json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (_RefusedError, UnicodeEncodeError):
        raise
    except ValueError:
        is_container = False
    text = text if is_container else json.dumps(text)
    if "\0" in text or "\\u0000" in text:
        raise ValueError("a NUL character")
    return text


class JsonLayer:
    """The values at some paths of a JSON text. Everything else of it stays as it is, to the byte.

    :param paths: as :func:`parse_path` gives them.
    :param is_binary: see :func:`plain_json`.
    """

    def __init__(self, paths: Sequence[tuple[Step, ...]], holds_text: bool, is_binary: bool = False) -> None:
        self._is_binary = is_binary
        self._active = list(enumerate(paths))
        self._holds_text = holds_text  # a further layer looks into the values

    def spans(self, text: str) -> list[Span]:
        """The pieces, from left to right."""
        found: list[Span] = []
        end = self._walk(text, _past_blanks(text, 0), self._active, found)
        if _past_blanks(text, end) != len(text):
            raise ValueError("no JSON")
        return found

    def _walk(self, text: str, at: int, active: _Active, found: list[Span]) -> int:
        """Past one value that begins here; its pieces go into ``found``."""
        leaves = [path for path, rest in active if not rest]
        opening = text[at : at + 1]
        if leaves or not active or opening not in ("{", "["):
            end = _DECODER.raw_decode(text, at)[1]
            found += [Span(at, end, tuple(leaves))] if leaves else []
            return end
        closing, kind = ("}", "member") if opening == "{" else ("]", "element")
        at, number = _past_blanks(text, at + 1), 0
        if text[at : at + 1] == closing:
            return at + 1
        while True:
            name: str | int = number
            if kind == "member":
                name, at = self._name(text, at)
            within = [(path, rest[1:]) for path, rest in active if rest[0] in ((kind, name), (kind, None))]
            at = _past_blanks(text, self._walk(text, at, within, found))
            mark, number = text[at : at + 1], number + 1
            if mark not in (",", closing) or not mark:
                raise ValueError("no JSON")
            if mark == closing:
                return at + 1
            at = _past_blanks(text, at + 1)

    @staticmethod
    def _name(text: str, at: int) -> tuple[str, int]:
        """A member's name, and where its value begins."""
        if text[at : at + 1] != '"':
            raise ValueError("no JSON")
        name, at = _DECODER.raw_decode(text, at)
        at = _past_blanks(text, at)
        if text[at : at + 1] != ":":
            raise ValueError("no JSON")
        return name, _past_blanks(text, at + 1)

    def read(self, piece: str) -> bytes:
        """What a piece says; empty for one that holds nothing."""
        if self._holds_text and piece[0] not in '"n':
            raise ValueError("no text")
        return read_json(piece.encode())

    def write(self, value: bytes) -> str:
        """The piece that says this."""
        return json.dumps(value.decode())

    def write_plain(self, value: bytes) -> str:
        """The piece for a value that is not encrypted."""
        return plain_json(value, self._is_binary)


class _TextLayer:
    """Pieces that stand as they are."""

    def read(self, piece: str) -> bytes:
        """What a piece says; empty for one that holds nothing."""
        return piece.encode()

    def write(self, value: bytes) -> str:
        """The piece that says this."""
        return value.decode()

    write_plain = write


class ListLayer(_TextLayer):
    """A list in one text; blanks around its items do not belong to them."""

    def __init__(self, separator: str) -> None:
        self._separator = separator

    def spans(self, text: str) -> list[Span]:
        """The pieces, from left to right."""
        found, at = [], 0
        for item in text.split(self._separator):
            start = at + len(item) - len(item.lstrip())
            found.append(Span(start, max(start, at + len(item.rstrip()))))
            at += len(item) + len(self._separator)
        return found


class PatternLayer(_TextLayer):
    """What the one group of a regular expression matches, everywhere in a text."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def spans(self, text: str) -> list[Span]:
        """The pieces, from left to right."""
        return [Span(*match.span(1)) for match in self._pattern.finditer(text) if match.start(1) >= 0]


class ArrayLayer:
    """The elements of PostgreSQL's text form of an array (``array_out`` in ``arrayfuncs.c``), of any dimension."""

    _ELEMENT = re.compile(r'"(?:[^"\\]|\\.)*"|[^{},"\\ \t\n\r\v\f]+', re.DOTALL)  # quoted for ASCII blanks only

    def __init__(self, is_bytes: bool) -> None:
        self._is_bytes = is_bytes

    def spans(self, text: str) -> list[Span]:
        """The pieces, from left to right."""
        first = text.index("{")  # bounds may stand before it
        return [Span(*match.span()) for match in self._ELEMENT.finditer(text, first) if match.group() != "NULL"]

    def read(self, piece: str) -> bytes:
        """What a piece says; empty for one that holds nothing."""
        text = re.sub(r"\\(.)", r"\1", piece[1:-1], flags=re.DOTALL) if piece.startswith('"') else piece
        return bytes.fromhex(text[2:]) if self._is_bytes else text.encode()

    def write(self, value: bytes) -> str:
        """The piece that says this."""
        text = f"\\x{value.hex()}" if self._is_bytes else value.decode()
        return '"{}"'.format(re.sub(r'(["\\])', r"\\\1", text))

    write_plain = write
