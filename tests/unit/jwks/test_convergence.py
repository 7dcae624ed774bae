# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every endpoint shows the right keys, or it is named: against real servers with real caches."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import describe, generate
from ansible_collections.keyturn.rotation.plugins.module_utils.jwks.convergence import (
    Wanted,
    converge,
    judge,
    look,
    named,
)

from tests.support.endpoint import Asked, closed_port, endpoint
from tests.support.identity import Issuer, gateway, issuer
from tests.support.modules import Ran, run_module_process

_CANARY = "canary7Hq3nV5tY1wL9cD2"


def key(kid: str) -> dict[str, Any]:
    spec = {"type": "ec"}
    public: dict[str, Any] = describe(spec, generate(spec, bytes))["public"]
    return {**public, "kid": kid}


OLD, NEW = key("old"), key("new")


class _Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


def asked(*urls: str) -> list[dict[str, Any]]:
    return named({"url": url, "name": f"e{number}"} for number, url in enumerate(urls, 1))


def problems_of(*urls: str, **wanted: Any) -> dict[str, list[str]]:
    return converge(asked(*urls), Wanted(**wanted))[1]


# -- one look ----------------------------------------------------------------------------------------------------------


def test_what_an_endpoint_shows() -> None:
    with issuer(OLD, NEW) as here:
        seen = look({"name": "issuer", "url": here.url})
    assert [one.kid for one in seen.keys] == ["old", "new"]
    assert seen.freshness is not None
    assert (seen.freshness.longest, seen.code) == (300, "")


def test_there_gone_and_counted() -> None:
    with issuer(OLD, NEW) as here:
        assert problems_of(here.url, present=("old", "new"), absent=("other",), count=2) == {}
        assert problems_of(here.url, present=("other",), absent=("old",), count=1) == {
            "e1": ["'other' is missing", "'old' is still there", "2 keys, expected 1"]
        }


def test_trap_38_an_endpoint_that_is_down_or_ill_shows_neither_presence_nor_absence() -> None:
    with issuer(NEW) as well, issuer(NEW, status=503) as ill:
        down = f"http://127.0.0.1:{closed_port()}/"
        for wanted in ({"present": ("new",)}, {"absent": ("old",)}, {}):
            assert problems_of(well.url, ill.url, down, **wanted) == {
                "e2": ["HTTP 503, expected 200"],
                "e3": ["no connection (Connection refused)"],
            }


def test_trap_38_an_empty_set_does_not_show_that_a_kid_is_gone() -> None:
    with issuer() as here:
        assert problems_of(here.url, absent=("old",))["e1"][0].startswith("holds no key at all")


def test_trap_34_another_key_under_the_same_kid_is_named() -> None:
    with issuer(OLD, NEW) as here, issuer(OLD, key("new")) as other:
        assert problems_of(here.url, other.url, present=("new",)) == {"e2": ["'new' is another key than at e1"]}


def test_judging_is_pure_and_keeps_the_order_of_endpoints() -> None:
    with issuer(OLD) as here:
        seen = [look({"name": name, "url": here.url}) for name in ("b", "a")]
    assert list(judge(seen, Wanted(present=("new",)))) == ["b", "a"]


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_trap_17_a_new_key_is_waited_for_until_every_cache_shows_it() -> None:
    clock = _Clock()
    with (
        issuer(OLD, headers={"Cache-Control": "max-age=60"}) as one,
        gateway(one.url, clock=clock) as slow,
        gateway(one.url, clock=clock) as other,
    ):
        endpoints = asked(one.url, slow.url, other.url)
        assert converge(endpoints, Wanted(present=("old",)))[1] == {}
        one.keys.append(NEW)
        early = converge(endpoints, Wanted(present=("new",)), 30, 5, 1, clock, clock.sleep)[1]
        assert early == {"e2": ["'new' is missing"], "e3": ["'new' is missing"]}
        assert clock.now == pytest.approx(30)
        seen, problems = converge(endpoints, Wanted(present=("new",)), 600, 5, 1, clock, clock.sleep)
    assert problems == {}
    assert 60 <= clock.now < 70
    assert [[one.kid for one in each.keys] for each in seen] == [["old", "new"]] * 3


def test_a_purged_cache_shows_it_at_once() -> None:
    clock = _Clock()
    with issuer(OLD) as one, gateway(one.url, clock=clock) as edge:
        endpoints = asked(edge.url)
        assert converge(endpoints, Wanted(present=("old",)))[1] == {}
        one.keys.append(NEW)
        assert converge(endpoints, Wanted(present=("new",)))[1] != {}
        edge.purge()
        assert converge(endpoints, Wanted(present=("new",)))[1] == {}


def test_an_answer_out_of_a_cache_tells_its_age() -> None:
    clock = _Clock()
    with issuer(OLD) as one, gateway(one.url, clock=clock) as edge:
        look({"name": "edge", "url": edge.url})
        clock.sleep(45)
        seen = look({"name": "edge", "url": edge.url})
    assert seen.freshness is not None
    assert (seen.freshness.age, seen.freshness.longest) == (45, 300)


def test_several_servers_behind_one_address_are_asked_several_times() -> None:
    """Every second answer comes from a server that does not have the new key yet."""
    turns = [0]

    def answering(_asked: Asked) -> tuple[int, dict[str, str], str]:
        turns[0] += 1
        keys = [OLD, NEW] if turns[0] % 2 or turns[0] > 7 else [OLD]
        return 200, {}, json.dumps({"keys": keys})

    with endpoint(answering) as here:
        assert problems_of(here.url, present=("new",)) == {}
        clock = _Clock()
        assert converge(asked(here.url), Wanted(present=("new",)), 60, 1, 3, clock, clock.sleep)[1] == {}
    assert turns[0] >= 9


def test_a_leaked_key_ends_the_waiting() -> None:
    clock = _Clock()
    with issuer({**OLD, "d": _CANARY}) as here:
        seen, problems = converge(asked(here.url), Wanted(present=("new",)), 600, 5, 1, clock, clock.sleep)
    assert clock.now == 0
    assert seen[0].code == "jwks-private"
    assert "'old'" in problems["e1"][0]
    assert _CANARY not in str((seen, problems))


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_is_the_address_without_its_query() -> None:
    assert named([{"url": "https://id.example:8443/jwks?key=x"}])[0]["name"] == "id.example:8443/jwks"


@pytest.mark.parametrize(
    ("endpoints", "code"),
    [
        ([], "endpoints-none"),
        ([{"url": "http://a/"}, {"url": "http://a/?x"}], "endpoint-twice"),
        ([{"url": "ftp://a/"}], "url-invalid"),
        ([{"url": "http://user:canary@a/"}], "url-invalid"),
        ([{}], "url-invalid"),
    ],
)
def test_endpoints_that_cannot_be_asked_are_refused(endpoints: list[dict[str, Any]], code: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        named(endpoints)
    assert caught.value.code == code
    assert "canary" not in str(caught.value)


# -- the module --------------------------------------------------------------------------------------------------------


def module(*urls: str, check: bool = False, **more: Any) -> Ran:
    endpoints = [{"url": url, "name": f"e{number}"} for number, url in enumerate(urls, 1)]
    return run_module_process("jwks_info", {"endpoints": endpoints, **more}, check)


@contextlib.contextmanager
def two() -> Iterator[tuple[Issuer, Issuer]]:
    with issuer(OLD, NEW) as first, issuer(OLD, NEW, headers={"Cache-Control": "s-maxage=600"}) as second:
        yield first, second


def test_the_module_in_check_mode_and_without() -> None:
    with two() as (first, second):
        for check in (True, False):
            ran = module(first.url, second.url, check=check, present=["new"], absent=["other"])
            assert (ran["converged"], ran["changed"], ran["longest"]) == (True, False, 600)
            assert [one["longest"] for one in ran["endpoints"]] == [300, 600]
            assert ran["endpoints"][0]["keys"][1] == {
                "kid": "new", "kty": "EC", "alg": "ES256", "use": "sig",
                "thumbprint": ran["endpoints"][1]["keys"][1]["thumbprint"],
            }  # fmt: skip


def test_the_module_keeps_what_it_saw_when_it_fails() -> None:
    with two() as (first, second):
        second.keys, second.headers = [OLD], {}
        ran = module(first.url, second.url, present=["new"])
        tolerant = module(first.url, second.url, present=["new"], fail=False)
    assert (ran["failed"], ran["code"], ran["longest"]) == (True, "jwks-not-converged", None)
    assert ran["msg"].startswith("e2: 'new' is missing")
    assert [one["converged"] for one in ran["endpoints"]] == [True, False]
    assert "failed" not in tolerant
    assert tolerant["converged"] is False


def test_trap_28_the_module_names_a_leaked_key_and_never_shows_it() -> None:
    with issuer(OLD, {**NEW, "d": _CANARY}) as here:
        ran = module(here.url, present=["old"], fail=True)
        assert (ran["code"], ran["failed"]) == ("jwks-private", True)
        assert "'new'" in ran["msg"]
        tolerant = module(here.url, fail=False)
    assert tolerant["converged"] is False
    assert _CANARY not in ran.printed + tolerant.printed


def test_wrong_arguments_are_refused_before_anybody_is_asked() -> None:
    with issuer(OLD) as here:
        assert module(here.url, present=["a"], absent=["a"])["code"] == "jwks-arguments"
        assert module(here.url, present=["a\nb"])["code"] == "jwks-invalid"
        assert here.here.asked == []
