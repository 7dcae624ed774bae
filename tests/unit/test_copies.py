# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of a value that the catalog does not name are found, and the value is not shown."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import plan
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog

from tests.support.hosts import Host

_VALUE = "p/ss+word=41"


def _store(path: Path, **options: Any) -> dict[str, Any]:
    return {"type": "env_file", "path": str(path), **options}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


def _copies(host: Host, *search: Path, **stores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    requests = [{"name": name, "stores": entries} for name, entries in stores.items()]
    params = {
        "state_dir": str(host.state_dir),
        "session_dir": str(host.state_dir / "host"),
        "rotation_id": "r1",
        "epoch": 1,
        "secrets": requests,
        "search": [str(path) for path in search],
    }
    from ansible_collections.keyturn.rotation.plugins.module_utils.secret.look import run_info

    answer = run_info(params, False)
    assert _VALUE not in repr(answer)
    found: list[dict[str, Any]] = answer["copies"]
    return found


def test_every_form_in_every_file_is_found_with_its_line(host: Host) -> None:
    encoded = base64.b64encode(_VALUE.encode()).decode()
    env = host.write(
        ".env",
        f"# settings\nPW='{_VALUE}'\nURL=postgres://u:{quote(_VALUE, safe='')}@db/app\nB64={encoded}\n"
        f"# before: {_VALUE}\nKNOWN=postgres://u:{quote(_VALUE, safe='')}@db/app\nREF=${{PW}}\n".encode(),
    )
    other = host.write("other.env", f"export COPY={_VALUE}\n".encode())
    compose = host.write("docker-compose.yml", f"services:\n  db:\n    command: x -p {_VALUE}\n".encode())
    found = _copies(
        host, other, compose, host.folder / "missing.yml", PW=[_store(env), _store(env, variable="KNOWN", inside="url")]
    )
    places = [(Path(copy["path"]).name, copy["line"], copy["variable"], copy["form"]) for copy in found]
    assert places == [
        (".env", 3, "URL", "percent-encoded"),
        (".env", 4, "B64", "base64"),
        (".env", 5, "", "literal"),
        ("docker-compose.yml", 3, "", "literal"),
        ("other.env", 1, "COPY", "literal"),
    ]
    assert {copy["secret"] for copy in found} == {"PW"}


def test_stores_are_no_copies(host: Host) -> None:
    env = host.write(".env", f"PW={_VALUE}\nPW_PREVIOUS={_VALUE}\n".encode())
    whole = host.write("key", f"{_VALUE}\n".encode())
    part = host.write("app.conf", f"a=1\nkey={_VALUE}\n".encode())
    stores = [
        _store(env, layout="pair"),
        {"type": "file", "path": str(whole)},
        {"type": "file", "path": str(part), "inside": {"pattern": "^key=(.+)$"}},
    ]
    assert _copies(host, PW=stores) == []
    part.write_text(f"a={_VALUE}\nkey={_VALUE}\n")
    (copy,) = _copies(host, PW=stores)
    assert (copy["path"], copy["line"]) == (str(part), 1)


def test_short_values_are_not_looked_for(host: Host) -> None:
    env = host.write(".env", b"SHORT=1234567\nLONG=12345678\nOTHER=12345678\n")
    found = _copies(host, SHORT=[_store(env, variable="SHORT")], LONG=[_store(env, variable="LONG")])
    assert [(copy["secret"], copy["variable"]) for copy in found] == [("LONG", "OTHER")]


def test_the_plan_names_the_files_to_look_in() -> None:
    def secret(path: str) -> dict[str, Any]:
        return {"kind": "env_secret", "stores": [{"hosts": "one", "type": "env_file", "path": path}]}

    service = {"hosts": "one", "manager": "compose", "project_dir": "/srv/app", "files": ["compose.yml"]}
    variables = {
        "keyturn_state_host": "two",
        "keyturn_services": {"api": service, "far": {**service, "hosts": "two", "project_dir": "/srv/far"}},
        "keyturn_secrets": {"A": secret("/srv/app/.env"), "B": secret("/srv/app/b.env")},
    }
    catalog = load_catalog(variables, {"all": ["one", "two"]})
    kinds = {"env_secret": {"role": "keyturn.rotation.env_secret", "phases": ["verify"]}}
    built = plan.build(catalog, ["A"], kinds, {})
    assert built["hosts"]["one"]["search"] == ["/srv/app/.env", "/srv/app/b.env", "/srv/app/compose.yml"]
    del service["files"]
    variables["keyturn_services"] = {"api": {**service, "env_files": ["prod.env"]}}
    built = plan.build(load_catalog(variables, {"all": ["one", "two"]}), ["A"], kinds, {})
    looked_in = {"/srv/app/compose.yaml", "/srv/app/docker-compose.yml", "/srv/app/docker-compose.override.yml"}
    assert looked_in | {"/srv/app/prod.env"} < set(built["hosts"]["one"]["search"])
    assert "search" not in built["hosts"]["two"]
