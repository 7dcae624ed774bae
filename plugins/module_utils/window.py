# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The overlap window: how long both versions must be accepted, from figures that are declared or measured. Pure.

A token of the old version may be signed until its signer has loaded the new one, lives for its lifetime, and is judged
by clocks that differ; each cache on the way may show keys for its time. The window is the sum. A figure that is missing
is an error: zero is a figure too, but somebody has to say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import DURATION, Field, Shape, parse_duration

__all__ = [
    "FIGURES",
    "JWKS",
    "WINDOW",
    "Exposure",
    "Part",
    "Window",
    "closing_seconds",
    "declared",
    "exposure",
    "measured_by",
    "overlap_window",
]

#: What stands in for a figure that was measured before and cannot be read at the end, in seconds.
_UNSEEN = 86400
#: Of these only the longest counts: a token is either the one or the other.
_TOKENS = ("token_lifetime", "refresh_lifetime")
#: What a figure is where the catalog does not say it: no gateway fetches the keys of a keyset, and all of its tokens
#: are of the one kind.
_DEFAULTS = {"keyset": {"refresh_lifetime": "0s", "jwks_max_age": "0s", "gateway_cache": "0s", "skew": "60s"}}

WINDOW = Shape(
    "overlap window",
    {
        "token_lifetime": Field("str", "How long a token is valid: 15m", pattern=DURATION),
        "refresh_lifetime": Field(
            "str", "How long a refresh token is valid; 0s where none is signed", pattern=DURATION
        ),
        "jwks_max_age": Field(
            "str", "How long caches may show published keys; measured where jwks is named", pattern=DURATION
        ),
        "gateway_cache": Field("str", "How long gateways keep keys on their own account", pattern=DURATION),
        "reload": Field("str", "How long a running service takes to load a change by itself", pattern=DURATION),
        "skew": Field("str", "By how much clocks may differ: 60s", pattern=DURATION),
    },
)
PURGE = Shape(
    "request that empties a cache",
    {
        "url": Field("str", "The address; that of the JWKS by default"),
        "method": Field("str", "The HTTP method; PURGE by default"),
        "headers": Field("map", "Headers"),
    },
)
JWKS = Shape(
    "address of published keys",
    {
        "name": Field("str", "How reports call it"),
        "url": Field("str", "The address of the JWKS", required=True),
        "hosts": Field("str|list", "Where it is asked from; by default on the state host"),
        "headers": Field("map", "Headers"),
        "ca_file": Field("str", "Certificates to trust"),
        "timeout": Field("int", "Seconds"),
        "within": Field("str", "How long promote waits until it shows a new key; 15m by default", pattern=DURATION),
        "refresh": Field(
            "str", "How its cache comes to a new key; wait by default", choices=("wait", "purge", "restart")
        ),
        "purge": Field("map", "The request that empties its cache", shape=PURGE),
        "service": Field("str", "The service that is restarted"),
    },
)
#: The figures that a window is made of, in the order of the sum.
FIGURES = tuple(WINDOW.fields)


@dataclass(frozen=True)
class Part:
    """One summand.

    :param name: one of :data:`FIGURES`.
    :param seconds: what it adds.
    :param source: ``catalog``, or the endpoint at which it was measured.
    """

    name: str
    seconds: int
    source: str


@dataclass(frozen=True)
class Window:
    """The parts and their sum.

    :param floor: the least that it may be (``overlap_min``), in seconds.
    """

    parts: tuple[Part, ...]
    floor: int

    @property
    def seconds(self) -> int:
        """From the end of the rotation to the earliest retire."""
        return max(self.floor, sum(part.seconds for part in self.parts))

    @property
    def spread(self) -> int:
        """How long a change of the published keys may take to be seen everywhere."""
        return sum(part.seconds for part in self.parts if part.name in ("jwks_max_age", "gateway_cache", "reload"))


def _incomplete(figure: str, where: str, why: str) -> KeyturnError:
    text = WINDOW.fields[figure].text
    return KeyturnError(
        "window-incomplete",
        f"the overlap window cannot be computed: {figure} is missing{why}",
        where=f"{where}.window",
        hint=f"Add a line like '{figure}: 15m' ({text})",
    )


def declared(secret: Mapping[str, Any], where: str) -> dict[str, int] | None:
    """The figures of a secret of the catalog, in seconds; None for one that has no window. A keyset has always one.

    :raises KeyturnError: ``window-incomplete`` for the first figure that is neither declared nor measured.
    """
    defaults = _DEFAULTS.get(str(secret.get("kind")))
    if "window" not in secret and not secret.get("jwks") and defaults is None:
        return None
    said = {**(defaults or {}), **(secret.get("window") or {})}
    if secret.get("jwks") and "jwks_max_age" not in (secret.get("window") or {}):
        said.pop("jwks_max_age", None)
    for figure in FIGURES:
        if figure not in said and not (figure == "jwks_max_age" and secret.get("jwks")):
            raise _incomplete(figure, where, "")
    return {figure: parse_duration(said[figure], f"{where}.window.{figure}") for figure in FIGURES if figure in said}


def overlap_window(
    figures: Mapping[str, int], measured: Mapping[str, int | None], floor: int = 0, where: str = "keyturn_secrets"
) -> Window:
    """The window from its figures.

    :param figures: in seconds, as :func:`declared` gives them.
    :param measured: by endpoint, how long its headers let caches show the keys; None where they do not say. The
        longest of these and of what is declared counts.
    :param floor: ``overlap_min`` in seconds.
    :raises KeyturnError: ``window-incomplete`` when ``jwks_max_age`` is neither declared nor measured everywhere.
    """
    silent = sorted(name for name, seconds in measured.items() if seconds is None)
    ages = [Part("jwks_max_age", seconds, name) for name, seconds in measured.items() if seconds is not None]
    if "jwks_max_age" in figures:
        ages.append(Part("jwks_max_age", figures["jwks_max_age"], "catalog"))
    elif silent or not ages:
        says = f", and the headers of {', '.join(silent)} do not say it" if silent else ""
        raise _incomplete("jwks_max_age", where, says)
    for figure in FIGURES:
        if figure != "jwks_max_age" and figure not in figures:
            raise _incomplete(figure, where, "")
    tokens = max(_TOKENS, key=lambda name: figures[name])
    parts = [Part(tokens, figures[tokens], "catalog"), max(ages, key=lambda part: part.seconds)]
    parts += [Part(name, figures[name], "catalog") for name in FIGURES if name not in (*_TOKENS, "jwks_max_age")]
    return Window(tuple(parts), floor)


@dataclass(frozen=True)
class Exposure:
    """How long a key that is disabled may still be accepted somewhere.

    :param parts: the summands; ``overlap_min`` alone where no figure is declared, since it covers every cache.
    :param unknown: what is not known, in words; something stands in for it then.
    """

    parts: tuple[Part, ...]
    unknown: str = ""

    @property
    def seconds(self) -> int:
        """Their sum."""
        return sum(part.seconds for part in self.parts)


def exposure(planned: Mapping[str, Any], measured: Mapping[str, int | None]) -> Exposure:
    """How long tokens of a disabled key can still be accepted: every cache that nobody empties, one behind the other.

    A gateway that is purged or restarted does not count, nor does a service that is restarted. What verifiers have
    fetched by themselves does, wherever they got it: nobody can take it from them.

    :param planned: ``window`` (figures and floor, as of a plan) or None, ``retire_seconds``, ``emptied`` (whether all
        gateways are purged or restarted) and ``restarted`` (whether the services that read the keys are).
    :param measured: by address, how long its headers let caches show the keys; None where they do not say.
    """
    window = planned.get("window")
    if not window:
        return Exposure((Part("overlap_min", int(planned["retire_seconds"]), "catalog"),))
    figures = window["figures"]
    ages = [Part("jwks_max_age", seconds, name) for name, seconds in measured.items() if seconds is not None]
    if "jwks_max_age" in figures:
        ages.append(Part("jwks_max_age", figures["jwks_max_age"], "catalog"))
    silent = sorted(name for name, seconds in measured.items() if seconds is None)
    unknown = ""
    if not ages or (silent and "jwks_max_age" not in figures):
        unknown = f"how long verifiers cache is not known ({', '.join(silent) or 'no address'} does not say it)"
        ages.append(Part("jwks_max_age", _UNSEEN, "a day is taken"))
    parts = [max(ages, key=lambda part: part.seconds)]
    left_out = {"gateway_cache": planned["emptied"], "reload": planned["restarted"], "skew": False}
    parts += [Part(name, figures[name], "catalog") for name, is_out in left_out.items() if not is_out]
    return Exposure(tuple(parts), unknown)


def measured_by(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int | None]]:
    """By secret and endpoint, how long caches may show the keys.

    :param answers: by host, what it registered: one answer of ``jwks_info`` for each secret, in ``results``.
    """
    found: dict[str, dict[str, int | None]] = {}
    for said in answers.values():
        for result in said.get("results", ()):
            entry = result.get(result.get("ansible_loop_var", "item")) or {}
            for endpoint in result.get("endpoints", ()):
                found.setdefault(str(entry.get("secret")), {})[endpoint["name"]] = endpoint["longest"]
    return found


def closing_seconds(planned: Mapping[str, Any], measured: Mapping[str, int | None]) -> int:
    """Seconds from the end of the rotation to retire, for a secret of a plan.

    A rotation that is over is not failed for a header that cannot be read any more: a day stands in for it.
    """
    if "window" not in planned:
        return int(planned["retire_seconds"])
    figures, floor = planned["window"]["figures"], planned["window"]["floor"]
    try:
        return overlap_window(figures, measured, floor).seconds
    except KeyturnError:
        return overlap_window({**figures, "jwks_max_age": _UNSEEN}, {}, floor).seconds
