# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health: real endpoints, sockets and processes; explicit states only."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.health.call import run
from ansible_collections.keyturn.rotation.plugins.module_utils.health.look import CHECKERS, check, observe, worse
from ansible_collections.keyturn.rotation.plugins.module_utils.health.systemd import parse_unit
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import Outcome
from hypothesis import given
from hypothesis import strategies as st

from tests.support.endpoint import Asked, certificate, closed_port, endpoint
from tests.support.modules import run_module_process

#: What systemd-journald wrote of two units.
_JOURNAL = Path(__file__).parents[1] / "vectors" / "gateway.journal.gz"


def _look(**health: Any) -> tuple[str, str]:
    seen = check({"name": "api", "health": health})
    return seen.status, seen.detail


class _Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the test ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


# -- url ---------------------------------------------------------------------------------------------------------------


def test_url_status_and_body() -> None:
    def answering(asked: Asked) -> tuple[int, dict[str, str], str]:
        return (204 if asked.path == "/204" else 200), {}, '{"status": "starting"}'

    with endpoint(answering) as here:
        assert _look(url=here.url) == ("healthy", "HTTP 200")
        assert _look(url=f"{here.url}/204") == ("unhealthy", "HTTP 204, expected 200")
        assert _look(url=f"{here.url}/204", expect_status=[200, 204]) == ("healthy", "HTTP 204")
        assert _look(url=here.url, expect_body="starting") == ("healthy", "HTTP 200")
        assert _look(url=here.url, expect_body='"status": *"ok"')[0] == "unhealthy"
        assert _look(url=here.url, headers={"X-Health": 1})[0] == "healthy"
        assert here.asked[-1].headers["X-Health"] == "1"


def test_trap_38_url_that_is_down_or_not_what_it_says_is_not_healthy(tmp_path: Path) -> None:
    assert _look(url=f"http://127.0.0.1:{closed_port()}/") == ("unhealthy", "no connection (Connection refused)")
    assert _look(url="http://no-such-host.invalid/")[0] == "unhealthy"
    with endpoint(lambda _asked: (200, {}, ""), tls=certificate(tmp_path)) as here:
        assert _look(url=here.url)[0] == "unhealthy"
        assert _look(url=here.url, ca_file=str(tmp_path / "cert.pem")) == ("healthy", "HTTP 200")


def test_trap_38_redirect_to_another_host_is_not_healthy() -> None:
    with endpoint(lambda _asked: (302, {"Location": "http://localhost/maintenance"}, "")) as here:
        assert _look(url=here.url) == ("unhealthy", "HTTP 302, expected 200")


def test_detail_holds_nothing_of_the_answer() -> None:
    with endpoint(lambda _asked: (500, {}, "canary-77de68daecd823ba")) as here:
        result = run(
            {"services": [{"name": "a", "health": {"url": here.url}}], "wait": 0, "interval": 1, "baseline": None},
            False,
        )
    assert "canary" not in str(result)
    assert result["msg"] == "a is unhealthy (HTTP 500, expected 200)"


# -- tcp ---------------------------------------------------------------------------------------------------------------


def test_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert _look(tcp=f"127.0.0.1:{port}") == ("healthy", "accepts connections")
    assert _look(tcp=f"127.0.0.1:{closed_port()}") == ("unhealthy", "no connection (Connection refused)")


def test_tcp_over_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert _look(tcp=f"[::1]:{server.getsockname()[1]}")[0] == "healthy"


@pytest.mark.parametrize("address", ["db", "db:", ":5432", "db:0", "db:70000", "::1:5432", "a b:1", "[db]:5432x"])
def test_tcp_needs_host_and_port(address: str) -> None:
    with pytest.raises(KeyturnError, match="tcp is no host:port"):
        observe([{"name": "db", "health": {"tcp": address}}])


# -- process -----------------------------------------------------------------------------------------------------------


def test_pid_file(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    pid_file = tmp_path / "api.pid"
    assert _look(process={"pid_file": str(pid_file)}) == ("unhealthy", "pid file does not exist")
    pid_file.write_text(f"{process.pid}\n")
    seen = check({"name": "api", "health": {"process": {"pid_file": str(pid_file)}}})
    assert (seen.status, seen.detail) == ("healthy", f"process {process.pid} runs")
    assert seen.since.endswith("Z")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has buried it
    assert _look(process={"pid_file": str(pid_file)}) == ("unhealthy", f"process {process.pid} has ended")
    process.wait()
    assert _look(process={"pid_file": str(pid_file)}) == ("unhealthy", f"process {process.pid} has ended")


@pytest.mark.parametrize("content", ["", "\n", "starting", "-1", "0", "12x"])
def test_trap_16_pid_file_without_a_number_is_not_healthy(tmp_path: Path, content: str) -> None:
    (tmp_path / "api.pid").write_text(content)
    assert _look(process={"pid_file": str(tmp_path / "api.pid")}) == ("unknown", "pid file holds no number")


def test_number_of_no_process(tmp_path: Path) -> None:
    (tmp_path / "api.pid").write_text("9" * 30)
    assert _look(process={"pid_file": str(tmp_path / "api.pid")})[0] == "unhealthy"


def test_trap_38_pid_that_belongs_to_another_process_now(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    (tmp_path / "api.pid").write_text(str(process.pid))
    look = {"pid_file": str(tmp_path / "api.pid")}
    assert _look(process={**look, "command": "nginx"}) == ("unhealthy", f"process {process.pid} is not nginx")
    assert _look(process={**look, "command": Path(sys.executable).name})[0] == "healthy"


def test_command_name_is_exact(tmp_path: Path) -> None:
    program = tmp_path / "keyturn-test-daemon-with-a-long-name"
    shutil.copy2(shutil.which("sleep") or "/bin/sleep", program)
    assert _look(process={"command": program.name}) == ("unhealthy", f"no process {program.name}")
    with subprocess.Popen([str(program), "600"]) as started:
        os.read(os.open(f"/proc/{started.pid}/cmdline", os.O_RDONLY), 1)
        seen = [check({"name": "x", "health": {"process": {"command": program.name}}}) for _attempt in range(2)]
        assert [(entry.status, entry.detail) for entry in seen] == [("healthy", "1 running")] * 2
        assert seen[0].since == seen[1].since != ""
        assert _look(process={"command": program.name[:-1]})[0] == "unhealthy"
        started.kill()


# -- command -----------------------------------------------------------------------------------------------------------


def test_command() -> None:
    assert _look(command=["true"]) == ("healthy", "exit code 0")
    assert _look(command=[sys.executable, "-c", "print('canary'); raise SystemExit(3)"]) == ("unhealthy", "exit code 3")
    assert _look(command=["/no/such/program"]) == ("unknown", "cannot be started (No such file or directory)")
    assert _look(command=["sh", "-c", "kill -9 $$"]) == ("unhealthy", "ended by signal 9")


def test_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    seen = _look(command=["sh", "-c", f"sleep 600 > {fifo} & echo $! > {fifo}; wait"], timeout=0.5)
    assert seen == ("unhealthy", "no end within 0.5 s")
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as stream:  # comes to its end only when nobody holds the other side
        assert stream.read().strip().isdigit()


# -- systemd -----------------------------------------------------------------------------------------------------------


def _unit(load: str, active: str, sub: str, since: str = "") -> str:
    return f"LoadState={load}\nActiveState={active}\nSubState={sub}\nActiveEnterTimestamp={since}\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (_unit("loaded", "active", "running"), "healthy"),
        (_unit("loaded", "active", "listening"), "healthy"),
        (_unit("loaded", "active", "exited"), "unknown"),
        (_unit("loaded", "activating", "start"), "starting"),
        (_unit("loaded", "activating", "start-post"), "starting"),
        (_unit("loaded", "activating", "auto-restart"), "unhealthy"),
        (_unit("loaded", "reloading", "reload"), "starting"),
        (_unit("loaded", "inactive", "dead"), "unhealthy"),
        (_unit("loaded", "failed", "failed"), "unhealthy"),
        (_unit("loaded", "deactivating", "stop-sigterm"), "unhealthy"),
        (_unit("masked", "inactive", "dead"), "unhealthy"),
        (_unit("not-found", "inactive", "dead"), "unknown"),
        (_unit("loaded", "", ""), "unknown"),
        (_unit("loaded", "new-in-2031", "x"), "unknown"),
        ("", "unknown"),
        ("Failed to connect to bus", "unknown"),
    ],
)
def test_trap_16_units(text: str, status: str) -> None:
    assert parse_unit(text).status == status


def test_unit_since_and_running_is_enough() -> None:
    text = _unit("loaded", "active", "exited", "Sat 2026-02-28 23:59:58 UTC")
    assert parse_unit(text, running_is_enough=True) == Outcome("healthy", "active (exited)", "2026-02-28T23:59:58Z")
    assert parse_unit(_unit("loaded", "active", "running", "n/a")).since == ""


@given(st.text())
def test_trap_16_no_other_text_is_a_healthy_unit(text: str) -> None:
    assert parse_unit(text).status != "healthy"


def _systemctl(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "systemctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_systemd_is_asked_in_plain_words_and_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "LoadState=loaded\\nActiveState=active\\nSubState=running\\n"
    _systemctl(tmp_path, monkeypatch, f'echo "$TZ $LC_ALL $*" > {tmp_path}/asked; printf "{said}"')
    assert _look(systemd="api.service") == ("healthy", "active (running)")
    properties = "LoadState,ActiveState,SubState,ActiveEnterTimestamp"
    assert (tmp_path / "asked").read_text() == f"UTC C show --property={properties} -- api.service\n"


def test_trap_38_systemd_that_does_not_answer_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _systemctl(tmp_path, monkeypatch, "printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\n'; exit 1")
    assert _look(systemd="api.service") == ("unknown", "systemd does not answer")
    _systemctl(tmp_path, monkeypatch, "exec sleep 600")
    assert _look(systemd="api.service", timeout=0.2) == ("unknown", "systemd does not answer")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert _look(systemd="api.service") == ("unknown", "there is no systemctl on this host")


@pytest.mark.parametrize("service", [{"manager": "systemd", "unit": "gateway.service"}, {"manager": "command"}])
def test_trap_16_a_unit_that_is_not_well_is_named_with_its_last_lines_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: dict[str, Any]
) -> None:
    journal, kept = gzip.decompress(_JOURNAL.read_bytes()), tmp_path / "environment"
    (tmp_path / "system.journal").write_bytes(journal)
    kept.write_text("# clients\nWHO='reports'\n")
    state = "LoadState=loaded\\nActiveState=failed\\nSubState=failed\\n"
    environment = f"Environment=KID=new-kid WORD=verified\\nEnvironmentFiles={kept} (ignore_errors=no)\\n"
    _systemctl(tmp_path, monkeypatch, f'case "$*" in *Env*) printf "{environment}";; *) printf "{state}";; esac')
    program = tmp_path / "journalctl"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("journalctl")} --directory={tmp_path} "$@"\n')
    program.chmod(0o755)
    services = [{"name": "api", "health": {"systemd": "gateway.service"}, **service}]
    asked = {"services": services, "wait": 0, "interval": 1, "logs": "worse", "log_lines": 2, "state_dir": ""}
    answer = run({**asked, "log_lines": 3, "baseline": {"api": "healthy"}}, False)
    assert answer["worse"][0]["log"] == answer["services"]["api"]["log"]
    assert answer["services"]["api"]["log"] == [
        "jwt ******** kid=old-kid client=********",
        "jwt ******** kid=******** client=web",
        "binary \ufffd\ufffd kid=******** client=app",
    ]
    answer = run({**asked, "logs": "unhealthy", "baseline": {}}, False)
    assert len(answer["services"]["api"]["log"]) == 2
    assert "log" not in run({**asked, "baseline": {}}, False)["services"]["api"]
    program.write_text("#!/bin/sh\nexit 1\n")
    assert "log" not in run({**asked, "logs": "unhealthy", "baseline": {}}, False)["services"]["api"]


# -- services ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "service",
    [
        {"name": "a"},
        {"name": "a", "health": None},
        {"name": "a", "health": {}},
        {"name": "a", "health": {"url": "", "command": [], "timeout": 5.0, "running_is_enough": False}},
        {"name": "a", "health": {"running_is_enough": True}},
        {"name": "a", "health": {"process": {"pid_file": None}}},
        {"name": "a", "unit": "a.service", "health": {}},
    ],
)
def test_trap_16_no_check_is_never_healthy(service: dict[str, Any]) -> None:
    assert check(service).status == "unknown"


def test_running_is_enough_looks_at_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _systemctl(tmp_path, monkeypatch, "printf 'LoadState=loaded\\nActiveState=active\\nSubState=exited\\n'")
    service: dict[str, Any] = {"name": "a", "unit": "a.service", "manager": "systemd", "wave": 0}
    assert check({**service, "health": {"running_is_enough": True}}).status == "healthy"
    assert check({**service, "health": {"running_is_enough": True, "command": ["false"]}}).status == "unhealthy"


def test_with_several_checks_the_worst_counts() -> None:
    assert _look(command=["true"], tcp=f"127.0.0.1:{closed_port()}")[0] == "unhealthy"
    assert _look(command=["/no/such/program"], process={"command": "no-such-process"})[0] == "unhealthy"


def test_a_new_way_to_look_is_one_more_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKERS, "replicas", lambda health: Outcome("starting", f"{health['replicas']} of 3"))
    assert _look(replicas=2) == ("starting", "2 of 3")


def test_waits_for_those_that_are_not_healthy_only() -> None:
    def answering(asked: Asked) -> tuple[int, dict[str, str], str]:
        return 200 if asked.path == "/fast" or len(here.asked) > 4 else 503, {}, ""

    clock = _Clock()
    with endpoint(answering) as here:
        services = [{"name": name, "health": {"url": f"{here.url}/{name}"}} for name in ("fast", "slow")]
        seen = observe(services, 30, 2, clock, clock.sleep)
    assert {name: outcome.status for name, outcome in seen.items()} == {"fast": "healthy", "slow": "healthy"}
    asked = [entry.path for entry in here.asked]
    assert asked.count("/slow") == 5
    assert asked.count("/fast") == 2, "once, and once more in the last look at all together"
    assert clock.slept == sorted(clock.slept), "short at first"
    assert clock.slept[0] == 0.1


def test_service_that_was_well_for_a_moment_only_does_not_pass() -> None:
    answers = {"/blink": [200, 503, 503, 503, 503, 503], "/slow": [503, 200, 200, 200, 200, 200]}
    clock = _Clock()
    with endpoint(lambda asked: (answers[asked.path].pop(0), {}, "")) as here:
        services = [{"name": name, "health": {"url": f"{here.url}/{name}"}} for name in ("blink", "slow")]
        seen = observe(services, 3, 1, clock, clock.sleep)
    assert {name: outcome.status for name, outcome in seen.items()} == {"blink": "unhealthy", "slow": "healthy"}
    assert clock.now == 3


@pytest.mark.parametrize(
    ("own", "wait", "seconds"),
    [
        (None, 10, 10),
        (30, 10, 30),
        (2, 10, 2),
        (0, 10, 0),
        (30, 0, 0),
    ],
)
def test_a_services_own_time_goes_before_that_of_the_run_unless_nobody_is_waited_for(
    own: int | None, wait: int, seconds: int
) -> None:
    clock = _Clock()
    service = {"name": "a", "restart_wait": own, "health": {"tcp": f"127.0.0.1:{closed_port()}"}}
    assert observe([service], wait, 1, clock, clock.sleep)["a"].status == "unhealthy"
    assert clock.now == pytest.approx(seconds)


def test_each_service_is_waited_for_as_long_as_it_may_take() -> None:
    down = {"health": {"tcp": f"127.0.0.1:{closed_port()}"}}
    clock = _Clock()
    observe([{"name": "quick", "restart_wait": 2, **down}, {"name": "other", **down}], 10, 1, clock, clock.sleep)
    assert clock.now == pytest.approx(10), "the longest of them"

    def answering(_asked: Asked) -> tuple[int, dict[str, str], str]:
        return 200 if clock.now > 5 else 503, {}, ""

    clock = _Clock()
    with endpoint(answering) as here:
        slow = {"name": "slow", "restart_wait": 60, "health": {"url": here.url}}
        seen = observe([{"name": "quick", "restart_wait": 2, **down}, slow], 10, 1, clock, clock.sleep)
    assert {name: outcome.status for name, outcome in seen.items()} == {"quick": "unhealthy", "slow": "healthy"}
    assert 5 < clock.now < 7, "the time of the one that is not well is over, so it ends when the other is"


def test_does_not_wait_for_what_can_never_be_healthy() -> None:
    clock = _Clock()
    assert observe([{"name": "a"}], 600, 1, clock, clock.sleep)["a"].status == "unknown"
    assert clock.now == 0


def test_others_may_become_healthy_beside_one_that_never_can() -> None:
    answers = [503, 503, 200]
    clock = _Clock()
    with endpoint(lambda _asked: (answers.pop(0), {}, "")) as here:
        services: list[dict[str, Any]] = [{"name": "blind"}, {"name": "slow", "health": {"url": here.url}}]
        seen = observe(services, 600, 1, clock, clock.sleep)
    assert {name: outcome.status for name, outcome in seen.items()} == {"blind": "unknown", "slow": "healthy"}


def test_pauses_are_short_at_first_and_never_longer_than_the_interval() -> None:
    clock = _Clock()
    observe([{"name": "a", "health": {"tcp": f"127.0.0.1:{closed_port()}"}}], 10, 1, clock, clock.sleep)
    assert clock.slept[0] == 0.1
    assert clock.slept[:-1] == sorted(clock.slept[:-1])
    assert max(clock.slept) == 1
    assert clock.now == pytest.approx(10)


def test_interval_of_nothing_does_not_spin() -> None:
    clock = _Clock()
    observe([{"name": "a", "health": {"command": ["false"]}}], 0.12, 0, clock, clock.sleep)
    assert clock.slept[:2] == [0.05, 0.05]


@pytest.mark.parametrize(
    ("services", "code"),
    [
        ([{"name": "a"}, {"name": "a"}], "service-twice"),
        ([{"name": "a", "health": {"url": "ftp://x/"}}], "url-invalid"),
        ([{"name": "a", "health": {"url": "http://x/", "expect_body": "("}}], "health-invalid"),
    ],
)
def test_mistakes_are_errors(services: list[dict[str, Any]], code: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        observe(services)
    assert caught.value.code == code


def test_worse_than_before() -> None:
    seen = {
        "same": Outcome("healthy", ""),
        "down": Outcome("unhealthy", "HTTP 503"),
        "slow": Outcome("starting", ""),
        "better": Outcome("starting", ""),
        "new": Outcome("unhealthy", ""),
    }
    before: dict[str, Any] = {
        "same": "healthy",
        "down": {"status": "healthy", "detail": "HTTP 200"},
        "slow": "healthy",
        "better": "unhealthy",
        "gone": "healthy",
        "empty": "",
        "odd": {"status": "running"},
    }
    assert worse(seen, before) == [
        {"name": "down", "before": "healthy", "after": "unhealthy", "detail": "HTTP 503"},
        {"name": "gone", "before": "healthy", "after": "unknown", "detail": "not looked at this time"},
        {"name": "slow", "before": "healthy", "after": "starting", "detail": ""},
    ]


def test_trap_16_no_service_at_all_is_not_healthy() -> None:
    result = run({"services": [], "wait": 600, "interval": 1, "baseline": {}}, False)
    assert (result["healthy"], result["changed"], result["msg"]) == (False, False, "no service was named")


def test_the_module_does_not_fail_and_takes_an_entry_of_the_catalog_as_it_is() -> None:
    entry = {"manager": "command", "start": ["a"], "stop": ["b"], "wave": 1, "quiesce": "stop", "unit": "x"}
    with endpoint(lambda _asked: (503, {}, "canary-0c4f5a1e")) as here:
        services = [{"name": "api", **entry, "health": {"url": here.url, "expect_status": 200}}]
        arguments = {"services": services, "baseline": {"api": {"status": "healthy"}}}
        for check in (True, False):
            ran = run_module_process("service_health", arguments, check)
            assert "failed" not in ran
            assert (ran["changed"], ran["healthy"]) == (False, False)
            assert ran["services"] == {"api": {"status": "unhealthy", "detail": "HTTP 503, expected 200"}}
            assert [(entry["before"], entry["after"]) for entry in ran["worse"]] == [("healthy", "unhealthy")]
            assert "canary" not in ran.printed
