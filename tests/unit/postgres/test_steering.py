# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at a re-encryption that runs, and steering it: the file of the job, and the file beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.action.rotation_pace import chosen, going_back, order_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.steering import progress_path, run
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.throttle import Throttle

from tests.support.modules import run_module_process

_JOB = {"secret": "KEY", "database": "app"}
_LINK: Any = None


class _Host:
    """A host's state folder, with the files of one job."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        (state_dir / "host").mkdir(parents=True)
        self.progress = Path(progress_path(str(state_dir / "host"), "KEY", "app"))
        self.control = state_dir / "host" / "pace-KEY-app.json"

    def works(self, state: str = "prepared") -> Pace:
        """This process says that it does the job."""
        pace = Pace(state, progress_path=str(self.progress))
        pace.begin("public.t", "c", 10)
        return pace

    def call(self, action: str, rate: int = 0, check: bool = False) -> dict[str, Any]:
        """One call of the module's work."""
        params = {"state_dir": str(self.state_dir), "jobs": [_JOB], "action": action, "rate": rate}
        return run(params, check)


@pytest.fixture
def host(tmp_path: Path) -> _Host:
    return _Host(tmp_path / "state")


@pytest.fixture
def ended(host: _Host) -> _Host:
    """A job whose process is gone."""
    host.works()
    said = json.loads(host.progress.read_text())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        said["pid"] = process.pid
    host.progress.write_text(json.dumps(said))
    return host


def test_a_job_that_runs_is_shown_and_nothing_is_changed(host: _Host) -> None:
    host.works()
    before = {path.name: path.read_bytes() for path in host.progress.parent.iterdir()}
    ran = run_module_process("rotation_pace", {"state_dir": str(host.state_dir), "jobs": [_JOB]})
    assert (ran["changed"], len(ran["jobs"])) == (False, 1)
    (job,) = ran["jobs"]
    assert (job["secret"], job["database"], job["table"], job["total"], job["paused"]) == (
        "KEY",
        "app",
        "public.t",
        10,
        False,
    )
    assert job["silent_s"] < 60
    assert {path.name: path.read_bytes() for path in host.progress.parent.iterdir()} == before


def test_a_job_whose_process_is_gone_does_not_run(ended: _Host) -> None:
    assert ended.call("read")["jobs"] == []
    assert ended.call("pause") == {"changed": False, "jobs": []}
    assert not ended.control.exists()


def test_another_process_with_the_same_number_is_not_the_job(host: _Host) -> None:
    host.works()
    said = json.loads(host.progress.read_text())
    host.progress.write_text(json.dumps({**said, "started": "1"}))
    assert host.call("read")["jobs"] == []


@pytest.mark.parametrize(("silent", "jobs"), [(5, 1), (31, 0)])
def test_where_processes_cannot_be_seen_silence_decides(host: _Host, silent: int, jobs: int) -> None:
    host.works()
    said = json.loads(host.progress.read_text())
    host.progress.write_text(json.dumps({**said, "started": None, "t": said["t"] - silent}))
    assert len(host.call("read")["jobs"]) == jobs


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"t": "x", "pid": 1, "started": "1"}'])
def test_a_file_that_says_nothing_is_no_job(host: _Host, content: str) -> None:
    host.progress.write_text(content)
    assert host.call("read")["jobs"] == []


def test_pause_limit_and_resume_reach_the_workers(host: _Host) -> None:
    host.works()
    throttle = Throttle(rate=100, control=str(host.control))
    assert host.call("pause", check=True)["changed"]
    assert not host.control.exists()
    assert host.call("pause")["changed"]
    assert throttle.is_paused
    assert host.control.stat().st_mode & 0o777 == 0o600
    assert not host.call("pause")["changed"]
    assert host.call("limit", rate=7)["changed"]
    assert not throttle.is_paused
    assert json.loads(host.control.read_text()) == {"do": "run", "rate": 7}
    assert host.call("resume")["changed"]
    assert not host.control.exists()
    assert not host.call("resume")["changed"]


def test_stop_reaches_the_workers(host: _Host) -> None:
    host.works()
    assert host.call("stop")["changed"]
    with pytest.raises(KeyturnError) as raised:
        Throttle(control=str(host.control)).hold(_LINK, 1)
    assert raised.value.code == "stopped"


@pytest.mark.parametrize("state", ["cut_over", "rolled_back", "cleaned"])
def test_a_swap_is_not_left_half_way(host: _Host, state: str) -> None:
    host.works(state)
    with pytest.raises(KeyturnError) as raised:
        host.call("stop")
    assert raised.value.code == "stop-refused"
    assert not host.control.exists()
    assert len(host.call("pause")["jobs"]) == 1


def test_a_name_with_a_path_in_it_is_refused(host: _Host) -> None:
    params = {"state_dir": str(host.state_dir), "jobs": [{**_JOB, "secret": "../KEY"}], "action": "read", "rate": 0}
    with pytest.raises(KeyturnError, match="not usable"):
        run(params, False)


@pytest.mark.parametrize(
    ("word", "order"),
    [
        ("pause", {"action": "pause"}),
        ("resume", {"action": "resume"}),
        ("stop", {"action": "stop"}),
        ("500", {"action": "limit", "rate": 500}),
        ("0", {"action": "limit", "rate": 0}),
    ],
)
def test_what_a_person_may_say(word: str, order: dict[str, Any]) -> None:
    assert order_of(word) == order


@pytest.mark.parametrize("word", ["", "halt", "-1", "1.5", "²"])
def test_anything_else_is_refused(word: str) -> None:
    with pytest.raises(KeyturnError) as raised:
        order_of(word)
    assert raised.value.code == "pace-unknown"
    assert "rows a second" in raised.value.hint


def test_only_open_rotations_are_steered() -> None:
    rows = [{"name": "KEY", "open": True}, {"name": "OTHER", "open": False}]
    assert [row["name"] for row in chosen(rows, "")] == ["KEY"]
    assert chosen(rows, "OTHER") == []
    with pytest.raises(KeyturnError, match="Did you mean 'KEY'"):
        chosen(rows, "KEYS")


@pytest.mark.parametrize(
    ("status", "backwards"),
    [
        ("open", False),
        ("overlap", False),  # a retire that asks whether it may begin
        ("retiring", False),
        ("rolling_back", True),
        ("rollback_pending", True),
        ("stuck", True),
    ],
)
def test_a_way_back_is_not_stopped(status: str, backwards: bool) -> None:
    assert going_back([{"name": "KEY", "status": status}]) == (["KEY"] if backwards else [])
