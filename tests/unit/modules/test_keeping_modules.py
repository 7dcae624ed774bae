# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``secret_escrow`` as Ansible runs it, and the actions ``rotation_prune`` and ``health_report`` over several hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import registry
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import age

from tests.support.hosts import GENERATE, Host
from tests.support.modules import Ran, run_module_process
from tests.support.play import run_tasks

_VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "vectors/file_encryption.json").read_text(encoding="utf-8")
)
_STAMP = "2026-11-21T{}:00:00.000Z"


# -- secret_escrow ----------------------------------------------------------------------------------------------------


def _escrow(host: Host, state: str, check: bool = False, **more: Any) -> Ran:
    session = {"state_dir": str(host.state_dir), "rotation_id": host.session.rotation_id, "epoch": 1}
    return run_module_process("secret_escrow", {**session, "state": state, "secrets": ["KEY"], **more}, check)


def test_a_copy_goes_from_the_host_that_made_the_key_to_another_and_is_removed(tmp_path: Path) -> None:
    origin, box = Host(tmp_path / "api"), Host(tmp_path / "box")
    path = origin.write(".env", b"KEY=first\n")
    origin.turn(
        "staged",
        {"name": "KEY", "origin": True, "generate": GENERATE, "stores": [{"type": "env_file", "path": str(path)}]},
    )
    new = origin.version("KEY", "new")
    assert new is not None
    recipients, directory = _VECTORS["age"][0]["recipients"], str(tmp_path / "box/escrow")
    sealed = _escrow(origin, "sealed", recipients=recipients)
    assert (sealed["changed"], new.decode() in sealed.printed) == (False, False)
    copies = sealed["copies"]
    changed = [
        _escrow(box, "stored", check, directory=directory, copies=copies)["changed"]
        for check in (True, False, True, False)
    ]
    assert changed == [True, True, False, False]
    (copy,) = Path(directory).rglob("*.age")
    assert age.decrypt(copy.read_bytes(), _VECTORS["identities"][0]) == new
    assert _escrow(box, "kept", directory=directory)["left"] == {"KEY": ["r1"]}
    later = box.rotation("r2")
    assert _escrow(later, "removed", directory=directory)["removed"] == [], "the only copy stays"
    _escrow(later, "stored", directory=directory, copies=copies)
    assert _escrow(later, "removed", directory=directory)["removed"] == [str(copy)]
    assert _escrow(later, "kept", directory=directory)["left"] == {"KEY": ["r2"]}


def test_an_escrow_needs_its_folder_and_refuses_a_run_that_was_taken_over(tmp_path: Path) -> None:
    box = Host(tmp_path)
    assert "directory" in _escrow(box, "stored")["msg"]
    later: dict[str, Any] = {"directory": str(tmp_path / "e"), "epoch": 3, "copies": {"KEY": "eA=="}}
    assert _escrow(box, "stored", **later)["changed"]
    assert _escrow(box, "stored", **{**later, "epoch": 2})["code"] == "fenced"


# -- rotation_prune ---------------------------------------------------------------------------------------------------


def _backup(name: str) -> dict[str, Any]:
    known = {"complete": True, "foreign": False, "reason": "", "rotation_id": "r1", "files": ["/srv/.env"]}
    return {"name": name, "time": "2026-11-21T10:00:10+00:00", **known}


def _pruned(folder: Path, left: list[dict[str, Any]], *arguments: str, **plan: Any) -> str:
    """Run the action for two hosts of which the second said what is left; what was printed."""
    work = {"secrets": [{"name": "KEY", "stores": [{"path": "/srv/.env"}]}]}
    whole = {
        "hosts": {"one": work, "two": work},
        "secrets": [{"name": "KEY", "kind": "env_secret"}],
        "waived": [],
        "escrow": {"hosts": [], "secrets": []},
        **plan,
    }
    gone = {"name": "secrets-backup-20260101-000000", "time": "2026-01-01T00:00:00+00:00", "why": "older than 90 days"}
    hosts = {
        "one": {"__rotation_pruned": {"removed": [gone], "backups": []}},
        "two": {"__rotation_pruned": {"removed": [], "backups": left}},
    }
    arguments_of_task = {"plan": whole, "state_dir": str(folder / "state")}
    task = {"name": "T", "keyturn.rotation.rotation_prune": arguments_of_task, "run_once": True}
    ended = run_tasks(folder, hosts, [task], *arguments)
    assert ended.code == 0, ended.output
    return ended.output


def _status(folder: Path) -> tuple[str, list[str]]:
    rotation = registry.Register(str(folder / "state")).read()["rotations"]["r1"]
    return rotation["status"], rotation.get("held", [])


def test_a_version_is_closed_once_when_no_host_has_a_backup_of_it(tmp_path: Path) -> None:
    with registry.Register(str(tmp_path / "state")).changing() as content:
        content["secrets"]["KEY"] = {"open": None, "current": "r1", "primary_since": _STAMP.format(11)}
        content["rotations"]["r1"] = {
            "secrets": ["KEY"],
            "status": "retired",
            "epoch": 1,
            "started_at": _STAMP.format(10),
            "turned_at": _STAMP.format(11),
            "ended_at": _STAMP.format(12),
        }
    waiver = [{"host": "three", "reason": "down", "until": "2099-01-01"}]
    assert "closed" not in _pruned(tmp_path, [], waived=waiver), "nobody knows what the missing host has"
    _pruned(tmp_path, [], "--check")
    assert _status(tmp_path) == ("retired", [])
    told = _pruned(tmp_path, [_backup("b1")])
    assert "removed     one: secrets-backup-20260101-000000 (older than 90 days)" in told
    assert _status(tmp_path) == ("retired", ["two: b1"])
    assert "closed      KEY: nothing holds what r1 retired" in _pruned(tmp_path, [])
    assert _status(tmp_path) == ("closed", [])
    assert "closed  " not in _pruned(tmp_path, [])
    (record,) = (tmp_path / "state/evidence").glob("r1.closed*/evidence.json")
    (secret,) = json.loads(record.read_text())["secrets"]
    assert (secret["name"], secret["versions"][0]["state"]) == ("KEY", "closed")


# -- health_report ----------------------------------------------------------------------------------------------------


def test_health_is_shown_saved_compared_and_fails_for_what_is_not_well(tmp_path: Path) -> None:
    plan = {"hosts": {"one": [{"name": "api"}], "two": [{"name": "api"}, {"name": "db"}]}, "waves": [["db"], ["api"]]}
    saved = tmp_path / "saved.json"

    def report(db: str, *arguments: str, **more: Any) -> tuple[int, str]:
        def said(**states: str) -> dict[str, Any]:
            return {"services": {name: {"status": state, "detail": "d"} for name, state in states.items()}}

        hosts = {"one": {"seen": said(api="healthy")}, "two": {"seen": said(api="healthy", db=db)}}
        arguments_of_task = {"plan": plan, "answers": "seen", **more}
        task = {"name": "T", "keyturn.rotation.health_report": arguments_of_task, "run_once": True}
        ended = run_tasks(tmp_path, hosts, [task], *arguments)
        return ended.code, ended.output

    assert report("healthy", "--check", save=str(saved))[0] == 0
    assert not saved.exists()
    code, text = report("healthy", save=str(saved))
    assert (code, "all 3 healthy" in text) == (0, True)
    assert json.loads(saved.read_text())["services"]["api"]["hosts"].keys() == {"one", "two"}
    code, text = report("unhealthy", compare=str(saved))
    assert code == 2
    assert "db was healthy and is unhealthy" in text
    code, text = report("starting")
    assert (code, "db on two is starting (d)" in text) == (2, True)


def test_health_is_compared_with_what_all_hosts_said_before(tmp_path: Path) -> None:
    """What is not well fails, and the words say whether it was so before."""
    plan = {"hosts": {host: [{"name": "api"}] for host in ("one", "two")}, "waves": [["api"]]}

    def said(status: str) -> dict[str, Any]:
        return {"services": {"api": {"status": status, "detail": "d"}}}

    def report(before: tuple[str, str], now: tuple[str, str]) -> tuple[int, str]:
        hosts = {
            host: {"earlier": said(before[number]), "seen": said(now[number])}
            for number, host in enumerate(("one", "two"))
        }
        task = {"plan": plan, "answers": "seen", "before": "earlier"}
        ended = run_tasks(tmp_path, hosts, [{"name": "T", "keyturn.rotation.health_report": task, "run_once": True}])
        return ended.code, ended.output

    code, text = report(("healthy", "unhealthy"), ("healthy", "unhealthy"))
    assert (code, "api on two is unhealthy (d), as before" in text, "api on one" in text) == (2, True, False), text
    code, text = report(("healthy", "unhealthy"), ("starting", "starting"))
    assert (code, "api was healthy and is starting" in text) == (2, True), text
    assert "api on one: healthy before, starting now (d)" in text
    assert "api on two is starting (d), unhealthy before" in text
    code, text = report(("unhealthy", "healthy"), ("healthy", "healthy"))
    assert (code, "nothing is worse than before" in text) == (0, True), text


def test_a_state_that_says_nothing_of_these_services_does_not_pass(tmp_path: Path) -> None:
    """Everything is down each time."""
    plan = {"hosts": {"one": [{"name": "api"}, {"name": "db"}]}, "waves": [["db"], ["api"]]}
    down = {"services": {name: {"status": "unhealthy", "detail": "d"} for name in ("api", "db")}}
    saved = tmp_path / "saved.json"

    def report(services: dict[str, str], **more: Any) -> tuple[int, str]:
        entries = {name: {"status": "running", "health": health} for name, health in services.items()}
        saved.write_text(json.dumps({"services": entries}))
        arguments = {"plan": plan, "answers": "seen", "compare": str(saved), **more}
        task = {"name": "T", "keyturn.rotation.health_report": arguments, "run_once": True}
        ended = run_tasks(tmp_path, {"one": {"seen": down}}, [task])
        return ended.code, ended.output

    code, text = report({})
    assert (code, "names no service, so nothing can be compared" in text) == (2, True), text
    code, text = report({"other": "healthy"})
    assert (code, "it names other, and what was looked at is api, db" in text) == (2, True), text
    code, text = report({"api": "unhealthy"})
    assert (code, "db on one is unhealthy (d), not compared: nobody knows how it was" in text) == (2, True), text
    sick = {"api": "unhealthy", "db": "unhealthy"}
    code, text = report(sick)
    assert (code, "db on one: unhealthy (d), as before" in text) == (0, True), text
    code, text = report({**sick, "gone": "healthy"}, whole_catalog=True)
    assert (code, "The catalog does not name gone: if that is right, save the state anew" in text) == (2, True), text
    code, text = report({**sick, "gone": "healthy"})
    assert (code, "not looked at this time: gone" in text) == (0, True), text
