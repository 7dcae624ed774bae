# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether every endpoint shows the keys that it should, and no others: asked all together, and again within a limit.

An endpoint that is down, answers with an error or serves an empty set shows nothing, so it never counts: neither for a
kid that must be there nor for one that must be gone.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils import web
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jwks.caching import Freshness, freshness
from ansible_collections.keyturn.rotation.plugins.module_utils.jwks.document import PublicKey, check_kid, parse_jwks
from ansible_collections.keyturn.rotation.plugins.module_utils.polling import pauses

__all__ = ["Seen", "Wanted", "converge", "judge", "look", "named", "run"]

_TIMEOUT = 10.0
_PARALLEL = 8
#: Waiting changes nothing about these.
_FINAL = "jwks-private"

Endpoint = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What every endpoint should show.

    :param present: kids that must be there.
    :param absent: kids that must be gone.
    :param count: how many keys there are; 0 for any number.
    """

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class Seen:
    """What one endpoint showed.

    :param keys: empty where it showed no usable set.
    :param freshness: what its headers say; None where there was no answer.
    :param code: why the set cannot be used, as a stable word.
    :param detail: the same for people.
    """

    name: str
    keys: tuple[PublicKey, ...] = ()
    freshness: Freshness | None = None
    code: str = ""
    detail: str = ""


# -- asking ------------------------------------------------------------------------------------------------------------


def named(endpoints: Iterable[Endpoint]) -> list[dict[str, Any]]:
    """The endpoints, each with a name: its own, or its address without what stands behind the path.

    :raises KeyturnError: ``url-invalid``; ``endpoint-twice``; ``endpoints-none``, since none shows nothing.
    """
    found: list[dict[str, Any]] = []
    for index, endpoint in enumerate(endpoints):
        where = f"endpoints[{index}]"
        web.check_url(str(endpoint.get("url") or ""), where)
        parts = urllib.parse.urlsplit(endpoint["url"])
        found.append({**endpoint, "name": endpoint.get("name") or f"{parts.netloc}{parts.path}"})
        if [entry["name"] for entry in found].count(found[-1]["name"]) > 1:
            raise KeyturnError(
                "endpoint-twice", "two endpoints have this name", where=found[-1]["name"], hint="Give each its own name"
            )
    if not found:
        raise KeyturnError("endpoints-none", "no endpoint is named", where="endpoints", hint="Name each JWKS address")
    return found


def look(endpoint: Endpoint) -> Seen:
    """Ask one endpoint once.

    :param endpoint: ``name``, ``url``, and where wanted ``headers``, ``ca_file``, ``timeout`` in seconds.
    :raises KeyturnError: what :func:`web.ask` raises for an endpoint that is declared wrongly.
    """
    name = str(endpoint["name"])
    answer = web.ask(
        web.Question(
            endpoint["url"],
            headers={str(key): str(value) for key, value in (endpoint.get("headers") or {}).items()},
            timeout=float(endpoint.get("timeout") or _TIMEOUT),
            ca_file=endpoint.get("ca_file"),
            follow=True,
        )
    )
    if answer.status != 200:
        said = answer.reason if answer.status is None else f"HTTP {answer.status}, expected 200"
        return Seen(name, code="jwks-unreachable", detail=said)
    fresh = freshness(answer.headers)
    try:
        return Seen(name, tuple(parse_jwks(answer.body, name)), fresh)
    except KeyturnError as error:
        return Seen(name, freshness=fresh, code=error.code, detail=f"{error.message}. {error.hint}")


def _look_at_all(endpoints: Sequence[Endpoint]) -> list[Seen]:
    with ThreadPoolExecutor(max_workers=min(_PARALLEL, len(endpoints))) as pool:
        return list(pool.map(look, endpoints))


# -- judging -----------------------------------------------------------------------------------------------------------


def judge(seen: Sequence[Seen], wanted: Wanted) -> dict[str, list[str]]:
    """By endpoint, what is not as it should be; empty where all is."""
    problems = {one.name: _own_problems(one, wanted) for one in seen}
    first: dict[str, tuple[str, str]] = {}
    for one in seen:
        for key in one.keys:
            place, thumbprint = first.setdefault(key.kid, (one.name, key.thumbprint))
            if thumbprint != key.thumbprint:
                problems[one.name].append(f"{key.kid!r} is another key than at {place}")
    return {name: found for name, found in problems.items() if found}


def _own_problems(one: Seen, wanted: Wanted) -> list[str]:
    if one.code:
        return [one.detail]
    kids = {key.kid for key in one.keys}
    problems = [f"{kid!r} is missing" for kid in wanted.present if kid not in kids]
    problems += [f"{kid!r} is still there" for kid in wanted.absent if kid in kids]
    if wanted.count and len(kids) != wanted.count:
        problems.append(f"{len(kids)} keys, expected {wanted.count}")
    return problems


def converge(
    endpoints: Sequence[Endpoint],
    wanted: Wanted,
    wait: float = 0,
    interval: float = 5,
    confirm: int = 1,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[list[Seen], dict[str, list[str]]]:
    """Ask all endpoints until all are right in the same round, or the time is over.

    :param wait: seconds; the last round begins at their end.
    :param interval: the longest pause between two rounds, in seconds.
    :param confirm: so many rounds must be right one after the other: behind one address there may be several servers.
    :returns: what the last round saw, and its problems by endpoint. A leaked key ends the waiting.
    """
    deadline = clock() + wait
    steps = pauses(interval)
    right = 0
    while True:
        seen = _look_at_all(endpoints)
        problems = judge(seen, wanted)
        right = 0 if problems else right + 1
        if right >= confirm or any(one.code == _FINAL for one in seen):
            return seen, problems
        left = deadline - clock()
        if left <= 0 and problems:
            return seen, problems
        sleep(min(next(steps), left) if left > 0 else min(next(steps), interval))


# -- the module --------------------------------------------------------------------------------------------------------


def _shown(one: Seen, problems: Mapping[str, list[str]]) -> dict[str, Any]:
    headers = asdict(one.freshness) if one.freshness else {}
    return {
        "name": one.name,
        "converged": one.name not in problems,
        "kids": [key.kid for key in one.keys],
        "keys": [asdict(key) for key in one.keys],
        "max_age": headers.get("max_age"),
        "s_maxage": headers.get("shared_max_age"),
        "age": headers.get("age"),
        "longest": headers.get("longest"),
        "detail": "; ".join(problems.get(one.name, ())),
    }


def _longest(seen: Iterable[Seen]) -> int | None:
    """How long caches may show the set of any of these endpoints; None if one of them does not say."""
    all_of = [one.freshness.longest if one.freshness else None for one in seen]
    said = [seconds for seconds in all_of if seconds is not None]
    return max(said) if len(said) == len(all_of) else None


def run(params: Mapping[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The result of the module ``jwks_info``; a failure keeps what was seen."""
    endpoints = named(params["endpoints"])
    wanted = Wanted(
        tuple(check_kid(kid, "present") for kid in params.get("present") or ()),
        tuple(check_kid(kid, "absent") for kid in params.get("absent") or ()),
        int(params.get("count") or 0),
    )
    both = sorted(set(wanted.present) & set(wanted.absent))
    if both:
        raise KeyturnError(
            "jwks-arguments", f"{', '.join(both)} cannot be both there and gone", hint="Correct present and absent"
        )
    seen, problems = converge(
        endpoints, wanted, params["wait"], params["interval"], max(1, int(params.get("confirm") or 1))
    )
    answer: dict[str, Any] = {
        "changed": False,
        "endpoints": [_shown(one, problems) for one in seen],
        "converged": not problems,
        "longest": _longest(seen),
    }
    if problems and params["fail"]:
        codes = [one.code for one in seen if one.code]
        code = _FINAL if _FINAL in codes else next(iter(codes), "jwks-not-converged")
        text = "; ".join(f"{name}: {', '.join(found)}" for name, found in problems.items())
        error = KeyturnError(code, text, hint="Nothing was changed. Mend these endpoints, or wait longer")
        answer.update(error.as_result(), failed=True)
    return answer
