# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three environments from one catalog: the files that docs/environments.md shows, as they stand there."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.controller import Controller, Ended, registry
from tests.support.env_project import read_env
from tests.support.local import LOCAL

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "environments.md"
_STATE = {"dev": "dev1", "staging": "stage1", "production": "state1"}
_DAY = 86400
_ENV = "JWT_SECRET={secret}\nANON_KEY=not-yet-made\nMAIL_API_KEY=what-the-vendor-made-first\nMODE={name}\n"
_SERVICE = {"manager": "command", "start": ["true"], "stop": ["true"], "health": {"command": ["true"]}}


class _Environments:
    """The files of the document, with folders of the test in place of the machines'."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.controller = Controller(folder / "controller")
        blocks = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", _DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
        for path, text in blocks:
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        for name in _STATE:
            variables = folder / "inventories" / name / "group_vars/all"
            (variables / "shared.yml").symlink_to(folder / "shared.yml")
            (variables / "here.yml").write_text(json.dumps(LOCAL))
            self.env(name).parent.mkdir(parents=True)
            self.env(name).touch(0o600)
            self.env(name).write_text(_ENV.format(secret=f"{name}-" + "x" * 40, name=name))

    def env(self, name: str) -> Path:
        """The dotenv file of an environment."""
        return self.folder / name / "app/.env"

    def state(self, name: str) -> Path:
        """The state folder of its state host."""
        return self.folder / name / _STATE[name]

    def turned(self, name: str, days: float) -> None:
        """Let the register say that JWT_SECRET was turned so many days ago."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - days * _DAY))
        rotation = {"secrets": ["JWT_SECRET"], "status": "retired", "started_at": stamp, "ended_at": stamp}
        self.state(name).mkdir(mode=0o700, parents=True)
        content = {
            "schema_version": 1,
            "epoch": 1,
            "secrets": {"JWT_SECRET": {"open": None, "current": "r1", "primary_since": stamp}},
            "rotations": {"r1": {**rotation, "entered": [], "runs": [], "epoch": 1, "phase": "", "restarted": []}},
        }
        (self.state(name) / "registry.json").write_text(json.dumps(content))

    def run(self, name: str, playbook: str, **variables: Any) -> Ended:
        """Run a playbook with an environment's inventory."""
        here = {
            "project": {"hosts": "app", "directory": str(self.env(name).parent), "files": ["compose.yml"]},
            "services_overlay": dict.fromkeys(("api", "db"), _SERVICE),
            "state_dir": str(self.folder / name) + "/{{ inventory_hostname }}",
        }
        inventory = self.folder / "inventories" / name
        return self.controller.run(inventory, playbook, **here, **variables)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> _Environments:
    """All three; the key of each was turned 60 days ago."""
    made = _Environments(tmp_path_factory.mktemp("environments"))
    for name in _STATE:
        made.turned(name, 60)
    return made


@pytest.mark.parametrize(("name", "due"), [("dev", False), ("staging", False), ("production", True)])
def test_one_catalog_has_another_period_in_each_environment(environments: _Environments, name: str, due: bool) -> None:
    right = environments.run(name, "validate")
    assert right.code == 0, right.output
    assert "The catalog is right: ANON_KEY, JWT_SECRET, MAIL_API_KEY." in right.output
    plan = environments.run(name, "plan")
    assert plan.code == 0, plan.output
    assert ("Nothing is due" in plan.output) is not due
    line = next((line for line in plan.output.splitlines() if line.startswith("  JWT_SECRET ")), "")
    assert (" now " in line) is due
    assert read_env(environments.env(name))["MODE"] == name


def test_nothing_begins_in_production_without_a_plan_that_was_agreed_to(environments: _Environments) -> None:
    env = environments.env("production")
    before, others = env.read_text(), {name: environments.env(name).read_text() for name in ("dev", "staging")}
    refused = environments.run("production", "rotate", only="JWT_SECRET")
    assert refused.code == 2, refused.output
    assert "nothing begins here without a plan that was agreed to" in refused.output
    assert env.read_text() == before
    assert list(registry(environments.state("production"))["rotations"]) == ["r1"]

    plan = environments.run("production", "plan", only="JWT_SECRET")
    (digest,) = re.findall(r"^  digest +([0-9a-f]{64})$", plan.output, re.MULTILINE)
    other = environments.run("production", "rotate", only="MAIL_API_KEY", plan=digest)
    assert other.code == 2, other.output
    assert env.read_text() == before

    ended = environments.run("production", "rotate", only="JWT_SECRET", plan=digest, until="stage")
    assert ended.code == 0, ended.output
    gone_on = environments.run("production", "rotate", only="JWT_SECRET")
    assert gone_on.code == 0, gone_on.output
    assert read_env(env)["JWT_SECRET"] not in before
    assert {name: environments.env(name).read_text() for name in others} == others
    back = environments.run("production", "rollback", only="JWT_SECRET")
    assert back.code == 0, back.output
    assert env.read_text() == before
