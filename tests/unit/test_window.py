# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The overlap window: its parts, what is missing, and how plan, gate, close and retire use it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.action.rotation_close import ActionModule
from ansible_collections.keyturn.rotation.plugins.module_utils import gates, plan, registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.window import (
    FIGURES,
    closing_seconds,
    declared,
    exposure,
    measured_by,
    overlap_window,
)
from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import Run, plan_lines
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_catalog import GROUPS, catalog

WINDOW = {"token_lifetime": "15m", "refresh_lifetime": "0s", "gateway_cache": "10m", "reload": "1m", "skew": "60s"}
SECONDS = {"token_lifetime": 900, "refresh_lifetime": 0, "gateway_cache": 600, "reload": 60, "skew": 60}
JWKS = [{"name": "issuer", "url": "https://id.example/jwks"}, {"name": "edge", "url": "https://e.example/jwks"}]
KINDS = {"env_secret": {"role": "keyturn.rotation.env_secret", "phases": ["verify"]}}
NOW = plan.parse_stamp("2026-06-01T00:00:00.000Z")


def loaded(**fields: Any) -> Catalog:
    variables = catalog()
    store = {"hosts": "api", "type": "env_file", "path": "/srv/.env", "layout": "pair"}
    secret = {"kind": "env_secret", "strategy": "overlap", "stores": [store], **fields}
    variables["keyturn_secrets"] = {"SIGNING": {key: value for key, value in secret.items() if value is not None}}
    return load_catalog(variables, GROUPS)


def planned(**fields: Any) -> dict[str, Any]:
    return plan.build(loaded(**fields), ["SIGNING"], KINDS, {})


def answered(**longest: int | None) -> dict[str, Any]:
    """What the state host registers: one answer for each secret."""
    result = {
        "ansible_loop_var": "entry",
        "entry": {"secret": "SIGNING"},
        "endpoints": [{"name": name, "longest": seconds} for name, seconds in longest.items()],
    }
    return {"db": {"results": [result]}}


# -- the sum -----------------------------------------------------------------------------------------------------------


def test_trap_18_the_window_is_the_sum_of_its_parts() -> None:
    window = overlap_window(SECONDS, {"issuer": 300, "edge": 60})
    assert [(part.name, part.seconds, part.source) for part in window.parts] == [
        ("token_lifetime", 900, "catalog"),
        ("jwks_max_age", 300, "issuer"),
        ("gateway_cache", 600, "catalog"),
        ("reload", 60, "catalog"),
        ("skew", 60, "catalog"),
    ]
    assert (window.seconds, window.spread) == (1920, 960)


def test_the_longest_lived_token_counts() -> None:
    window = overlap_window({**SECONDS, "refresh_lifetime": 86400}, {"issuer": 0})
    assert (window.parts[0].name, window.parts[0].seconds) == ("refresh_lifetime", 86400)


def test_overlap_min_is_a_floor_and_no_ceiling() -> None:
    assert overlap_window(SECONDS, {"issuer": 300}, floor=86400).seconds == 86400
    assert overlap_window(SECONDS, {"issuer": 300}, floor=60).seconds == 1920


def test_a_header_longer_than_what_is_declared_counts() -> None:
    figures = {**SECONDS, "jwks_max_age": 120}
    assert overlap_window(figures, {"issuer": 300}).parts[1].source == "issuer"
    assert overlap_window(figures, {"issuer": 60}).parts[1].source == "catalog"
    assert overlap_window(figures, {"issuer": None}).parts[1].seconds == 120


@pytest.mark.parametrize("figure", [name for name in FIGURES if name != "jwks_max_age"])
def test_trap_46_a_missing_figure_is_an_error_that_names_the_line(figure: str) -> None:
    figures = {name: value for name, value in WINDOW.items() if name != figure}
    with pytest.raises(KeyturnError) as caught:
        loaded(window=figures, jwks=JWKS)
    assert (caught.value.code, caught.value.where) == ("window-incomplete", "keyturn_secrets.SIGNING.window")
    assert figure in caught.value.message
    assert f"'{figure}: 15m'" in caught.value.hint
    with pytest.raises(KeyturnError, match=f"{figure} is missing"):
        overlap_window({name: value for name, value in SECONDS.items() if name != figure}, {"issuer": 0})


def test_trap_46_published_keys_without_any_window_are_an_error() -> None:
    with pytest.raises(KeyturnError) as caught:
        loaded(jwks=JWKS)
    assert caught.value.code == "window-incomplete"


def test_trap_46_headers_that_do_not_say_it_are_an_error_and_not_zero() -> None:
    for measured in ({}, {"issuer": None}, {"issuer": 300, "edge": None}):
        with pytest.raises(KeyturnError, match="jwks_max_age is missing") as caught:
            overlap_window(SECONDS, measured)
        assert all(name in caught.value.message for name, seconds in measured.items() if seconds is None)


def test_without_published_keys_somebody_has_to_say_that_there_are_none() -> None:
    with pytest.raises(KeyturnError, match="jwks_max_age is missing"):
        loaded(window=WINDOW)
    assert declared({"window": {**WINDOW, "jwks_max_age": "0s"}}, "x") == {**SECONDS, "jwks_max_age": 0}


@given(
    st.fixed_dictionaries({name: st.integers(0, 10**7) for name in FIGURES}),
    st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 10**7)),
    st.integers(0, 10**7),
)
def test_no_figure_makes_it_shorter(figures: dict[str, int], measured: dict[str, int | None], floor: int) -> None:
    window = overlap_window(figures, measured, floor)
    known = [seconds for seconds in measured.values() if seconds is not None]
    assert window.seconds >= max([floor, *figures.values(), *known])
    for name in figures:
        assert overlap_window({**figures, name: figures[name] + 1}, measured, floor).seconds >= window.seconds


# -- catalog and plan --------------------------------------------------------------------------------------------------


def test_a_secret_without_a_window_stays_as_it_was() -> None:
    assert planned()["secrets"][0]["retire_seconds"] == plan.DEFAULT_OVERLAP
    assert planned(overlap_min="2h")["secrets"][0]["retire_seconds"] == 7200
    assert "window" not in planned()["secrets"][0]
    assert all("jwks" not in work for work in planned()["hosts"].values())


def test_the_plan_has_the_figures_and_who_asks() -> None:
    built = planned(window=WINDOW, jwks=[JWKS[0], {**JWKS[1], "hosts": "api"}], overlap_min="5m")
    (secret,) = built["secrets"]
    assert secret["window"] == {"figures": SECONDS, "floor": 300}
    assert secret["retire_seconds"] == 1620
    (asked,) = built["hosts"]["db"]["jwks"]
    assert (asked["secret"], asked["endpoints"]) == ("SIGNING", [JWKS[0]])
    for host in ("api1", "api2"):
        assert built["hosts"][host]["jwks"][0]["endpoints"] == [JWKS[1]]


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [
        ({"url": "https://user:x@id.example/jwks"}, "url-invalid"),
        ({"url": "https://id.example/", "headers": {"Authorization": "Bearer x"}}, "catalog-invalid"),
        ({"url": "https://id.example/", "hosts": "nobody"}, "host-unknown"),
        ({"name": "x"}, "catalog-invalid"),
    ],
)
def test_an_address_that_cannot_be_asked_is_refused(endpoint: dict[str, Any], code: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        loaded(window=WINDOW, jwks=[endpoint])
    assert caught.value.code == code


# -- measured ----------------------------------------------------------------------------------------------------------


def test_the_gate_refuses_what_cannot_be_computed() -> None:
    built = planned(window=WINDOW, jwks=JWKS)
    assert gates.windows(built, answered(issuer=300, edge=60)) == []
    (problem,) = gates.windows(built, answered(issuer=300, edge=None))
    assert problem.startswith("keyturn_secrets.SIGNING.window: ")
    assert "edge" in problem
    assert len(gates.windows(built, {})) == 1
    assert gates.windows(planned(), {}) == []


def test_what_was_measured_counts_at_the_close() -> None:
    (secret,) = planned(window=WINDOW, jwks=JWKS)["secrets"]
    measured = measured_by(answered(issuer=300, edge=60))["SIGNING"]
    assert closing_seconds(secret, measured) == 1920
    assert closing_seconds(secret, {}) == 1620 + 86400, "a day, where it cannot be read any more"
    assert closing_seconds({"retire_seconds": 7}, measured) == 7


def test_the_plan_shows_the_parts_and_where_they_come_from() -> None:
    built = {**planned(window=WINDOW, jwks=JWKS, overlap_min="1h"), "held": []}
    run = Run(built, "rotate", "", {}, {"jwks": answered(issuer=300, edge=60)})
    (line,) = [line for line in plan_lines(run, []) if line.startswith("  overlap")]
    assert line == (
        "  overlap     SIGNING: 15 min token_lifetime (catalog) + 5 min jwks_max_age (issuer) + 10 min gateway_cache "
        "(catalog) + 60.0 s reload (catalog) + 60.0 s skew (catalog), at least 60 min overlap_min = 60 min"
    )
    (unknown,) = [line for line in plan_lines(Run(built, "rotate", "", {}, {}), []) if "overlap  " in line]
    assert "jwks_max_age is missing" in unknown


# -- how long a disabled key may still be accepted ---------------------------------------------------------------------

_CACHES = {"token_lifetime": 900, "refresh_lifetime": 0, "gateway_cache": 600, "reload": 30, "skew": 60}


@pytest.mark.parametrize(
    ("emptied", "restarted", "measured", "parts"),
    [
        (True, True, {"issuer": 60, "edge": 300}, ["300 jwks_max_age edge", "60 skew catalog"]),
        (False, True, {"issuer": 60}, ["60 jwks_max_age issuer", "600 gateway_cache catalog", "60 skew catalog"]),
        (True, False, {"issuer": 60}, ["60 jwks_max_age issuer", "30 reload catalog", "60 skew catalog"]),
    ],
    ids=["all-emptied", "a-gateway-waits", "nobody-restarts"],
)
def test_what_nobody_empties_is_counted(
    emptied: bool, restarted: bool, measured: dict[str, int | None], parts: list[str]
) -> None:
    planned = {
        "window": {"figures": _CACHES, "floor": 86400},
        "retire_seconds": 1,
        "emptied": emptied,
        "restarted": restarted,
    }
    found = exposure(planned, measured)
    assert [f"{part.seconds} {part.name} {part.source}" for part in found.parts] == parts
    assert found.unknown == ""


def test_a_header_that_nobody_could_read_is_said_and_a_day_stands_in_for_it() -> None:
    planned = {"window": {"figures": _CACHES, "floor": 0}, "retire_seconds": 1, "emptied": True, "restarted": True}
    found = exposure(planned, {"edge": None})
    assert (found.seconds, found.unknown) == (
        86460,
        "how long verifiers cache is not known (edge does not say it)",
    )
    declared = {**planned, "window": {"figures": {**_CACHES, "jwks_max_age": 300}, "floor": 0}}
    assert (exposure(declared, {"edge": None}).seconds, exposure(declared, {"edge": None}).unknown) == (360, "")


def test_where_no_figure_is_declared_the_overlap_stands_in_for_all_caches() -> None:
    planned = {"window": None, "retire_seconds": 7200, "emptied": False, "restarted": True}
    found = exposure(planned, {})
    assert (found.seconds, [part.name for part in found.parts]) == (7200, ["overlap_min"])


def test_the_window_begins_at_the_latest_time_of_a_rotation_whose_clock_was_set_back() -> None:
    run = Run({"secrets": [{"name": "KEY", "retire_seconds": 3600}]}, "rotate", "r1", {}, {})
    stamps = [f"2026-11-{day}T08:00:00.000Z" for day in (20, 23, 20)]
    assert ActionModule._retire_after(run, stamps) == "2026-11-23T09:00:00.000Z"
    assert ActionModule._retire_after(run, stamps[:1]) == "2026-11-20T09:00:00.000Z"


# -- what is due to retire ---------------------------------------------------------------------------------------------


def _register(**after: str) -> dict[str, Any]:
    content = registry.empty()
    for name, stamp in after.items():
        content["secrets"][name] = {"open": None, "current": f"r-{name}", "primary_since": stamp}
        content["rotations"][f"r-{name}"] = {"secrets": [name], "status": "overlap", "retire_after": stamp}
    return content


def _two() -> Catalog:
    variables = catalog()
    variables["keyturn_secrets"]["OTHER"] = variables["keyturn_secrets"]["KEY"]
    return load_catalog(variables, GROUPS)


def test_retire_finds_by_itself_what_is_due() -> None:
    early, late, latest = (f"2026-{month}-01T00:00:00.000Z" for month in ("04", "05", "07"))
    assert plan.choose(_two(), _register(KEY=latest, OTHER=late), [], "retire", NOW) == ["OTHER"]
    assert plan.choose(_two(), _register(KEY=early, OTHER=late), [], "retire", NOW) == ["KEY"], "the longest first"
    assert plan.choose(_two(), _register(KEY=latest), [], "retire", NOW) == ["KEY"], "and is refused with its time"


def test_where_nothing_is_due_and_several_could_be_meant_a_name_is_needed() -> None:
    with pytest.raises(KeyturnError, match="KEY, OTHER"):
        plan.choose(
            _two(), _register(KEY="2026-07-01T00:00:00.000Z", OTHER="2026-08-01T00:00:00.000Z"), [], "retire", NOW
        )


def test_a_retire_that_did_not_finish_comes_first() -> None:
    register = _register(KEY="2026-04-01T00:00:00.000Z", OTHER="2026-05-01T00:00:00.000Z")
    register["secrets"]["OTHER"]["open"] = "r-OTHER"
    register["rotations"]["r-OTHER"]["status"] = "retiring"
    assert plan.choose(_two(), register, [], "retire", NOW) == ["OTHER"]
