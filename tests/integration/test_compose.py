# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of Docker Compose on a real engine: restarted in order, made anew, watched."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.dockerd import BASE_IMAGE, BRIDGE, build_image

from tests.integration.conftest import ProjectMaker
from tests.support.compose import sleeper
from tests.support.modules import run_module_process
from tests.support.steady_client import SteadyClient
from tests.unit.test_restart_role import play

OLD, NEW = "canary-old-4f9d2c7a11e0", "canary-new-b83e6650c2fd"


def _named(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, **entry}


def test_trap_13_containers_are_made_anew_and_have_the_new_environment(project: ProjectMaker, tmp_path: Path) -> None:
    shop = project(
        {"api": sleeper(environment={"TOKEN": "${TOKEN}"}), "db": sleeper()},
        {"TOKEN": OLD},
        override={"services": {"api": {"deploy": {"replicas": 2}}}},
    )
    other = project({"worker": sleeper(environment={"TOKEN": "${TOKEN}"})}, {"TOKEN": OLD})
    before = {name: shop.ids(name) for name in ("api", "db")}
    services = [
        _named("api", shop.entry("api", wave=0)),
        _named("db", shop.entry("db", wave=0)),
        _named("worker", other.entry("worker", wave=0)),
    ]
    shop.write_environment(TOKEN=NEW)
    other.write_environment(TOKEN=NEW)
    code, output = play(tmp_path, "--check", restart_services=services)
    assert (code, NEW in output, OLD in output) == (0, False, False), output
    assert {name: shop.ids(name) for name in ("api", "db")} == before
    code, output = play(tmp_path, restart_services=services)
    assert (code, NEW in output, OLD in output) == (0, False, False), output
    assert [found["TOKEN"] for found in shop.environment("api")] == [NEW, NEW], "as many as before, all of them new"
    assert [found["TOKEN"] for found in other.environment("worker")] == [NEW]
    assert not before["db"] & shop.ids("db")
    assert output.count("Bring the containers to the wanted state") == 2, "one call for each project"


def test_a_stack_keeps_the_files_that_it_was_started_with(project: ProjectMaker, tmp_path: Path) -> None:
    """Where the catalog does not say them: a container must not lose its settings because it was made anew."""
    shop = project({"api": sleeper(environment={"TOKEN": "${TOKEN:-}", "MODE": "plain"})}, {"TOKEN": "of another file"})
    settings, more = shop.folder / "prod.env", shop.folder / "prod.yml"
    settings.write_text(f"TOKEN={OLD}\n")
    more.write_text(json.dumps({"services": {"api": {"environment": {"MODE": "production"}}}}))
    shop.options = [f"--env-file={settings}", f"--file={more}"]
    shop.compose("up", "--detach", "--wait")
    assert [(found["TOKEN"], found["MODE"]) for found in shop.environment("api")] == [(OLD, "production")]
    settings.write_text(f"TOKEN={NEW}\n")
    for entry in (shop.entry("api"), shop.entry("api", rolling=True)):
        code, output = play(tmp_path, restart_services=[_named("api", entry)])
        assert (code, NEW in output, OLD in output) == (0, False, False), output
        assert [(found["TOKEN"], found["MODE"]) for found in shop.environment("api")] == [(NEW, "production")]
    more.unlink()
    shop.options = []
    settings.write_text(f"TOKEN={OLD}\n")
    told = shop.entry("api", env_files=["prod.env"])
    code, output = play(tmp_path, restart_services=[_named("api", told)])
    assert code == 0, output
    assert [(found["TOKEN"], found["MODE"]) for found in shop.environment("api")] == [(OLD, "plain")]


def test_trap_15_a_service_that_was_named_and_is_not_there_is_an_error(project: ProjectMaker, tmp_path: Path) -> None:
    shop = project({"db": sleeper()})
    before = shop.ids("db")
    services = [_named("db", shop.entry("db", wave=0)), _named("web", shop.entry("webb", wave=1))]
    for arguments in (["--check"], []):
        code, output = play(tmp_path, *arguments, restart_services=services)
        assert code == 2, output
        assert "there is no container of service 'webb' in the Compose project" in output
    assert shop.ids("db") == before, "nothing was restarted before it was seen"


def test_stopped_and_started_with_what_has_changed_meanwhile(project: ProjectMaker, tmp_path: Path) -> None:
    shop = project({"api": sleeper(environment={"TOKEN": "${TOKEN}"}), "db": sleeper()}, {"TOKEN": OLD})
    services = [_named("api", shop.entry("api"))]
    db = shop.ids("db")
    for _again in range(2):
        code, output = play(tmp_path, restart_services=services, restart_action="stopped")
        assert code == 0, output
        assert [found["State"]["Status"] for found in shop.containers("api")] == ["exited"]
    shop.write_environment(TOKEN=NEW)
    for _again in range(2):
        code, output = play(tmp_path, restart_services=services, restart_action="started")
        assert (code, NEW in output, OLD in output) == (0, False, False), output
        assert [found["TOKEN"] for found in shop.environment("api")] == [NEW]
    assert "changed=0" in output, "what runs already is left alone"
    assert shop.ids("db") == db


def test_trap_16_a_service_that_gets_worse_is_named_with_its_last_lines_masked(
    project: ProjectMaker, tmp_path: Path
) -> None:
    talk = 'echo "cannot reach postgres://app:$$TOKEN@db/app"; echo "token is $$TOKEN"; sleep 3600'
    sick = sleeper('test "$$TOKEN" = ' + OLD, environment={"TOKEN": "${TOKEN}"}, command=["sh", "-c", talk])
    shop = project({"api": sick, "db": sleeper()}, {"TOKEN": OLD})
    services = [_named("api", shop.entry("api", wave=0)), _named("db", shop.entry("db", wave=0))]
    shop.write_environment(TOKEN=NEW)
    baseline = {"api": "healthy", "db": "healthy"}
    code, output = play(tmp_path, restart_services=services, restart_wait=20, restart_baseline=baseline)
    assert (code, NEW in output, OLD in output) == (2, False, False), output
    assert "api is unhealthy (runs, its check fails)" in output
    assert "db is" not in output
    assert "cannot reach postgres://app:********@db/app" in output


def test_trap_16_without_a_check_it_is_unknown_and_counts_only_where_running_is_enough(
    project: ProjectMaker, tmp_path: Path
) -> None:
    shop = project({"bare": sleeper("")})
    code, output = play(tmp_path, restart_services=[_named("bare", shop.entry("bare"))], restart_wait=60)
    assert code == 2, output
    assert "bare is unknown (runs, and has no health check)" in output
    enough = shop.entry("bare", health={"running_is_enough": True})
    code, output = play(tmp_path, restart_services=[_named("bare", enough)])
    assert code == 0, output


def test_each_replica_counts(project: ProjectMaker) -> None:
    shop = project({"api": sleeper("test ! -e /tmp/sick", deploy={"replicas": 3})})
    service = _named("api", shop.entry("api"))
    assert run_module_process("service_health", {"services": [service]})["healthy"]
    shop.execute("api", "touch /tmp/sick", index=2)
    found = run_module_process("service_health", {"services": [service], "wait": 0})
    for _second in range(10):
        found = run_module_process("service_health", {"services": [service], "baseline": {"api": "healthy"}})
        if not found["healthy"]:
            break
        time.sleep(0.5)
    seen = found["services"]["api"]
    assert seen["status"] == "unhealthy"
    assert seen["detail"] == f"2 of 3 containers are well; {shop.name}-api-2 runs, its check fails"
    assert found["worse"][0]["log"] == ["began"]


def test_a_failure_of_compose_is_told_without_what_it_printed(project: ProjectMaker, tmp_path: Path) -> None:
    ports = {"web": sleeper(ports=["${PORT:-}0:80"], network_mode="bridge")}
    shop = project({"api": sleeper()}, extra={"services": {}})
    (shop.folder / "extra.yml").write_text(json.dumps({"services": ports}))
    shop.write_environment(PORT=OLD)
    code, output = play(tmp_path, restart_services=[_named("api", shop.entry("api"))])
    assert (code, OLD in output) == (2, False), output
    assert "api: Docker Compose failed (its output may hold secrets and is not shown)" in output


def test_a_daemon_that_does_not_answer_is_unknown(tmp_path: Path) -> None:
    service = {"name": "api", "manager": "compose", "project_dir": "/srv/app", "docker_host": f"unix://{tmp_path}/none"}
    found = run_module_process("service_health", {"services": [service]})
    assert found["services"]["api"]["status"] == "unknown"
    assert run_module_process("compose_info", {"services": [service]})["code"] == "docker-unreachable"


_NGINX = f"FROM {BASE_IMAGE}\nRUN apt-get update -q && apt-get install -qy --no-install-recommends nginx-light\n"
_BACKEND = "events {} http { access_log off; server { listen 80; location / { return 200 $VERSION; } } }"
# The names of Docker are asked for again each second, and another address is tried where one does not answer
_PROXY = """events {} http { access_log off; resolver 127.0.0.11 valid=1s ipv6=off;
server { listen 80; location / { set $$backend http://api; proxy_connect_timeout 300ms; proxy_pass $$backend; } } }"""


def _nginx(image: str, config: str, network: str, **more: Any) -> dict[str, Any]:
    """A service that runs nginx, and ends when it has answered what it was asked."""
    line = f"printf '%s' \"{config}\" > /tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -g 'daemon off;'"
    service = sleeper("test -e /run/nginx.pid", image=image, command=["sh", "-c", line], networks=[network], **more)
    return {
        **{key: value for key, value in service.items() if key not in ("network_mode", "init")},
        "stop_signal": "SIGQUIT",
    }


@pytest.fixture
def network(docker_host: str) -> Iterator[str]:
    """A network whose containers reach each other."""
    daemon = ["docker", "--host", docker_host, "network"]
    name = f"keyturn-{uuid.uuid4().hex[:8]}"
    option = f"--opt=com.docker.network.bridge.name={BRIDGE}"
    subprocess.run([*daemon, "create", option, name], check=True, capture_output=True)
    yield name
    subprocess.run([*daemon, "rm", name], check=True, capture_output=True)


def test_rolling_replicas_answer_all_the_time(
    docker_host: str, network: str, project: ProjectMaker, tmp_path: Path
) -> None:
    image = build_image(docker_host, "keyturn-test-nginx", _NGINX)
    shop = project(
        {
            "api": _nginx(
                image,
                _BACKEND.replace("$", "$$"),
                network,
                environment={"VERSION": "${VERSION}"},
                deploy={"replicas": 2},
            ),
            "front": _nginx(image, _PROXY.replace("$$", "\\$$"), network),
        },
        {"VERSION": "before"},
        network={"networks": {network: {"external": True}}},
    )
    before = shop.ids("api")
    service = _named("api", shop.entry("api", rolling=True, drain=2))
    shop.write_environment(VERSION="after")
    with SteadyClient(f"http://{shop.address('front')}/") as client:
        time.sleep(1)
        code, output = play(tmp_path, restart_services=[service])
        assert code == 0, output
        time.sleep(2)
    assert client.failures == []
    assert client.answers["before"] > 50
    assert client.answers["after"] > 50
    assert [found["VERSION"] for found in shop.environment("api")] == ["after", "after"]
    assert not before & shop.ids("api")


def test_rolling_leaves_the_old_replicas_where_the_new_ones_are_not_well(project: ProjectMaker, tmp_path: Path) -> None:
    sick = sleeper('test "$$TOKEN" = ' + OLD, environment={"TOKEN": "${TOKEN}"}, deploy={"replicas": 2})
    shop = project({"api": sick}, {"TOKEN": OLD})
    before = shop.ids("api")
    shop.write_environment(TOKEN=NEW)
    service = _named("api", shop.entry("api", rolling=True))
    code, output = play(tmp_path, restart_services=[service], restart_wait=20)
    assert (code, NEW in output, OLD in output) == (2, False, False), output
    assert "api: its containers were not replaced. api is unhealthy" in output
    assert shop.ids("api") == before, "they have run all the time"
