# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers in the catalog, in the plan, at the gate and in what a run tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import gates, plan
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.servers import declared
from ansible_collections.keyturn.rotation.plugins.plugin_utils import logins
from ansible_collections.keyturn.rotation.plugins.plugin_utils.secret_arguments import recipients

GROUPS = {"all": ["api1", "cache1", "cache2", "db"], "caches": ["cache1", "cache2"]}
PHASES = ["preflight", "promote", "verify", "retire", "rollback"]
KINDS = {kind: {"role": "keyturn.rotation.env_secret", "phases": PHASES} for kind in declared.KINDS}
ROLE = {"type": "postgres", "database": "app", "role": "app"}
CACHE = {"type": "redis", "hosts": "caches", "address": "127.0.0.1:6379"}


def catalog(*servers: dict[str, Any] | list[dict[str, Any]], kind: str = "env_secret") -> dict[str, Any]:
    """One secret for each server, or list of servers."""
    stores = [{"hosts": "api1", "type": "env_file", "path": "/srv/.env"}]
    secrets = {f"P{number}": {"kind": kind, "stores": stores, "server": said} for number, said in enumerate(servers)}
    databases = {"app": {"hosts": "db", "dsn_file": "/etc/dsn"}}
    return {"keyturn_state_host": "api1", "keyturn_databases": databases, "keyturn_secrets": secrets}


def built(*servers: dict[str, Any] | list[dict[str, Any]], kind: str = "env_secret") -> dict[str, Any]:
    """The plan for all of them."""
    loaded = load_catalog(catalog(*servers, kind=kind), GROUPS)
    return plan.build(loaded, sorted(loaded.secrets), KINDS, {})


def test_the_hosts_that_talk_to_a_server_get_its_work_and_its_values() -> None:
    made = built([ROLE, CACHE])
    assert load_catalog(catalog([ROLE, CACHE]), GROUPS).hosts_of("P0") == ["api1", "cache1", "cache2", "db"]
    assert made["hosts"]["db"]["servers"] == [{"secret": "P0", "kind": "env_secret", **ROLE, "dsn_file": "/etc/dsn"}]
    assert [server["address"] for server in made["hosts"]["cache2"]["servers"]] == ["127.0.0.1:6379"]
    assert made["hosts"]["api1"]["servers"] == []
    sessions = {host: {"public": f"key of {host}"} for host in made["hosts"]}
    assert [to["host"] for to in recipients(made, "P0", sessions, stores=False)] == ["cache1", "cache2", "db"]
    json.dumps(made)


def test_kinds_of_one_role_are_called_once() -> None:
    assert [entry["role"] for entry in built(ROLE, kind="database_login")["kinds"]] == ["keyturn.rotation.env_secret"]
    variables = catalog(ROLE, CACHE)
    variables["keyturn_secrets"]["P1"]["kind"] = "redis_login"
    made = plan.build(load_catalog(variables, GROUPS), ["P0", "P1"], KINDS, {})
    assert [entry["role"] for entry in made["kinds"]] == ["keyturn.rotation.env_secret"]
    assert made["kinds"][0]["phases"] == PHASES


def test_a_host_that_talks_to_a_server_cannot_be_waived() -> None:
    waivers = plan.waived([{"host": "cache1", "reason": "disk", "until": "2026-07-01"}], "2026-06-01")
    with pytest.raises(KeyturnError, match="cannot be left out"):
        plan.build(load_catalog(catalog(CACHE), GROUPS), ["P0"], KINDS, waivers)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "mysql"}, "not possible"),
        ({"type": "postgres", "database": "app"}, "'role' is missing"),
        ({**ROLE, "database": "ap"}, "Did you mean 'app'"),
        ({**ROLE, "user": "x"}, "is not for postgres"),
        ({"type": "redis", "hosts": "caches"}, "'address' is missing"),
        ({**CACHE, "address": "6379"}, "right form"),
        ({**CACHE, "dbname": "x"}, "is not for redis"),
        ({**CACHE, "hosts": "nobody"}, "no group and no host"),
        ({**CACHE, "admin_user": "ops"}, "go together"),
        ({**CACHE, "admin_user": "ops", "admin_password": {"file": "/a", "env": "B"}}, "exactly one source"),
        ({**ROLE, "password": "x"}, "unknown field"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(KeyturnError, match=words) as raised:
        load_catalog(catalog(entry), GROUPS)
    assert raised.value.code in ("catalog-invalid", "host-unknown")
    assert raised.value.where.startswith("keyturn_secrets.P0.server")


def test_a_kind_that_changes_no_server_is_refused() -> None:
    variables = catalog(ROLE, kind="encryption_key")
    entry = {"database": "app", "table": "t", "column": "c", "envelope": "fernet"}
    variables["keyturn_secrets"]["P0"]["data"] = [entry]
    with pytest.raises(KeyturnError, match="changes no server"):
        load_catalog(variables, GROUPS)


def said(place: str = "role app", **more: Any) -> dict[str, Any]:
    """What a module says of a server."""
    shown = [{"version": "new", "expected": "accepted", "result": "accepted"}]
    return {"secret": "P0", "type": "postgres", "place": place, "changed": False, "took_ms": 3, "logins": shown, **more}


def test_no_store_goes_back_before_its_server() -> None:
    made = built(ROLE)
    assert gates.swapped_back(made, {"db": [{"servers": [said()]}]}) == []
    assert gates.swapped_back(made, {"db": [{"servers": []}]}) == [
        "db: the password of P0 was not brought back in its server."
    ]
    assert len(gates.swapped_back(made, {})) == 1


def test_the_last_step_that_tried_a_login_is_told() -> None:
    retired = said(logins=[*said()["logins"], {"version": "old", "expected": "refused", "result": "refused"}])
    kinds = [
        ("db", "promote", {"servers": [said(changed=True, took_ms=7)]}),
        ("db", "verify", {"servers": [said()]}),
        ("db", "retire", {"servers": [retired]}),
    ]
    assert [(row["version"], row["result"]) for row in logins.login_rows(kinds)] == [
        ("new", "accepted"),
        ("old", "refused"),
    ]
    (line,) = logins.server_lines(kinds)
    assert "new accepted, old refused; changed in 7 ms" in line


def test_a_server_that_forgets_is_told() -> None:
    assert logins.restart_notes([("h", "promote", {"servers": [said(kept_in="none")]})])
    assert logins.restart_notes([("h", "promote", {"servers": [said(kept_in="acl_file")]})]) == []


@pytest.mark.parametrize(
    ("servers", "none"),
    [((CACHE,), True), ((ROLE,), False), (([CACHE, ROLE],), False), ((CACHE, ROLE), False), (([],), False)],
)
def test_only_redis_leaves_no_gap(servers: tuple[Any, ...], none: bool) -> None:
    assert logins.no_gap(built(*servers)) is none


def test_the_plan_names_the_logins() -> None:
    made = built([ROLE, CACHE])
    assert logins.planned(made["hosts"]["db"]) == ["role app of app"]
    assert logins.planned(made["hosts"]["cache1"]) == ["user default on Redis 127.0.0.1:6379"]
