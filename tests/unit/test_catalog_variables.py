# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A catalog file of the controller, with what the inventory says beside it and over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog, services_on
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.catalog_variables import (
    catalog_services,
    catalog_variables,
)

_VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "002_secrets_config.json").read_text())
_GROUPS = {"all": ["one", "two"], "app": ["one"]}


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "secrets-config.yaml").write_text(_VECTORS["yaml"])
    return {
        "inventory_dir": str(tmp_path),
        "keyturn_state_host": "two",
        "keyturn_catalog_file": "secrets-config.yaml",
        "keyturn_project": {"hosts": "app", "directory": "/srv/localai"},
        "keyturn_services": {"edge": {"hosts": "two", "manager": "compose", "project_dir": "/srv/edge"}},
        "keyturn_services_overlay": {
            "n8n": {"project": "flows"},
            "backup": {"hosts": "two", "manager": "systemd", "unit": "x"},
        },
    }


def _templar(variables: dict[str, Any]) -> Templar:
    return Templar(loader=DataLoader(), variables=variables)


def test_compose_is_asked_for_the_services_of_file_and_inventory_with_what_is_laid_over(
    variables: dict[str, Any],
) -> None:
    services = catalog_services(_templar(variables), variables)
    on_one = {entry["name"]: entry for entry in services_on(services, _GROUPS, "one", "compose")}
    assert sorted(on_one) == sorted(set(_VECTORS["parsed"]["service_dependencies"]) - {"backup"})
    assert on_one["n8n"]["project"] == "flows"
    assert on_one["n8n"]["project_dir"] == "/srv/localai"
    assert [entry["name"] for entry in services_on(services, _GROUPS, "two", "compose")] == ["edge"]


def test_the_plan_knows_where_the_project_lies(variables: dict[str, Any]) -> None:
    catalog = load_catalog(catalog_variables(_templar(variables), variables), _GROUPS)
    assert catalog.project == {"hosts": ["one"], "directory": "/srv/localai"}
    assert catalog.backup["directory"] == "backups/secrets"
    without = {"keyturn_state_host": "two", "keyturn_secrets": _secrets()}
    assert load_catalog(without, _GROUPS).project == {}


def _secrets() -> dict[str, Any]:
    store = {"hosts": "one", "type": "env_file", "path": "/srv/.env"}
    return {"TOKEN": {"kind": "env_secret", "stores": [store]}}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"keyturn_catalog_file": "elsewhere.yaml"}, "catalog-missing"),
        ({"keyturn_services": {"n8n": {"hosts": "one", "manager": "systemd", "unit": "n8n"}}}, "service-twice"),
        ({"keyturn_services_overlay": {"n9n": {}}}, "catalog-invalid"),
        ({"keyturn_project": {"hosts": "app"}}, "catalog-invalid"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(variables: dict[str, Any], change: dict[str, Any], code: str) -> None:
    variables.update(change)
    with pytest.raises(KeyturnError) as caught:
        catalog_services(_templar(variables), variables)
    assert caught.value.code == code
    assert caught.value.hint
