# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog: what is wrong is said with its place and what to do; nothing else is guessed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import SHAPES, json_schema, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.columns import check_shared
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Shape

GROUPS = {"all": ["api1", "api2", "db"], "api": ["api2", "api1"], "empty": []}


def catalog() -> dict[str, Any]:
    """A right one."""
    return {
        "keyturn_state_host": "db",
        "keyturn_databases": {"app": {"hosts": "db"}},
        "keyturn_services": {
            "api": {"hosts": "api", "manager": "command", "start": ["a"], "stop": ["b"], "health": {"url": "http://x/"}}
        },
        "keyturn_secrets": {
            "KEY": {
                "kind": "encryption_key",
                "stores": [{"hosts": "api", "type": "env_file", "path": "/srv/.env"}],
                "data": [{"database": "app", "table": "t", "column": "c", "envelope": "fernet"}],
                "consumers": ["api"],
                "cryptoperiod": "90d",
            }
        },
    }


def test_hosts_are_resolved_and_sorted() -> None:
    loaded = load_catalog(catalog(), GROUPS)
    assert loaded.secrets["KEY"]["stores"][0]["hosts"] == ["api1", "api2"]
    assert loaded.hosts_of("KEY") == ["api1", "api2", "db"]
    assert loaded.secrets["KEY"]["strategy"] == "cutover"


@pytest.mark.parametrize(
    ("said", "hosts"),
    [("api", ["api1", "api2"]), (["db", "api"], ["db", "api1", "api2"]), (["api2", "api"], ["api2", "api1"])],
)
def test_the_first_host_of_a_database_leads(said: Any, hosts: list[str]) -> None:
    loaded = load_catalog(change("keyturn_databases.app.hosts", said), GROUPS)
    assert loaded.databases_of("KEY") == {"app": hosts}


def test_hosts_that_only_help_are_not_needed() -> None:
    variables = change("keyturn_databases.app.hosts", ["db", "more"])
    groups = {**GROUPS, "all": [*GROUPS["all"], "more"]}
    assert load_catalog(variables, groups).hosts_of("KEY") == ["api1", "api2", "db"]


def test_fragments_are_merged() -> None:
    variables = catalog()
    variables["keyturn_secrets_team"] = {"OTHER": variables["keyturn_secrets"]["KEY"]}
    assert sorted(load_catalog(variables, GROUPS).secrets) == ["KEY", "OTHER"]


def change(path: str, value: Any) -> Any:
    """A catalog with one thing changed; ``...`` removes it."""
    variables = copy.deepcopy(catalog())
    place: Any = variables
    *parents, last = path.split(".")
    for step in parents:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is ...:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return variables


@pytest.mark.parametrize(
    ("path", "value", "code", "words"),
    [
        (
            "keyturn_secrets.KEY.consumer",
            ["api"],
            "catalog-invalid",
            ["keyturn_secrets.KEY", "'consumer'", "'consumers'"],
        ),
        ("keyturn_secrets.KEY.consumers", ["apo"], "catalog-invalid", ["'apo'", "not defined", "'api'"]),
        ("keyturn_secrets.KEY.data.0.database", "ap", "catalog-invalid", ["data[0]", "'app'"]),
        ("keyturn_secrets.KEY.data.0.table", ..., "catalog-invalid", ["data[0]", "'table'"]),
        ("keyturn_secrets.KEY.data", [], "catalog-invalid", ["KEY.data", "columns"]),
        ("keyturn_secrets.KEY.data.0.envelope", "fernett", "catalog-invalid", ["data[0].envelope", "'fernet'"]),
        ("keyturn_secrets.KEY.data.0.envelope", {"cipher": "fernet"}, "catalog-invalid", ["data[0].envelope", "text"]),
        ("keyturn_secrets.KEY.data.0.new_envelope", "aes", "catalog-invalid", ["data[0].new_envelope", "aesgcm-raw"]),
        ("keyturn_secrets.KEY.stores.0.path", "srv/.env", "catalog-invalid", ["stores[0].path", "absolute"]),
        ("keyturn_secrets.KEY.stores.0.type", "envfile", "catalog-invalid", ["'envfile'", "'env_file'"]),
        ("keyturn_secrets.KEY.stores.0.hosts", "apis", "host-unknown", ["'apis'", "'api'"]),
        ("keyturn_secrets.KEY.stores.0.hosts", "empty", "host-unknown", ["no host"]),
        ("keyturn_secrets.KEY.cryptoperiod", "3 months", "catalog-invalid", ["cryptoperiod", "90d"]),
        ("keyturn_secrets.KEY.kind", "Encryption Key", "catalog-invalid", ["kind"]),
        ("keyturn_secrets.KEY.value_from", {"file": "a", "env": "B"}, "catalog-invalid", ["exactly one"]),
        ("keyturn_secrets.KEY.generate", {"type": "byte"}, "generate-invalid", ["KEY.generate", "'bytes'"]),
        (
            "keyturn_services.api.health",
            {"url": "http://x/", "headers": {"Authorization": "Bearer abc"}},
            "catalog-invalid",
            ["Authorization", "{value}"],
        ),
        ("keyturn_services.api.stop", ..., "catalog-invalid", ["'stop'", "list"]),
        ("keyturn_services.api.depends_on", ["dbb"], "catalog-invalid", ["'dbb'"]),
        ("keyturn_databases.app.cut_over", "column", "catalog-invalid", ["'column'", "'columns'"]),
        ("keyturn_databases.app.max_writer_wait", "fast", "catalog-invalid", ["max_writer_wait"]),
        ("keyturn_databases.app.workers", -1, "catalog-invalid", ["workers", "0 or more"]),
        ("keyturn_databases.app.batch_rows", 0, "catalog-invalid", ["batch_rows", "1 or more"]),
        ("keyturn_databases.app.rate", True, "catalog-invalid", ["rate", "must be int"]),
        ("keyturn_databases.app.calm", "yes", "catalog-invalid", ["calm", "must be bool"]),
        ("keyturn_databases.app.hosts", [], "host-unknown", ["keyturn_databases.app.hosts", "no host"]),
        ("keyturn_databases.app.hosts", ["db", "apo"], "host-unknown", ["'apo'", "'api'"]),
        ("keyturn_state_host", ..., "catalog-invalid", ["keyturn_state_host"]),
        ("keyturn_state_host", "dbb", "host-unknown", ["'db'"]),
        ("keyturn_secrets", {}, "catalog-empty", ["keyturn_secrets"]),
        ("keyturn_secrets_more", {"KEY": {}}, "secret-twice", ["keyturn_secrets_more", "keyturn_secrets"]),
        ("keyturn_secrets.KEY.may_be_empty", True, "catalog-invalid", ["'may_be_empty'"]),
    ],
)
def test_one_clear_error(path: str, value: Any, code: str, words: list[str]) -> None:
    with pytest.raises(KeyturnError) as raised:
        load_catalog(change(path, value), GROUPS)
    assert raised.value.code == code
    text = str(raised.value)
    assert all(word in text for word in words), text
    assert raised.value.hint


@pytest.mark.parametrize("way", ["rows", "columns", "auto"])
def test_writes_can_be_held_back_whichever_way_it_is_cut_over(way: str) -> None:
    variables = change("keyturn_services.api.quiesce", "writes")
    variables["keyturn_databases"]["app"].update(cut_over=way, max_writer_wait="2s")
    loaded = load_catalog(variables, GROUPS)
    assert loaded.services["api"]["quiesce"] == "writes"
    assert loaded.databases["app"]["max_writer_wait"] == 2


def test_a_secret_name_with_a_path_in_it_is_refused() -> None:
    variables = catalog()
    variables["keyturn_secrets"]["../KEY"] = variables["keyturn_secrets"]["KEY"]
    with pytest.raises(KeyturnError, match="not usable"):
        load_catalog(variables, GROUPS)


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("t", "c", "holds values under KEY"),
        ("public.t", "c", "holds values under KEY"),
        ("t", "sealed", "chooses rows whose values are under KEY"),
        ("t", "other", ""),
        ("elsewhere.t", "c", ""),
    ],
)
@pytest.mark.parametrize("name", ["KEY", "OTHER"])
def test_what_a_secret_needs_is_not_emptied(name: str, table: str, column: str, words: str) -> None:
    """Turned by itself, the other secret knows nothing of these values, and would take them away."""
    variables = change("keyturn_secrets.KEY.data.0.where", {"column": "sealed", "is": True})
    secrets = variables["keyturn_secrets"]
    secrets["OTHER"] = copy.deepcopy({**secrets["KEY"], "data": [{**secrets["KEY"]["data"][0], "table": "u"}]})
    secrets[name]["clear"] = [{"database": "app", "table": table, "column": column}]
    if not words:
        assert load_catalog(variables, GROUPS).secrets[name]["clear"]
        return
    with pytest.raises(KeyturnError, match=words) as raised:
        load_catalog(variables, GROUPS)
    assert raised.value.where == f"keyturn_secrets.{name}.clear[0]"


@pytest.mark.parametrize(
    ("table", "column", "strategy", "is_refused"),
    [
        ("t", "c", "cutover", True),
        ("public.t", "c", "cutover", True),
        ("t", "d", "cutover", False),
        ("elsewhere.t", "c", "cutover", False),
        ("t", "c", "overlap", False),
    ],
)
def test_two_keys_of_one_column_are_not_cut_over_in_the_same_rotation(
    table: str, column: str, strategy: str, is_refused: bool
) -> None:
    """They would share its side table, and the swap of the first would pass for that of both."""
    variables = change("keyturn_secrets.KEY.strategy", strategy)
    key = variables["keyturn_secrets"]["KEY"]
    key["data"][0]["where"] = {"column": "tenant", "is": "a"}
    mine = {**key["data"][0], "table": table, "column": column, "where": {"column": "tenant", "is": "b"}}
    variables["keyturn_secrets"]["OTHER"] = copy.deepcopy({**key, "data": [mine]})
    secrets = load_catalog(variables, GROUPS).secrets
    check_shared(secrets, ["KEY"])
    check_shared(secrets, ["OTHER"])
    if not is_refused:
        check_shared(secrets, ["KEY", "OTHER"])
        return
    with pytest.raises(KeyturnError, match=r"t.c has values under KEY and values under OTHER\.") as raised:
        check_shared(secrets, ["KEY", "OTHER"])
    assert raised.value.code == "keys-together"
    check_shared(secrets, ["KEY"], ["KEY"])
    with pytest.raises(KeyturnError, match=r"under KEY and values under OTHER, and what OTHER turned from is kept"):
        check_shared(secrets, ["KEY"], ["KEY", "OTHER"])


def _with_documents(**more: Any) -> dict[str, Any]:
    variables = catalog()
    entry = {"database": "app", "table": "policies", "document": "bundle", "signature": "jws", **more}
    variables["keyturn_secrets"]["KEY"].update(kind="example.kinds.signing", documents=[entry])
    del variables["keyturn_secrets"]["KEY"]["data"]
    return variables


def test_signed_documents_are_work_in_their_database() -> None:
    where = [{"column": "active", "is": True}]
    variables = _with_documents(where=where, stamps={"at": "resigned_at"}, lifetime="1y", unsigned="sign")
    loaded = load_catalog(variables, GROUPS)
    assert loaded.databases_of("KEY") == {"app": ["db"]}
    jsonschema.validate(variables, json_schema())


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"database": "nobody"}, "documents[0]"),
        ({"where": [{"column": "active"}]}, "documents[0].where[0]"),
        ({"claims": {"exp": 1}}, "documents[0].claims"),
        ({"header": {"kid": "x"}}, "documents[0].header"),
        ({"lifetime": "0d"}, "documents[0].lifetime"),
        ({"stamps": {"when": "x"}}, "documents[0].stamps"),
        ({"unsigned": "drop"}, "documents[0].unsigned"),
    ],
)
def test_wrong_documents_are_refused_with_their_place(more: dict[str, Any], where: str) -> None:
    with pytest.raises(KeyturnError) as raised:
        load_catalog(_with_documents(**more), GROUPS)
    assert raised.value.where == f"keyturn_secrets.KEY.{where}"


@pytest.mark.parametrize("kind", ["encryption_key", "env_secret"])
def test_documents_belong_to_a_signing_key(kind: str) -> None:
    variables = _with_documents()
    variables["keyturn_secrets"]["KEY"]["kind"] = kind
    with pytest.raises(KeyturnError, match="signed with a signing key"):
        load_catalog(variables, GROUPS)


def test_the_json_schema_agrees() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(catalog(), schema)
    for path, value in (("keyturn_secrets.KEY.consumer", []), ("keyturn_secrets.KEY.stores.0.type", "x")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(change(path, value), schema)


def test_the_docs_name_every_field_and_their_example_is_right() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    text = (docs / "catalog.md").read_text()
    assert json.loads((docs / "catalog.schema.json").read_text()) == json_schema()

    def fields(shape: Shape) -> set[str]:
        inner = [fields(field.shape) for field in shape.fields.values() if field.shape is not None]
        return set(shape.fields).union(*inner)

    missing = [field for shape in SHAPES.values() for field in fields(shape) if f"| `{field}` |" not in text]
    assert missing == []
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    example["keyturn_databases"]["app"].pop("dsn")
    assert list(load_catalog(example, {"all": ["a1", "db1"], "api": ["a1"]}).secrets) == ["JWK_AES_KEY"]
