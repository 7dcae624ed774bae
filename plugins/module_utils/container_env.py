# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the containers of a service still have a value in their environment. Names come out, never values."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from ansible_collections.keyturn.rotation.plugins.module_utils import compose

__all__ = ["blanks", "environments", "holders"]

#: A shorter value may stand in others by chance, so it has to be a whole one, or a password in a URL.
_SHORT = 8


def environments(service: Mapping[str, Any], timeout: float) -> dict[str, tuple[str, ...]]:
    """The environment of each container of a service, by the container's name; stopped ones too.

    :raises KeyturnError: ``docker-library-missing``, ``docker-unreachable``.
    """
    place = compose.place_of(service)
    with compose.connected(place.docker_host, timeout) as client:
        return {container.name: container.environment for container in compose.inspected(client, place)}


def _forms(value: bytes) -> list[str]:
    """A value as it may stand in an environment: as it is, percent-encoded, in base64; the longest first."""
    forms = {value.decode("utf-8", "surrogateescape"), quote(value, safe=""), quote_plus(value)}
    forms.add(base64.b64encode(value).decode().rstrip("="))
    return sorted(forms, key=lambda form: (-len(form), form))


def _password(text: str) -> str:
    try:
        return unquote(urlsplit(text).password or "")
    except ValueError:
        return ""


def _holds(text: str, value: bytes, other: bytes) -> bool:
    """Whether a variable's text holds the value; places that belong to the other one do not count."""
    plain = value.decode("utf-8", "surrogateescape")
    if text == plain or _password(text) == plain:
        return True
    if len(value) < _SHORT:
        return False
    if value in other and other:
        for form in _forms(other):
            text = text.replace(form, "")
    return any(form in text for form in _forms(value))


def blanks(found: Mapping[str, Iterable[str]], names: Iterable[str]) -> list[tuple[str, str]]:
    """Container and variable of each of these that is there and empty, as Compose leaves what no file sets; sorted."""
    wanted = {f"{name}=" for name in names}
    return sorted(
        (container, entry[:-1]) for container, environment in found.items() for entry in environment if entry in wanted
    )


def holders(found: Mapping[str, Iterable[str]], value: bytes, other: bytes) -> list[tuple[str, str]]:
    """Container and variable of each place that holds the value, sorted.

    :param found: by container its environment, ``NAME=value`` each.
    :param other: the other version of the same secret.
    """
    places = []
    for container, environment in found.items():
        for entry in environment:
            name, _mark, text = entry.partition("=")
            if _holds(text, value, other):
                places.append((container, name))
    return sorted(places)
