# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checking plain data against a small declared shape, with one clear error; the same shape becomes a JSON Schema."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["DURATION", "Field", "Shape", "nearest", "parse_duration"]

DURATION = r"^[0-9]+(s|m|h|d|w)$"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "map": (Mapping,),
    "list": (list, tuple),
    "any": (object,),
}
_JSON = {"str": "string", "int": "integer", "bool": "boolean", "map": "object", "list": "array"}


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}" if names else "None is known"


def parse_duration(text: str, where: str = "") -> int:
    """Seconds in ``90d``, ``12h``, ``30m``, ``45s`` or ``2w``.

    :raises KeyturnError: ``duration-invalid``.
    """
    if not isinstance(text, str) or not re.match(DURATION, text):
        raise KeyturnError(
            "duration-invalid", "is not a duration", where=where, hint="Write a number and s, m, h, d or w: 90d"
        )
    return int(text[:-1]) * _SECONDS[text[-1]]


@dataclass(frozen=True)
class Field:
    """One field: its type (several joined by ``|``), whether it must be there, and what may stand in it.

    :param types: of ``str int bool map list any``.
    :param required: absent is an error.
    :param choices: the permitted texts.
    :param pattern: a regular expression that a text must match.
    :param minimum: the least that a number may be.
    :param shape: the shape of a mapping here, or of each mapping in a list here.
    :param text: one line of documentation.
    """

    types: str
    text: str
    required: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ""
    minimum: int | None = None
    shape: Shape | None = None


@dataclass(frozen=True)
class Shape:
    """The permitted fields of a mapping."""

    name: str
    fields: Mapping[str, Field] = field(default_factory=dict)

    def check(self, value: Any, where: str) -> None:
        """Refuse the first thing that is wrong.

        :raises KeyturnError: ``catalog-invalid`` with the place (``keyturn_secrets.X.stores[0].path``).
        """
        if not isinstance(value, Mapping):
            raise KeyturnError(
                "catalog-invalid", f"must be a mapping ({self.name})", where=where, hint="See docs/catalog.md"
            )
        for key in value:
            if key not in self.fields:
                raise KeyturnError(
                    "catalog-invalid", f"unknown field {str(key)!r}", where=where, hint=nearest(str(key), self.fields)
                )
        for key, rule in self.fields.items():
            if key not in value:
                if rule.required:
                    raise KeyturnError("catalog-invalid", f"field {key!r} is missing", where=where, hint=rule.text)
                continue
            self._check_field(value[key], rule, f"{where}.{key}")

    @staticmethod
    def _check_field(value: Any, rule: Field, where: str) -> None:
        kinds = rule.types.split("|")
        fits = [
            kind
            for kind in kinds
            if isinstance(value, _TYPES[kind]) and not (kind == "int" and isinstance(value, bool))
        ]
        if not fits:
            raise KeyturnError("catalog-invalid", f"must be {' or '.join(kinds)}", where=where, hint=rule.text)
        if isinstance(value, str):
            if rule.choices and value not in rule.choices:
                raise KeyturnError(
                    "catalog-invalid", f"{value!r} is not possible here", where=where, hint=nearest(value, rule.choices)
                )
            if rule.pattern and not re.match(rule.pattern, value):
                raise KeyturnError("catalog-invalid", "is not of the right form", where=where, hint=rule.text)
        if isinstance(value, int) and rule.minimum is not None and value < rule.minimum:
            raise KeyturnError("catalog-invalid", f"must be {rule.minimum} or more", where=where, hint=rule.text)
        if rule.shape is not None:
            if isinstance(value, Mapping):
                rule.shape.check(value, where)
            elif isinstance(value, (list, tuple)):
                for index, item in enumerate(value):
                    rule.shape.check(item, f"{where}[{index}]")

    def json_schema(self) -> dict[str, Any]:
        """This shape as a JSON Schema (draft 2020-12) for editors."""
        properties: dict[str, Any] = {}
        for key, rule in self.fields.items():
            entry: dict[str, Any] = {"description": rule.text}
            kinds = [_JSON[kind] for kind in rule.types.split("|") if kind != "any"]
            if kinds:
                entry["type"] = kinds[0] if len(kinds) == 1 else kinds
            if rule.choices:
                entry["enum"] = list(rule.choices)
            if rule.pattern:
                entry["pattern"] = rule.pattern
            if rule.minimum is not None:
                entry["minimum"] = rule.minimum
            if rule.shape is not None:
                inner = rule.shape.json_schema()
                if "list" in rule.types.split("|"):
                    entry["items"] = inner
                else:
                    entry.update(inner)
            properties[key] = entry
        required = sorted(key for key, rule in self.fields.items() if rule.required)
        schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schema["required"] = required
        return schema
