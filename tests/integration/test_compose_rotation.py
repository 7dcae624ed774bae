# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that containers read, turned over on two hosts with a Compose project each; and the playbooks around it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo.compose.client import TIMEOUT, Client
from demo.compose.judge import judge, mark
from demo.compose.stack import SECRETS
from demo.compose.stack import Stack as RealStack

from tests.integration.conftest import ProjectMaker
from tests.support.compose import Project, sleeper
from tests.support.controller import Controller, Ended, registry
from tests.support.local import LOCAL

_ROOT = Path(__file__).resolve().parents[2]
OLD = "canary-old-5d1e90cc7ab4"
URL = "postgres://app:${TOKEN}@db/app"


@dataclass
class Stack:
    """Host ``one`` has ``db`` and ``api``; host ``two`` has ``worker``, which needs ``api``."""

    shop: Project
    other: Project
    folder: Path
    controller: Controller

    def inventory(self, **changes: Any) -> Path:
        """Write the inventory; ``changes`` are made to services."""
        services = {
            "aworker": {**self.other.entry("worker"), "hosts": "two", "depends_on": ["api"]},
            "api": {**self.shop.entry("api"), "hosts": "one"},
            "db": {**self.shop.entry("db"), "hosts": "one"},
        }
        for name, change in changes.items():
            services[name] = {**services[name], **change}
        stores = [
            {"hosts": host, "type": "env_file", "path": str(project.folder / ".env")}
            for host, project in (("one", self.shop), ("two", self.other))
        ]
        catalog = {
            "keyturn_state_host": "one",
            "keyturn_services": services,
            "keyturn_secrets": {
                "TOKEN": {
                    "kind": "example.kinds.plain",
                    "strategy": "replace",
                    "generate": {"type": "string", "length": 40, "charset": "alnum"},
                    "stores": stores,
                    "consumers": ["aworker", "api", "db"],
                }
            },
        }
        hosts = {host: {"keyturn_state_dir": str(self.folder / "state" / host)} for host in ("one", "two")}
        (self.folder / "group_vars").mkdir(exist_ok=True)
        (self.folder / "group_vars/all.yml").write_text(yaml.safe_dump(catalog))
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump({"all": {"vars": LOCAL, "hosts": hosts}}))
        return path

    def value(self, project: Project) -> str:
        """What the file of a project holds."""
        return (project.folder / ".env").read_text().partition("TOKEN=")[2].strip()

    def run(self, playbook: str, *arguments: str, changes: dict[str, Any] | None = None, **variables: Any) -> Ended:
        """Run a playbook; it may show no value, neither old nor new."""
        inventory = self.inventory(**(changes or {}))
        ended = self.controller.run(inventory, playbook, *arguments, **variables)
        for value in (OLD, self.value(self.shop), self.value(self.other)):
            assert value not in ended.output
        return ended

    def began(self, project: Project, service: str) -> str:
        """When the container of a service was started."""
        return str(project.containers(service)[0]["State"]["StartedAt"])


@pytest.fixture
def stack(project: ProjectMaker, tmp_path: Path) -> Stack:
    """Both projects run."""
    tasks = tmp_path / "collections/ansible_collections/example/kinds/roles/plain/tasks"
    tasks.mkdir(parents=True)
    (tasks / "preflight.yml").write_text("---\n- name: Nothing to look at\n  ansible.builtin.meta: noop\n")
    environment = {"TOKEN": "${TOKEN}", "DATABASE_URL": URL}
    api = sleeper(environment=environment, depends_on={"db": {"condition": "service_healthy"}})
    return Stack(
        project({"db": sleeper(environment=environment), "api": api}, {"TOKEN": OLD}),
        project({"worker": sleeper(environment=environment)}, {"TOKEN": OLD}),
        tmp_path,
        Controller(
            tmp_path / "home",
            {"ANSIBLE_COLLECTIONS_PATH": f"{tmp_path / 'collections'}:{_ROOT / '.build'}", "ANSIBLE_FORKS": "2"},
        ),
    )


def test_a_rotation_reaches_every_container_in_the_order_of_compose_and_catalog(stack: Stack) -> None:
    ended = stack.run("rotate", only="TOKEN")
    assert ended.code == 0, ended.output
    new = stack.value(stack.shop)
    assert new != OLD
    for project, service in ((stack.shop, "db"), (stack.shop, "api"), (stack.other, "worker")):
        (found,) = project.environment(service)
        assert (found["TOKEN"], found["DATABASE_URL"]) == (new, f"postgres://app:{new}@db/app")
    assert stack.began(stack.shop, "db") < stack.began(stack.shop, "api") < stack.began(stack.other, "worker")
    (record,) = (stack.folder / "state/one/evidence").glob("*/evidence.json")
    probes = {probe["name"]: probe for probe in json.loads(record.read_text())["probes"]}
    assert sorted(probes) == [f"TOKEN in the containers of {name}" for name in ("api", "aworker", "db")]
    assert {(probe["type"], probe["result"]) for probe in probes.values()} == {("container_env", "accepted")}
    back = stack.run("rollback", only="TOKEN")
    assert back.code == 0, back.output
    assert [found["TOKEN"] for found in stack.shop.environment("api")] == [OLD]


def test_a_real_stack_turns_under_traffic_and_goes_back(docker_host: str, tmp_path: Path) -> None:
    """PostgreSQL, Redis, an API that verifies tokens, nginx and a worker, in two projects on two hosts."""
    controller = Controller(tmp_path / "controller", {"ANSIBLE_FORKS": "2"})
    with RealStack(tmp_path / "stack", docker_host) as real:
        mark(real)
        values = set(real.values().values())
        with Client(real.gateway) as client:
            planned = controller.run(real.inventory, "plan", only="all")
            ended = controller.run(real.inventory, "rotate", only="all")
            assert (planned.code, ended.code) == (0, 0), ended.output
            turned = judge(real, SECRETS)
            assert turned.ok, turned
            assert turned.refused == ["POSTGRES_PASSWORD of before", "REDIS_PASSWORD of before", "ANON_KEY of before"]
            values |= set(real.values().values())
            back = controller.run(real.inventory, "rollback", only="JWT_SECRET")
            assert back.code == 0, back.output
        verdict = judge(real, ())
        assert verdict.ok, verdict
        assert (client.failed, client.served > 0, client.refused > 0) == (0, True, True)
        # Nobody waited longer than values and containers were being changed, and then for one answer
        assert client.longest_gap < _seconds_of_change(real) + TIMEOUT
        for value in values:
            assert len(value) < 20 or value not in planned.output + ended.output + back.output


def _seconds_of_change(real: RealStack) -> float:
    """From the first value that changed to the last service that was well again: forward or back, the longer one."""

    def phases(event: str) -> dict[str, dict[str, Any]]:
        (record,) = (real.state_dir("core") / "evidence").glob(f"*.{event}/evidence.json")
        return {phase["name"]: phase for phase in json.loads(record.read_text())["phases"]}

    forward, back = phases("rotated"), phases("rolled_back")
    return float(max(forward["promote"]["seconds"] + forward["restart"]["seconds"], back["rollback"]["seconds"]))


def test_a_container_that_still_has_the_old_value_brings_everything_back(stack: Stack) -> None:
    path = stack.shop.folder / "compose.yml"
    content = json.loads(path.read_text())
    content["services"]["api"]["environment"]["COPY"] = f"https://user:{OLD}@example.test/"
    path.write_text(json.dumps(content))
    ended = stack.run("rotate", only="TOKEN")
    assert ended.code == 2, ended.output
    assert f"the old value is still there: {stack.shop.name}-api-1 has it in COPY" in ended.output
    assert stack.value(stack.shop) == stack.value(stack.other) == OLD
    assert [found["TOKEN"] for found in stack.other.environment("worker")] == [OLD]
    (rotation,) = registry(stack.folder / "state/one")["rotations"].values()
    assert rotation["status"] == "rolled_back"


def test_the_gate_refuses_a_service_that_is_not_there(stack: Stack) -> None:
    ended = stack.run("rotate", only="TOKEN", changes={"api": {"service": "apii"}})
    assert ended.code == 2, ended.output
    assert "one: api is unknown (it has no container). Mend it before a key turns" in ended.output
    assert stack.value(stack.shop) == OLD


def test_the_plan_is_the_same_while_nothing_changes(stack: Stack) -> None:
    def digest() -> str:
        ended = stack.run("plan", only="TOKEN")
        assert ended.code == 0, ended.output
        (line,) = (line for line in ended.output.splitlines() if line.startswith("  digest "))
        return line.split()[1]

    assert digest() == digest()


def test_check_saves_and_compares_and_names_what_got_worse(stack: Stack, tmp_path: Path) -> None:
    saved = tmp_path / "before.json"
    ended = stack.run("check", save=str(saved))
    assert ended.code == 0, ended.output
    assert "all 3 healthy" in ended.output
    content = json.loads(saved.read_text())
    assert content["services"]["api"]["health"] == "healthy"
    assert saved.stat().st_mode & 0o777 == 0o600
    stack.shop.compose("stop", "api")
    for arguments in ((), ("--check",)):
        ended = stack.run("check", *arguments, compare=str(saved))
        assert ended.code == 2, ended.output
        assert "api on one: healthy before, unhealthy now (has ended)" in ended.output
        assert "    | began" in ended.output
    ended = stack.run("check")
    assert (ended.code, "2 of 3 healthy" in ended.output) == (2, True), ended.output
    ended = stack.run("check", only="TOKEN", verbose=True)
    assert "  db on one: healthy (running, healthy)" in ended.output
    stack.shop.compose("start", "api")
    ended = stack.run("check", compare=str(saved), wait=30)
    assert (ended.code, "nothing is worse than before" in ended.output) == (0, True), ended.output
    saved.write_text("not json")
    assert "is no health snapshot" in stack.run("check", compare=str(saved)).output


def test_restart_of_all_of_some_and_of_what_is_affected(stack: Stack) -> None:
    def ids() -> dict[str, set[str]]:
        return {"db": stack.shop.ids("db"), "api": stack.shop.ids("api"), "aworker": stack.other.ids("worker")}

    before = ids()
    ended = stack.run("restart", "--check", restart="all")
    assert (ended.code, ids()) == (0, before), ended.output
    assert "Would restart, in this order: db; then api; then aworker" in ended.output
    ended = stack.run("restart", restart="api")
    assert ended.code == 0, ended.output
    assert {name for name, found in ids().items() if found != before[name]} == {"api"}
    assert "all 1 healthy" in ended.output
    ended = stack.run("restart", only="TOKEN")
    assert (ended.code, before["db"] & ids()["db"]) == (0, set()), ended.output
    assert stack.began(stack.shop, "db") < stack.began(stack.shop, "api") < stack.began(stack.other, "worker")
    ended = stack.run("restart", restart="apii")
    assert (ended.code, "there is no service 'apii'" in ended.output) == (2, True)
    ended = stack.run("restart")
    assert (ended.code, "nothing has been turned yet" in ended.output) == (2, True), ended.output
    ended = stack.run("restart", restart="all", timeout=1)
    # Whether the first one is begun within a second is up to the machine
    assert (ended.code, bool(re.search("Not restarted: (db, )?api, aworker", ended.output))) == (2, True), ended.output


def test_a_restart_that_goes_wrong_stops_and_names_it(stack: Stack) -> None:
    path = stack.shop.folder / "compose.yml"
    content = json.loads(path.read_text())
    content["services"]["db"]["healthcheck"]["test"] = ["CMD-SHELL", "false"]
    path.write_text(json.dumps(content))
    worker = stack.other.ids("worker")
    ended = stack.run("restart", restart="all", wait=15)
    assert ended.code == 2, ended.output
    assert "db on one: unhealthy (runs, its check fails)" in ended.output
    assert stack.other.ids("worker") == worker, "what depends on it was left alone"
    ended = stack.run("restart", restart="all", health=False)
    assert ended.code == 0, ended.output
    assert "Nobody has looked whether the services are healthy" in ended.output
    assert stack.other.ids("worker") != worker
