# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens made from another secret's value: what is made, when, from which value, and on which host."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jwt
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import plan, registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.derived import with_dependents
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import generate
from ansible_collections.keyturn.rotation.plugins.plugin_utils.secret_arguments import for_making

from tests.support.hosts import Host

_TOKENS = json.loads((Path(__file__).parents[1] / "vectors" / "002_supabase_tokens_hs256.json").read_text())
_IAT, _EXP = 1739948400, 1897714800
_PARENT = "JWT_SECRET"
_GENERATE = {"type": "string", "length": 64}
GROUPS = {"all": ["a", "b", "s"]}
KINDS = {"env_secret": {"role": "keyturn.rotation.env_secret", "phases": ["verify"]}}


def _derive(role: str, parent: str = _PARENT, **more: Any) -> dict[str, Any]:
    return {"type": "jwt", "from": parent, "claims": {"role": role, "iss": "supabase"}, "lifetime": "5y", **more}


def _secret(hosts: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "env_secret", "stores": [{"hosts": hosts, "type": "env_file", "path": "/srv/.env"}], **fields}


def _catalog(**changes: Any) -> Catalog:
    secrets = {
        _PARENT: _secret("a", generate=_GENERATE),
        "ANON_KEY": _secret(["a", "b"], derive=_derive("anon")),
        "EDGE_KEY": _secret("b", derive=_derive("edge", "ANON_KEY")),
        "OTHER": _secret("a"),
        **changes,
    }
    return load_catalog({"keyturn_state_host": "s", "keyturn_secrets": secrets}, GROUPS)


# -- what is made ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", _TOKENS["cases"], ids=lambda case: case["name"])
@pytest.mark.parametrize(("name", "role"), [("ANON_KEY", "anon"), ("SERVICE_ROLE_KEY", "service_role")])
def test_tokens_are_those_of_the_vectors_to_the_byte(case: dict[str, str], name: str, role: str) -> None:
    spec = {"type": "jwt", "payload": _derive(role)["claims"], "lifetime": "5y", "allow_weak": True}

    def made() -> bytes:
        return generate(spec, bytes, key=case[_PARENT].encode(), clock=lambda: _IAT)

    if not case[_PARENT]:
        with pytest.raises(KeyturnError, match="needs the key"):
            made()
        return
    assert made().decode() == case[name]


@pytest.mark.parametrize(
    ("start", "lifetime", "end"),
    [
        ("2028-02-29T12:00:00", "1y", "2029-02-28T12:00:00"),
        ("2028-02-29T12:00:00", "4y", "2032-02-29T12:00:00"),
        ("2027-02-28T12:00:00", "1y", "2028-02-28T12:00:00"),
        ("2026-11-21T12:30:15", "5y", "2031-11-21T12:30:15"),
        ("2026-11-21T12:30:15", "90d", "2027-02-19T12:30:15"),
    ],
)
def test_trap_32_and_35_dates_come_from_the_clock_and_years_from_the_calendar(
    start: str, lifetime: str, end: str
) -> None:
    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()

    token = generate(
        {"type": "jwt", "payload": {}, "lifetime": lifetime}, bytes, key=bytes(32), clock=lambda: seconds(start)
    )
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iat"], claims["exp"]) == (seconds(start), seconds(end))


@pytest.mark.parametrize("lifetime", ["0y", "0d", "9000y", "1 y", "five"])
def test_a_lifetime_that_is_none_is_refused(lifetime: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        _catalog(ANON_KEY=_secret("a", derive=_derive("anon", lifetime=lifetime)))
    assert "ANON_KEY" in str(caught.value)


# -- in the catalog ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ANON_KEY": {"derive": _derive("anon", "JWT_SECRT")}}, ["ANON_KEY.derive.from", "'JWT_SECRET'"]),
        ({"ANON_KEY": {"derive": _derive("anon", "EDGE_KEY")}}, ["circle", "EDGE_KEY -> ANON_KEY"]),
        ({"ANON_KEY": {"derive": _derive("anon", "ANON_KEY")}}, ["circle", "ANON_KEY -> ANON_KEY"]),
        ({"ANON_KEY": {"derive": _derive("anon"), "generate": _GENERATE}}, ["generate", "made from JWT_SECRET"]),
        ({"ANON_KEY": {"derive": _derive("anon"), "value_from": {"env": "X"}}}, ["value_from"]),
        ({"ANON_KEY": {"derive": {"type": "jwt", "from": _PARENT}}}, ["'lifetime' is missing"]),
        ({"ANON_KEY": {"derive": _derive("anon", algorithm="none")}}, ["'none'", "HS256"]),
        ({"ANON_KEY": {"derive": _derive("anon"), "strategy": "overlap"}}, ["ANON_KEY.strategy", "JWT_SECRET"]),
    ],
)
def test_what_cannot_be_made_is_a_catalog_error(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(KeyturnError) as caught:
        _catalog(**{name: _secret("a", **fields) for name, fields in changes.items()})
    text = str(caught.value)
    assert all(word in text for word in words), text


def test_trap_30_dependents_are_closed_over_transitively() -> None:
    secrets = _catalog().secrets
    assert with_dependents(secrets, [_PARENT]) == ["ANON_KEY", "EDGE_KEY", _PARENT]
    assert with_dependents(secrets, ["ANON_KEY"]) == ["ANON_KEY", "EDGE_KEY"]
    assert with_dependents(secrets, ["OTHER"]) == ["OTHER"]


# -- on a host ---------------------------------------------------------------------------------------------------------


def _requests(path: Path, *names: str, **more: Any) -> list[dict[str, Any]]:
    """Children first, to see that the order of the call does not count."""
    entries: dict[str, dict[str, Any]] = {
        "EDGE_KEY": {"derive": _derive("edge", "ANON_KEY")},
        "ANON_KEY": {"derive": _derive("anon", **more)},
        _PARENT: {"generate": _GENERATE},
    }
    store = [{"type": "env_file", "path": str(path)}]
    return [{"name": name, "origin": True, "stores": store, **entries[name]} for name in entries if name in names]


def _verified(token: bytes | None, key: bytes | None, moment: datetime) -> dict[str, Any]:
    assert token is not None
    assert key is not None
    claims: dict[str, Any] = jwt.decode(
        token, key, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
    )
    assert claims["iat"] == int(moment.timestamp())
    return claims


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


@pytest.fixture
def env(host: Host) -> Path:
    return host.write(".env", f"{_PARENT}={'p' * 40}\nANON_KEY=anon-before\nEDGE_KEY=edge-before\n".encode())


def test_trap_30_parent_and_children_are_made_in_one_call(host: Host, env: Path) -> None:
    before = env.read_bytes()
    requests = _requests(env, _PARENT, "ANON_KEY", "EDGE_KEY")
    told = host.turn("staged", *requests, check=True)
    assert told["changed"]
    host.turn("staged", *requests)
    moment = datetime(2026, 11, 21, 12, 30, 15, tzinfo=timezone.utc)
    parent, anon, edge = (host.version(name, "new") for name in (_PARENT, "ANON_KEY", "EDGE_KEY"))
    assert list(_verified(anon, parent, moment)) == ["role", "iss", "iat", "exp"]
    assert _verified(edge, anon, moment)["role"] == "edge"
    assert not host.turn("staged", *requests)["changed"]
    host.turn("promoted", *requests)
    assert all(value is not None and value in env.read_bytes() for value in (parent, anon, edge))
    host.turn("rolled_back", *requests)
    assert env.read_bytes() == before


def test_trap_30_a_child_alone_is_signed_with_the_value_in_use(host: Host, env: Path) -> None:
    discarded = host.rotation("r0")
    discarded.turn("staged", *_requests(env, _PARENT))
    discarded.turn("rolled_back", *_requests(env, _PARENT))
    (request,) = _requests(env, "ANON_KEY", stores=[{"type": "env_file", "path": str(env)}])
    host.turn("staged", request)
    _verified(host.version("ANON_KEY", "new"), b"p" * 40, datetime(2026, 11, 21, 12, 30, 15, tzinfo=timezone.utc))


def test_a_child_whose_parent_is_nowhere_is_refused(host: Host, env: Path) -> None:
    with pytest.raises(KeyturnError) as caught:
        host.turn("staged", *_requests(env, "ANON_KEY"))
    assert caught.value.code == "parent-missing"


def test_a_child_of_a_parent_that_was_lost_with_the_machine_is_made_again(host: Host, env: Path) -> None:
    """The values were written and the metadata was not: the parent's value counts, and the child follows it."""
    requests = _requests(env, _PARENT, "ANON_KEY")
    host.turn("staged", *requests)
    for name in (_PARENT, "ANON_KEY"):
        (host.state_dir / f"secrets/{name}/r1/meta.json").unlink()
    (host.state_dir / f"secrets/{_PARENT}/r1/new").unlink()
    host.turn("staged", *requests)
    moment = datetime(2026, 11, 21, 12, 30, 15, tzinfo=timezone.utc)
    _verified(host.version("ANON_KEY", "new"), host.version(_PARENT, "new"), moment)


# -- in the plan -------------------------------------------------------------------------------------------------------


def test_all_is_made_where_the_parent_is() -> None:
    built = plan.build(_catalog(), ["ANON_KEY", "EDGE_KEY", _PARENT], KINDS, {})
    assert built["origins"] == {"ANON_KEY": "a", "EDGE_KEY": "a", _PARENT: "a"}
    on_a = {entry["name"]: len(entry["stores"]) for entry in built["hosts"]["a"]["secrets"]}
    assert on_a == {"ANON_KEY": 1, "EDGE_KEY": 0, _PARENT: 1}
    publics = {"a": "A", "b": "B"}
    entries = {e["name"]: e for e in for_making(built, "a", built["origins"], publics)}
    assert entries["EDGE_KEY"]["derive"] == _derive("edge", "ANON_KEY")
    assert "generate" not in entries["EDGE_KEY"]
    assert [target["host"] for target in entries["EDGE_KEY"]["seal_to"]] == ["a", "b"]
    assert for_making(built, "b", built["origins"], publics) == []


def test_a_child_alone_is_made_where_its_parent_can_be_read() -> None:
    built = plan.build(_catalog(), ["EDGE_KEY"], KINDS, {})
    assert built["origins"] == {"EDGE_KEY": "b"}
    (parent,) = built["hosts"]["b"]["parents"]
    assert parent["name"] == "ANON_KEY"
    assert built["secrets"][0]["derive"]["stores"] == parent["stores"]
    elsewhere = _catalog(ANON_KEY=_secret("b", derive=_derive("anon")))
    alone = plan.build(elsewhere, ["ANON_KEY"], KINDS, {})
    assert alone["origins"] == {"ANON_KEY": "a"}
    assert [entry["stores"] for entry in alone["hosts"]["a"]["secrets"]] == [[]]


def test_a_waived_host_makes_nothing() -> None:
    waivers = {"a": {"host": "a", "reason": "disk", "until": "2027-01-01"}}
    built = plan.build(_catalog(), ["EDGE_KEY"], KINDS, waivers)
    assert built["origins"] == {"EDGE_KEY": "b"}


def test_what_turned_together_goes_back_together() -> None:
    register = registry.empty()
    names = ["ANON_KEY", "EDGE_KEY", _PARENT]
    register["secrets"] = {name: {"current": "r1", "open": None} for name in names}
    register["rotations"]["r1"] = {"secrets": names, "status": "overlap"}
    for mode in ("rollback", "retire"):
        assert plan.choose(_catalog(), register, ["ANON_KEY"], mode, 0.0) == names
    assert plan.choose(_catalog(), register, ["ANON_KEY"], "rotate", 0.0) == ["ANON_KEY"]
