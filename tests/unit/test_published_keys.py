# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalog says of caches, gateways and logs, and what each host does of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.action.rotation_gate import _kids
from ansible_collections.keyturn.rotation.plugins.module_utils import plan
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.unit.test_catalog import GROUPS, catalog
from tests.unit.test_window import KINDS, WINDOW

_URL = "https://edge.example/jwks"
_SERVICES = {
    "edge": {"hosts": "db", "manager": "systemd", "unit": "edge.service"},
    "app": {"hosts": "api", "manager": "compose", "project_dir": "/srv/shop", "service": "web"},
    "odd": {"hosts": "api", "manager": "command", "start": ["a"], "stop": ["b"]},
}


def built(*endpoints: dict[str, Any], probes: tuple[dict[str, Any], ...] = (), **fields: Any) -> dict[str, Any]:
    variables = catalog()
    store = {"hosts": "api", "type": "env_file", "path": "/srv/.env", "layout": "pair"}
    secret = {"kind": "env_secret", "strategy": "overlap", "stores": [store], "probes": list(probes), **fields}
    if endpoints:
        secret.update(jwks=list(endpoints), window=WINDOW)
    variables["keyturn_secrets"], variables["keyturn_services"] = {"KEY": secret}, _SERVICES
    hosts: dict[str, Any] = plan.build(load_catalog(variables, GROUPS), ["KEY"], KINDS, {})["hosts"]
    return hosts


def probed(probe: dict[str, Any], **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    hosts = built(probes=({"type": "log", **probe},), **fields)
    own = {"secret", "type", "pattern", "version", "refused", "since"}
    return [
        (host, {key: value for key, value in one.items() if key not in own})
        for host, work in hosts.items()
        for one in work["probes"]
        if one["type"] == "log"
    ]


# -- caches ------------------------------------------------------------------------------------------------------------


def test_a_cache_is_waited_for() -> None:
    hosts = built({"name": "edge", "url": _URL, "within": "2m"}, {"name": "issuer", "url": "https://id.example/"})
    assert hosts["db"]["jwks"] == [
        {
            "secret": "KEY",
            "endpoints": [{"name": "edge", "url": _URL}, {"name": "issuer", "url": "https://id.example/"}],
            "purge": [],
            "within": 900,
        }
    ]
    assert "gateways" not in hosts["db"]


def test_a_cache_is_emptied_by_one_host() -> None:
    declared = {"url": _URL, "hosts": "api", "refresh": "purge", "ca_file": "/etc/ca.pem"}
    hosts = built(declared, {**declared, "name": "b", "purge": {"url": "https://admin.example/", "method": "POST"}})
    assert hosts["api1"]["jwks"][0]["purge"] == [
        {"ca_file": "/etc/ca.pem", "url": _URL, "method": "PURGE"},
        {"ca_file": "/etc/ca.pem", "url": "https://admin.example/", "method": "POST"},
    ]
    assert hosts["api2"]["jwks"][0]["purge"] == []


def test_a_gateway_is_restarted_once_where_it_runs() -> None:
    declared = {"url": _URL, "refresh": "restart", "service": "edge"}
    hosts = built({**declared, "hosts": "api"}, {**declared, "name": "b"})
    assert [one["name"] for one in hosts["db"]["gateways"]] == ["edge"]
    assert hosts["db"]["services"] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"purge": {}},
        {"refresh": "restart"},
        {"service": "edge"},
        {"refresh": "restart", "service": "none"},
        {"refresh": "purge", "purge": {"headers": {"Authorization": "Bearer x"}}},
        {"within": "soon"},
    ],
)
def test_a_way_to_refresh_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as caught:
        built({"url": _URL, **wrong})
    assert caught.value.code == "catalog-invalid"


def test_the_gate_collects_kids_from_every_host() -> None:
    said = {
        "api1": {"secrets": {"KEY": {"kids": {"new": "b", "old": "a"}}, "OTHER": {}}},
        "api2": {"secrets": {"KEY": {"kids": {"new": "b"}}}},
    }
    assert _kids(said) == {"KEY": {"new": "b", "old": "a"}, "OTHER": {}}


# -- logs --------------------------------------------------------------------------------------------------------------


def test_the_log_of_a_service_is_where_its_manager_puts_it() -> None:
    assert probed({"service": "edge", "pattern": "x"}) == [("db", {"unit": "edge.service"})]
    place = {"service": "web", "project_dir": "/srv/shop"}
    assert probed({"service": "app", "pattern": "x"}) == [("api1", place), ("api2", place)]


def test_without_a_source_it_is_the_log_of_every_consumer() -> None:
    found = probed({"name": "leak", "version": "new"}, consumers=["edge", "app"])
    assert [(host, one["name"]) for host, one in found] == [
        ("api1", "leak of app"),
        ("api2", "leak of app"),
        ("db", "leak of edge"),
    ]


def test_a_file_or_a_unit_is_read_where_the_probe_says() -> None:
    assert probed({"path": "/var/log/x", "pattern": "x", "hosts": "db"}) == [("db", {"path": ["/var/log/x"]})]
    assert probed({"unit": "x.service", "pattern": "x"}, consumers=["edge"]) == [("db", {"unit": "x.service"})]


@pytest.mark.parametrize(
    "wrong",
    [
        {"pattern": "x"},
        {"service": "odd", "pattern": "x"},
        {"service": "none", "pattern": "x"},
        {"service": "edge", "unit": "x", "pattern": "x"},
        {"service": "edge"},
        {"service": "edge", "version": "old", "refused": True, "pattern": "x"},
        {"service": "edge", "version": "old", "refused": True, "since": "1h"},
        {"service": "edge", "pattern": "x", "since": "soon"},
    ],
)
def test_a_log_that_could_show_nothing_is_refused_in_the_catalog(wrong: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as caught:
        probed(wrong)
    assert caught.value.code == "catalog-invalid"
