# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secrets-config.yaml as it is becomes a catalog; what is wrong with one is said before anything is written."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import plan, registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.secrets_config import translate
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.held import settle
from ansible_collections.keyturn.rotation.plugins.module_utils.waves import restart_waves
from ansible_collections.keyturn.rotation.plugins.plugin_utils.catalog_file import parse

_VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "002_secrets_config.json").read_text())
GROUPS = {"all": ["one", "two"], "app": ["one"], "edge": ["two"]}
PROJECT: dict[str, Any] = {
    "hosts": "app",
    "directory": "/srv/localai",
    "files": ["docker-compose.yml", "supabase/docker/docker-compose.yml"],
}
KINDS = {"env_secret": {"role": "keyturn.rotation.env_secret", "phases": ["verify"]}}
HELD = ["N8N_ENCRYPTION_KEY", "PG_META_CRYPTO_KEY", "POSTGRES_PASSWORD", "VAULT_ENC_KEY"]
AUTO = sorted(_VECTORS["cases"][0]["secrets"])


def translated(text: str = _VECTORS["yaml"], **project: Any) -> dict[str, Any]:
    return translate(parse(text, "secrets-config.yaml"), {**PROJECT, **project}, "secrets-config.yaml")


def loaded(overlay: Any = None, text: str = _VECTORS["yaml"], **more: Any) -> Catalog:
    variables = {"keyturn_state_host": "two", **translated(text), "keyturn_overlay": overlay or {}, **more}
    return load_catalog(variables, GROUPS)


def test_every_property_is_kept() -> None:
    said = _VECTORS["parsed"]
    made = translated()
    assert sorted(made["keyturn_secrets"]) == sorted(said["secrets"])
    for name, entry in said["secrets"].items():
        secret = made["keyturn_secrets"][name]
        assert secret["kind"] == "env_secret"
        assert secret["description"] == entry["description"]
        assert secret["consumers"] == entry.get("restart_services", [])
        assert secret["auto_rotate"] is entry["auto_rotate"]
        assert [store["path"] for store in secret["stores"]] == [f"/srv/localai/{path}" for path in entry["files"]]
        if entry["type"] == "random":
            assert secret["generate"] == {"type": "string", "length": entry["length"], "charset": "alnum"}
        elif entry["type"] == "jwt-token":
            assert secret["derive"]["from"] == entry["depends_on"]
            assert list(secret["derive"]["claims"].items()) == [("role", entry["role"]), ("iss", "supabase")]
        else:
            assert secret["generate"] == {"type": "none"}
    services = made["keyturn_services"]
    assert {name: service["depends_on"] for name, service in services.items()} == said["service_dependencies"]
    assert services["n8n"] == {
        "hosts": "app",
        "manager": "compose",
        "project_dir": "/srv/localai",
        "files": PROJECT["files"],
        "depends_on": ["supabase-db"],
    }
    assert made["keyturn_backup"] == said["backup"]


def test_the_whole_of_it_loads_and_plans() -> None:
    catalog = loaded()
    built = plan.build(catalog, AUTO, KINDS, {})
    assert {entry["name"] for entry in built["hosts"]["one"]["secrets"]} == set(AUTO)
    assert set(built["origins"].values()) == {"one"}


@pytest.mark.parametrize("case", _VECTORS["cases"], ids=lambda case: case["name"])
def test_trap_15_services_restart_in_the_order_of_the_file(case: dict[str, Any]) -> None:
    catalog = loaded()
    affected = {service for name in case["secrets"] for service in catalog.secrets[name]["consumers"]}
    assert sorted(affected) == case["affected_services"]
    waves = restart_waves(catalog.services, affected)
    wave_of = {service: number for number, wave in enumerate(waves) for service in wave}
    assert all(wave_of[first] < wave_of[later] for first, later in case["must_come_before"])


_WORDS = {
    "unknown_type": ["secrets.JWT_SECRET.type", "'api-key'"],
    "random_without_length": ["secrets.JWT_SECRET", "'length' is missing"],
    "length_zero": ["secrets.JWT_SECRET.length", "1 or more"],
    "length_short": ["secrets.JWT_SECRET", "too few"],
    "length_text": ["secrets.JWT_SECRET.length", "must be int"],
    "token_without_depends_on": ["secrets.ANON_KEY", "'depends_on' is missing"],
    "token_parent_unknown": ["secrets.ANON_KEY.depends_on", "'NO_SUCH'"],
    "token_parent_is_a_token": ["circle", "JWT_SECRET", "ANON_KEY"],
    "path_escapes_project": ["secrets.JWT_SECRET.files[0]", "out of the project"],
    "absolute_path": ["secrets.JWT_SECRET.files[0]", "out of the project"],
    "no_files": ["secrets.JWT_SECRET", "'files' is missing"],
    "service_cycle": ["service_dependencies", "circle"],
    "service_unknown": ["service_dependencies", "'no-such-service'"],
    "duplicate_yaml_key": ["secrets stands twice", "line "],
    "python_object_tag": ["line ", "tag"],
    "not_a_mapping": ["must be a mapping"],
}


def test_every_negative_case_is_known() -> None:
    assert sorted(_WORDS) == sorted(case["name"] for case in _VECTORS["negative_cases"])


@pytest.mark.parametrize("case", _VECTORS["negative_cases"], ids=lambda case: case["name"])
def test_one_clear_error(case: dict[str, str]) -> None:
    with pytest.raises(KeyturnError) as caught:
        loaded(text=case["value"])
    text = str(caught.value)
    assert all(word in text for word in _WORDS[case["name"]]), text
    assert caught.value.hint


@pytest.mark.parametrize(
    ("project", "words"),
    [
        (None, ["keyturn_project", "mapping"]),
        ({"hosts": "app"}, ["keyturn_project", "'directory'"]),
        ({"hosts": "app", "directory": "srv"}, ["keyturn_project.directory"]),
        ({**PROJECT, "files": ["/etc/compose.yml"]}, ["keyturn_project.files[0]"]),
    ],
)
def test_a_project_that_is_none_is_refused(project: Any, words: list[str]) -> None:
    with pytest.raises(KeyturnError) as caught:
        translate(_VECTORS["parsed"], project, "secrets-config.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)


# -- the overlay -------------------------------------------------------------------------------------------------------


def test_an_overlay_reaches_every_field() -> None:
    catalog = loaded(
        {
            "SECRET_KEY_BASE": {"charset": "hex", "min_length": 64, "length": 80, "cryptoperiod": "90d"},
            "ANON_KEY": {"lifetime": "90d", "claims": {"role": "anon", "iss": "us"}, "overlap": "24h"},
            "CRAWL4AI_API_KEY": {"hosts": ["app", "edge"], "if_missing": "add"},
            "DASHBOARD_PASSWORD": {
                "more_stores": [{"type": "env_file", "path": "/etc/edge.env", "hosts": "edge"}],
            },
            "LOGFLARE_API_KEY": {"stores": [{"type": "file", "path": "/srv/key", "hosts": "app"}]},
            "N8N_ENCRYPTION_KEY": {
                "kind": "encryption_key",
                "data": [{"database": "app", "table": "t", "column": "c", "envelope": "n8n-cbc"}],
            },
        },
        keyturn_databases={"app": {"hosts": "one"}},
        keyturn_services_overlay={"n8n": {"health": {"url": "http://127.0.0.1:5678/healthz"}}},
        keyturn_overlay_more={"ANON_KEY": {"cryptoperiod": "30d"}},
    )
    base = catalog.secrets["SECRET_KEY_BASE"]
    assert base["generate"] == {"type": "string", "length": 80, "charset": "hex", "min_length": 64}
    assert base["cryptoperiod"] == "90d"
    anon = catalog.secrets["ANON_KEY"]
    assert (anon["derive"]["lifetime"], anon["derive"]["claims"]["iss"]) == ("90d", "us")
    assert (anon["overlap_min"], anon["cryptoperiod"]) == ("24h", "30d")
    assert catalog.secrets["CRAWL4AI_API_KEY"]["stores"][0]["hosts"] == ["one", "two"]
    assert catalog.secrets["CRAWL4AI_API_KEY"]["stores"][0]["if_missing"] == "add"
    assert [store["hosts"] for store in catalog.secrets["DASHBOARD_PASSWORD"]["stores"]] == [["one"], ["one"], ["two"]]
    assert [store["type"] for store in catalog.secrets["LOGFLARE_API_KEY"]["stores"]] == ["file"]
    assert catalog.secrets["N8N_ENCRYPTION_KEY"]["strategy"] == "cutover"
    assert catalog.services["n8n"]["depends_on"] == ["supabase-db"]
    assert catalog.services["n8n"]["health"] == {"url": "http://127.0.0.1:5678/healthz"}


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ({"JWT_SECRT": {}}, ["keyturn_overlay.JWT_SECRT", "'JWT_SECRET'"]),
        ({"JWT_SECRET": "x"}, ["keyturn_overlay.JWT_SECRET", "mapping"]),
        ({"JWT_SECRET": {"lifetime": "1y"}}, ["JWT_SECRET.lifetime", "no derive"]),
        ({"JWT_SECRET": {"more_stores": {}}}, ["more_stores", "list"]),
        ({"JWT_SECRET": {"min_length": 65}}, ["64 characters", "65"]),
        ({"JWT_SECRET": {"cryptoperiodd": "1d"}}, ["'cryptoperiodd'", "'cryptoperiod'"]),
    ],
)
def test_an_overlay_that_does_not_fit_is_refused(overlay: Any, words: list[str]) -> None:
    with pytest.raises(KeyturnError) as caught:
        loaded(overlay)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_overlay_changes_nothing_but_its_own_copy() -> None:
    made = translated()
    before = copy.deepcopy(made)
    load_catalog({"keyturn_state_host": "two", **made, "keyturn_overlay": {"JWT_SECRET": {"charset": "hex"}}}, GROUPS)
    assert made == before


# -- what is held back -------------------------------------------------------------------------------------------------


def chosen(catalog: Catalog, *only: str) -> tuple[list[str], list[dict[str, Any]]]:
    names = plan.choose(catalog, registry.empty(), only, "rotate", 0.0)
    return settle(catalog.secrets, names, not plan.asks_for_all(catalog, only))


def test_trap_09_and_14_what_others_depend_on_is_held_back_and_the_rest_turns() -> None:
    names, held = chosen(loaded(), "all")
    assert names == [name for name in AUTO if name not in HELD]
    assert sorted(entry["name"] for entry in held) == HELD
    lines = {entry["name"]: "\n".join(entry["lines"]) for entry in held}
    assert "kind: encryption_key" in lines["VAULT_ENC_KEY"]
    assert "server: {type: postgres" in lines["POSTGRES_PASSWORD"]
    assert all(f"  {name}: {{held: false}}" in lines[name] for name in HELD)


def test_the_lines_of_what_is_held_back_are_an_overlay_that_lets_it_go() -> None:
    _names, held = chosen(loaded(), "all")
    overlay: dict[str, Any] = {}
    for entry in held:
        overlay.update(parse("\n".join(entry["lines"][-2:]), "lines")["keyturn_overlay"])
    names, still = chosen(loaded(overlay), "all")
    assert (names, still) == (AUTO, [])


@pytest.mark.parametrize(
    ("name", "fields", "held"),
    [
        ("APP_ENC_KEY", {}, True),
        ("ENCRYPTION_KEY", {}, True),
        ("APP_KEK", {}, True),
        ("APP_KEY", {"description": "encrypts the tokens of users"}, True),
        ("APP_KEY", {"description": "encoded twice"}, False),
        ("PGPASSWORD", {}, True),
        ("REDIS_PASSWORD", {}, True),
        ("APP_DB_ADMIN_PASS", {}, True),
        ("POSTGRES_PASSWORD", {"server": {"type": "postgres"}}, False),
        ("LOGIN", {"description": "password of the database superuser"}, True),
        ("DASHBOARD_PASSWORD", {"description": "login password of the dashboard"}, False),
        ("SECRET_KEY_BASE", {}, False),
        ("APP_ENC_KEY", {"held": False}, False),
        ("PLAIN", {"held": True}, True),
    ],
)
def test_names_and_words_that_say_what_depends(name: str, fields: dict[str, Any], held: bool) -> None:
    secret = {"kind": "env_secret", "strategy": "replace", **fields}
    names, waiting = settle({name: secret}, [name], True)
    assert bool(waiting) is held
    assert names == ([] if held else [name])


def test_a_derived_value_that_is_held_back_holds_its_parent_back() -> None:
    catalog = loaded({"ANON_KEY": {"held": True}})
    names, held = chosen(catalog, "JWT_SECRET")
    assert names == []
    (entry,) = held
    assert (entry["name"], entry["reason"]) == ("JWT_SECRET", "ANON_KEY, which is made from it, is held back")
    overlay = parse("\n".join(entry["lines"]), "lines")["keyturn_overlay"]
    assert overlay == {"ANON_KEY": {"held": False}}
    assert chosen(loaded(overlay), "JWT_SECRET") == (["ANON_KEY", "JWT_SECRET", "SERVICE_ROLE_KEY"], [])
    names, held = chosen(catalog, "all")
    assert not {"ANON_KEY", "JWT_SECRET"} & set(names), "neither of them turns, whatever else does"
    reasons = {entry["name"]: entry["reason"] for entry in held}
    assert reasons["ANON_KEY"] == "the catalog holds it back"
    assert reasons["JWT_SECRET"] == entry["reason"]
    assert chosen(catalog, "SERVICE_ROLE_KEY") == (["SERVICE_ROLE_KEY"], []), "it is signed with the present parent"


def test_what_is_held_back_reaches_up_through_everything_it_is_made_from() -> None:
    def entry(parent: str = "", **more: Any) -> dict[str, Any]:
        return {"kind": "env_secret", "strategy": "replace", **({"derive": {"from": parent}} if parent else {}), **more}

    secrets = {"A": entry(), "B": entry("A"), "C": entry("B", held=True), "D": entry("A", held=True), "E": entry("A")}
    names, held = settle(secrets, ["A", "B", "E"], True)
    assert names == ["E"]
    assert {one["name"]: one["reason"] for one in held} == {
        "A": "C and D, which are made from it, are held back",
        "B": "C, which is made from it, is held back",
    }
    assert settle({**secrets, "C": entry("B")}, ["B"], True) == (["B", "C"], [])
    own = settle({**secrets, "B": entry("A", held=True)}, ["B"], True)[1]
    assert own[0]["reason"] == "the catalog holds it back"


def test_groups_of_another_order_wait_with_their_command() -> None:
    def entry(strategy: str) -> dict[str, Any]:
        return {"kind": "env_secret", "strategy": strategy}

    secrets = {"A": entry("overlap"), "B": entry("replace"), "C": entry("overlap")}
    names, held = settle(secrets, ["A", "B", "C"], False)
    assert names == ["B"]
    assert [entry["name"] for entry in held] == ["A", "C"]
    assert held[0]["lines"] == ["ansible-playbook keyturn.rotation.rotate -e keyturn_only=A,C"]
    assert settle(secrets, ["A", "B"], True) == (["A", "B"], [])


def test_what_people_bring_turns_by_name_only() -> None:
    catalog = loaded({name: {"cryptoperiod": "1d"} for name in ("OPENAI_API_KEY", "JWT_SECRET")})
    names, _held = chosen(catalog)
    assert names == ["ANON_KEY", "JWT_SECRET", "SERVICE_ROLE_KEY"]
    with pytest.raises(KeyturnError) as caught:
        chosen(catalog, "OPENAI_API_KEY")
    assert caught.value.code == "value-needed"
    assert "value_from" in str(caught.value)
    given = loaded({"OPENAI_API_KEY": {"value_from": {"env": "NEW"}}})
    assert chosen(given, "OPENAI_API_KEY") == (["OPENAI_API_KEY"], [])
    assert "OPENAI_API_KEY" not in chosen(given, "all")[0]


def test_a_child_of_what_is_held_back_is_made_from_the_value_in_use() -> None:
    names, held = chosen(loaded({"JWT_SECRET": {"held": True}}), "JWT_SECRET", "ANON_KEY")
    assert names == ["ANON_KEY"]
    assert [entry["name"] for entry in held] == ["JWT_SECRET"]
