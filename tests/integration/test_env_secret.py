# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environment secrets with the catalog that their owner has: a secrets-config.yaml, as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.dotenv import parse

from tests.support.controller import Controller, registry

_VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "002_secrets_config.json").read_text())
_HELD = ["N8N_ENCRYPTION_KEY", "PG_META_CRYPTO_KEY", "POSTGRES_PASSWORD", "VAULT_ENC_KEY"]
_AUTO = _VECTORS["cases"][0]["secrets"]
#: Their services, as commands: what they are made of is not the subject here.
_SERVICE = {"manager": "command", "start": ["true"], "stop": ["true"], "health": {"command": ["true"]}}


class Project:
    """One host with the project of the vectors, and the catalog file beside the inventory."""

    def __init__(self, folder: Path, **variables: Any) -> None:
        self.folder = folder / "project"
        self.state_dir = folder / "state"
        self.inventory = folder / "inventory.yml"
        for path, text in _VECTORS["env_before"].items():
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch(0o600)
            place.write_text(text)
        (folder / "secrets-config.yaml").write_text(_VECTORS["yaml"])
        self.state_dir.mkdir(mode=0o700)
        services = dict.fromkeys(_VECTORS["parsed"]["service_dependencies"], _SERVICE)
        catalog = {
            "keyturn_state_host": "one",
            "keyturn_state_dir": str(self.state_dir),
            "keyturn_catalog_file": "secrets-config.yaml",
            "keyturn_project": {"hosts": "one", "directory": str(self.folder), "files": ["docker-compose.yml"]},
            "keyturn_services_overlay": services,
            **variables,
        }
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": {**local, **catalog}, "hosts": {"one": {}}}}))

    def values(self, path: str = ".env") -> dict[str, str]:
        document = parse((self.folder / path).read_bytes())
        return {line.name: line.value or "" for line in document.lines if line.name}

    def bytes(self) -> list[bytes]:
        return [(self.folder / path).read_bytes() for path in _VECTORS["env_before"]]

    @property
    def statuses(self) -> list[str]:
        return [rotation["status"] for rotation in registry(self.state_dir)["rotations"].values()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def _assert_signed(values: dict[str, str]) -> None:
    for name, role in (("ANON_KEY", "anon"), ("SERVICE_ROLE_KEY", "service_role")):
        claims = jwt.decode(values[name], values["JWT_SECRET"], algorithms=["HS256"])
        assert list(claims) == ["role", "iss", "iat", "exp"]
        assert (claims["role"], claims["iss"]) == (role, "supabase")


def test_the_catalog_as_it_is_turns_all_but_what_others_depend_on(project: Project, controller: Controller) -> None:
    before, files = project.values(), project.bytes()
    shown = controller.run(project.inventory, "plan", only="all")
    assert shown.code == 0, shown.output
    for name in _HELD:
        assert f"held back   {name}" in shown.output
    assert project.bytes() == files

    ended = controller.run(project.inventory, "rotate", only="all", reason="quarter")
    assert ended.code == 2, ended.output
    assert "held-back" in ended.output or "held back" in ended.output
    assert "N8N_ENCRYPTION_KEY: {held: false}" in ended.output
    after = project.values()
    changed = sorted(name for name in before if before[name] != after[name])
    assert changed == sorted(set(_AUTO) - set(_HELD))
    _assert_signed(after)
    inner = project.values("supabase/docker/.env")
    assert all(inner[name] == after[name] for name in inner if name in changed)
    assert project.statuses == ["overlap"]
    (evidence,) = (project.state_dir / "evidence").glob("*.rotated/evidence.json")
    messages = json.loads(evidence.read_text())["messages"]
    assert [name for name in _HELD if not any(f"held back: {name}" in text for text in messages)] == []

    back = controller.run(project.inventory, "rollback", only="JWT_SECRET")
    assert back.code == 0, back.output
    assert project.bytes() == files
    assert project.statuses == ["rolled_back"]
    for value in {*before.values(), *after.values()}:
        assert len(value) < 16 or value not in shown.output + ended.output + back.output


def test_trap_30_a_parent_takes_its_children_along_and_a_child_goes_alone(
    project: Project, controller: Controller
) -> None:
    before = project.values()
    ended = controller.run(project.inventory, "rotate", only="JWT_SECRET")
    assert ended.code == 0, ended.output
    turned = project.values()
    assert sorted(name for name in before if before[name] != turned[name]) == [
        "ANON_KEY", "JWT_SECRET", "SERVICE_ROLE_KEY",
    ]  # fmt: skip
    _assert_signed(turned)

    alone = controller.run(project.inventory, "rotate", only="ANON_KEY")
    assert alone.code == 0, alone.output
    after = project.values()
    assert sorted(name for name in turned if turned[name] != after[name]) == ["ANON_KEY"]
    _assert_signed(after)


def test_a_value_that_a_person_brings_goes_through_the_same_phases(tmp_path: Path) -> None:
    brought = "sk-a-key-that-its-vendor-made-0123456789"
    overlay = {"OPENAI_API_KEY": {"value_from": {"env": "NEW_OPENAI_KEY"}}}
    project = Project(tmp_path, keyturn_overlay=overlay)
    controller = Controller(tmp_path / "controller", {"NEW_OPENAI_KEY": brought})
    before = project.bytes()
    missing = controller.run(project.inventory, "rotate", only="NGC_API_KEY")
    assert missing.code == 2
    assert "value_from" in missing.output
    ended = controller.run(project.inventory, "rotate", only="OPENAI_API_KEY")
    assert ended.code == 0, ended.output
    assert project.values()["OPENAI_API_KEY"] == brought
    assert project.values("supabase/docker/.env")["OPENAI_API_KEY"] == brought
    assert brought not in missing.output + ended.output
    back = controller.run(project.inventory, "rollback", only="OPENAI_API_KEY")
    assert back.code == 0, back.output
    assert project.bytes() == before


def test_what_is_held_back_alone_leaves_everything_as_it_is(project: Project, controller: Controller) -> None:
    before = project.bytes()
    ended = controller.run(project.inventory, "rotate", only="POSTGRES_PASSWORD")
    assert ended.code == 2, ended.output
    assert "server: {type: postgres" in ended.output
    assert project.bytes() == before
    assert project.statuses == []
