# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller without the collection that Docker Compose needs: said before anything changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.controller import Controller
from tests.support.local import LOCAL

_COLLECTION = Path(__file__).resolve().parents[2] / ".build/ansible_collections/keyturn"
_SAID = "Docker Compose needs the collection community.docker, which is not on this controller"
_CONTENT = "TOKEN=canary-5e8f7a3c91d2b604\n"


def _project(folder: Path, service: dict[str, Any]) -> tuple[Controller, Path, Path]:
    (folder / "collections/ansible_collections").mkdir(parents=True)
    (folder / "collections/ansible_collections/keyturn").symlink_to(_COLLECTION)
    settings = folder / ".env"
    settings.touch(0o600)
    settings.write_text(_CONTENT)
    store = {"hosts": "one", "type": "env_file", "path": str(settings)}
    secret = {"kind": "env_secret", "generate": {"type": "string", "length": 32}, "stores": [store]}
    variables = {
        **LOCAL,
        "keyturn_state_host": "one",
        "keyturn_state_dir": str(folder / "state"),
        "keyturn_services": {"api": {"hosts": "one", **service}},
        "keyturn_secrets": {"TOKEN": {**secret, "consumers": ["api"]}},
    }
    inventory = folder / "inventory.json"
    inventory.write_text(json.dumps({"all": {"vars": variables, "hosts": {"one": {}}}}))
    controller = Controller(folder / "home", {"ANSIBLE_COLLECTIONS_PATH": str(folder / "collections")})
    return controller, inventory, settings


@pytest.mark.parametrize(
    ("playbook", "more"),
    [("plan", {"only": "TOKEN"}), ("rotate", {"only": "TOKEN"}), ("restart", {"restart": "all"})],
)
def test_compose_needs_a_collection(tmp_path: Path, playbook: str, more: dict[str, str]) -> None:
    service = {"manager": "compose", "project_dir": str(tmp_path)}
    controller, inventory, settings = _project(tmp_path, service)
    ended = controller.run(inventory, playbook, **more)
    assert (ended.code, _SAID in ended.output) == (2, True), ended.output
    assert "ansible-galaxy collection install community.docker" in ended.output
    assert settings.read_text() == _CONTENT
    assert not (tmp_path / "state/registry.json").exists()


def test_other_services_do_without(tmp_path: Path) -> None:
    service = {"manager": "command", "start": ["true"], "stop": ["true"], "health": {"command": ["true"]}}
    controller, inventory, settings = _project(tmp_path, service)
    ended = controller.run(inventory, "rotate", only="TOKEN")
    assert ended.code == 0, ended.output
    assert settings.read_text() != _CONTENT


def test_what_starts_no_container_does_without(tmp_path: Path) -> None:
    controller, inventory, settings = _project(tmp_path, {"manager": "compose", "project_dir": str(tmp_path)})
    for playbook in ("validate", "status", "restore"):
        ended = controller.run(inventory, playbook)
        assert ended.code == 0, ended.output
        assert (_SAID in ended.output) is (playbook == "validate"), "there it is a warning"
    assert settings.read_text() == _CONTENT
