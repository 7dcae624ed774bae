# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line for each step, on a real socket; nothing that listens is no error."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.keyturn.rotation.plugins.module_utils import state_host, syslog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import syslog_choice

_ROTATION: dict[str, Any] = {
    "secrets": ["A_KEY", "B_KEY"],
    "status": "open",
    "phase": "stage",
    "epoch": 3,
    "runs": [{"user": "ann", "controller": "control one"}],
}


def listening(path: Path) -> socket.socket:
    """A system log that takes datagrams, as syslog and journald do."""
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(path))
    log.settimeout(5)
    return log


def params(folder: Path, **more: Any) -> dict[str, Any]:
    """Arguments of ``rotation_state``, as the module fills them in."""
    return {
        "state_dir": str(folder), "session_dir": None, "rotation_id": None, "epoch": 0, "action": "read", "notes": [],
        "mode": "rotate", "secrets": ["A_KEY"], "details": {}, "take_over": False, "phase": "", "status": None,
        "facts": {}, "gone": [], "recipients": {}, "syslog": True, **more,
        "run": {"run_id": "r", "user": "ann", "controller": "c1", "place": "p"},
    }  # fmt: skip


def test_the_line_names_the_step_and_quotes_what_needs_it() -> None:
    assert syslog.line("advance", "promote", "r1", _ROTATION) == (
        'event=advance phase=promote status=open rotation_id=r1 secrets=A_KEY,B_KEY epoch=3 who="ann@control one"'
    )
    broken = syslog.line("acquire", "", "r1", {**_ROTATION, "runs": [{"user": 'a"\nb'}]})
    assert "\n" not in broken
    assert broken.endswith('who="a\\"\\nb"')


@pytest.mark.parametrize(
    ("event", "status", "severity"),
    [("advance", "open", 6), ("acquire", "open", 5), ("turn_back", "rolling_back", 4), ("finish", "stuck", 3)],
)
def test_the_datagram_has_facility_severity_and_tag(event: str, status: str, severity: int) -> None:
    text = syslog.line(event, "", "r1", {**_ROTATION, "status": status})
    data = syslog.packet(text, event, 0.0, 77).decode()
    assert re.match(rf"<{4 * 8 + severity}>[A-Z][a-z]{{2}} [ 0-9]\d \d\d:\d\d:\d\d keyturn\[77\]: event=", data), data


def test_datagrams_and_streams_are_written(tmp_path: Path) -> None:
    with listening(tmp_path / "dgram") as log:
        assert syslog.send("event=x", "advance", str(tmp_path / "dgram"))
        assert log.recv(4096).endswith(b": event=x")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "stream"))
        server.listen(1)
        assert syslog.send("event=y", "advance", str(tmp_path / "stream"))
        with server.accept()[0] as taken:
            assert taken.recv(4096).endswith(b": event=y\0")


def test_no_system_log_and_one_that_is_stuck_are_no_error(tmp_path: Path) -> None:
    assert not syslog.send("event=x", "advance", str(tmp_path / "nothing"))
    with listening(tmp_path / "full"):
        done: list[float] = []

        def fill() -> None:
            for _turn in range(4000):
                if not syslog.send("event=x" * 500, "advance", str(tmp_path / "full")):
                    done.append(time.monotonic())
                    return

        began = time.monotonic()
        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        thread.join(30)
        assert done, "a log that takes nothing more holds nobody up"
        assert done[0] - began < 20


def test_each_step_of_a_rotation_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    real = syslog.send
    monkeypatch.setattr(syslog, "send", lambda text, event: real(text, event, str(path)))
    with listening(path) as log:
        opened = state_host.run(params(tmp_path / "s", action="acquire"), False)
        common = {"rotation_id": opened["rotation_id"], "epoch": 1}
        state_host.run(params(tmp_path / "s", action="advance", phase="stage", **common), False)
        state_host.run(params(tmp_path / "s", action="advance", phase="promote", syslog=False, **common), False)
        state_host.run(params(tmp_path / "s", action="advance", phase="promote", **common), True)
        state_host.run(params(tmp_path / "s", action="read", evidence=False), False)
        state_host.run(params(tmp_path / "s", action="finish", status="overlap", **common), False)
        lines = [log.recv(4096).decode().partition(": ")[2] for _line in range(3)]
        log.setblocking(False)
        with pytest.raises(BlockingIOError):
            log.recv(4096)
    assert [re.findall(r"(?:event|phase|status)=(\w+)", text) for text in lines] == [
        ["acquire", "open"],
        ["advance", "stage", "open"],
        ["finish", "promote", "overlap"],
    ]
    assert all(f"rotation_id={opened['rotation_id']} secrets=A_KEY epoch=1 who=ann@c1" in text for text in lines)


@pytest.mark.parametrize(("said", "logs"), [({}, True), (False, False), ("no", False), ("yes", True)])
def test_the_system_log_can_be_switched_off(said: Any, logs: bool) -> None:
    variables = {} if said == {} else {"keyturn_syslog": said}
    assert syslog_choice(Templar(DataLoader()), variables) == {"syslog": logs}


def test_notes_are_kept_in_the_journal(tmp_path: Path) -> None:
    opened = state_host.run(params(tmp_path, action="acquire"), False)["rotation_id"]
    noted = {"action": "note", "rotation_id": opened, "notes": ["slack: HTTP 500"]}
    assert state_host.run(params(tmp_path, **noted), True)["changed"]
    assert [entry["event"] for entry in state_host.read_journal(str(tmp_path), opened)] == ["acquire"]
    state_host.run(params(tmp_path, **noted), False)
    assert state_host.read_journal(str(tmp_path), opened)[-1]["text"] == "slack: HTTP 500"
    with pytest.raises(KeyturnError, match="no rotation other"):
        state_host.run(params(tmp_path, **{**noted, "rotation_id": "other"}), False)
