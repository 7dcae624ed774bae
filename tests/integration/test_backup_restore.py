# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups in whole runs: listed, restored, refused, encrypted, pruned, and the versions that this closes."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import age
from demo import cells
from demo.postgres import PostgresServer
from demo.stack import APIS, Stack
from demo.stack import SECRET as DATA_KEY

from tests.support.catalog_file import edit, load
from tests.support.controller import Controller, registry
from tests.support.project import FIRST, SECRET, Project

_VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors/file_encryption.json").read_text())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def _turned(project: Project) -> str:
    ended = project.run("rotate", only=SECRET)
    assert ended.code == 0, ended.output
    (value,) = project.values()
    return value


def _restores_on_record(project: Project) -> list[dict[str, Any]]:
    """The records of restores, the oldest first."""
    found = sorted(project.state(project.hosts[0]).glob("evidence/*.restored/evidence.json"))
    return sorted((json.loads(path.read_text()) for path in found), key=lambda record: record["seal"]["sequence"])


def test_backups_are_listed_and_restored_by_name_and_as_the_latest(project: Project) -> None:
    second = _turned(project)
    assert second != FIRST
    restarted = project.restarts()
    one = project.hosts[0]
    (made,) = project.backups(one)
    assert (made / ".env").read_text() == f"A=1\n{SECRET}={FIRST}\n"

    listed = project.run("restore")
    assert listed.code == 0, listed.output
    for words in (made.name, "checksums ok", f"secrets   {SECRET}", "services  api", str(project.env(one))):
        assert words in listed.output

    dry = project.run("restore", "--check", restore="latest")
    assert dry.code == 0, dry.output
    assert f"would restore {one}: {made.name}: {project.env(one)}" in dry.output
    assert f"would change {one}: the values of {SECRET}\n" in dry.output
    assert "would restart api\n" in dry.output
    assert "is in overlap and would not match these files any more" in dry.output
    assert "restored  " not in dry.output
    assert (project.values(), len(project.backups(one)), project.restarts()) == ({second}, 1, restarted)
    assert _restores_on_record(project) == []

    project.env(one).chmod(0o640)
    done = project.run("restore", restore="latest", reason="the vendor took the new one back")
    assert done.code == 0, done.output
    assert (project.values(), project.restarts(), project.restarts("web")) == ({FIRST}, restarted + 1, 0)
    assert project.env(one).stat().st_mode & 0o777 == 0o600
    replaced = project.backups(one)[-1]
    assert f"what was there is in {replaced.name}" in done.output
    assert f"restored    {one}: {made.name}: {project.env(one)}" in done.output
    assert f"changed     {one}: the values of {SECRET}\n" in done.output
    assert "restarts    api\n" in done.output
    assert f"rollback -e keyturn_only={SECRET}\n" in done.output
    assert second in (replaced / ".env").read_text()
    (record,) = _restores_on_record(project)
    assert record["secrets"] == [{"name": SECRET, "kind": "example.kinds.token", "fingerprint_changed": True}]
    assert record["why"] == "the vendor took the new one back"
    assert record["hosts"]["done"] == sorted(project.hosts)
    assert f"{one}: {project.env(one)} as in {made.name}; what was there is in {replaced.name}" in record["messages"]
    assert "evidence" in done.output
    checked = project.run("evidence_verify", hosts=one)
    assert checked.code == 0, checked.output
    assert "restored 20" in project.run("status").output

    (rotation_id,) = registry(project.state(one))["rotations"]
    for host in project.hosts:
        project.env(host).write_text("broken\n")
    by_rotation = project.run("restore", restore=rotation_id, restart="none")
    assert by_rotation.code == 0, by_rotation.output
    assert "not restarted, as asked: api\n" in by_rotation.output
    assert (project.values(), project.restarts()) == ({FIRST}, restarted + 1)
    assert project.left_in_tmp() == []
    assert len(_restores_on_record(project)) == 2
    same = project.run("restore", restore=rotation_id, restart="none")
    assert (same.code, len(_restores_on_record(project))) == (0, 2), "nothing was changed"
    ended = project.run("rollback", only=SECRET)
    assert (ended.code, project.values(), project.statuses()) == (0, {FIRST}, ["rolled_back"]), ended.output


def test_a_restore_that_cannot_be_put_on_record_says_so(project: Project) -> None:
    _turned(project)
    (project.state(project.hosts[0]) / "evidence/head.json").write_text("broken")
    failed = project.run("restore", restore="latest")
    assert failed.code == 2
    assert "The files were restored, and the evidence could not be sealed" in failed.output
    assert "head.json" in failed.output
    assert (project.values(), _restores_on_record(project), project.left_in_tmp()) == ({FIRST}, [], [])


def test_a_backup_that_was_tampered_with_is_refused_everywhere(project: Project) -> None:
    second = _turned(project)
    (made,) = project.backups(project.hosts[1])
    (made / ".env").write_text("A=1\nAPI_TOKEN=of-somebody-else\n")
    assert "NOT as it was made" in project.run("restore").output
    refused = project.run("restore", restore="latest")
    assert refused.code == 2
    assert "is not as it was made" in refused.output
    assert project.values() == {second}
    assert project.left_in_tmp() == []


def test_a_refusal_on_one_host_leaves_nothing_on_the_others(project: Project) -> None:
    second = _turned(project)
    (project.project(project.hosts[1]) / "refuse").touch()
    refused = project.run("restore", restore="latest")
    assert refused.code == 2
    assert "not here" in refused.output
    assert project.values() == {second}
    assert project.left_in_tmp() == []
    planned = project.run("plan", only=SECRET)
    assert planned.code == 2
    assert project.left_in_tmp() == []


def test_a_restore_asks_every_host_whether_it_can_be_done_there_before_the_first_one_changes(project: Project) -> None:
    second = _turned(project)
    two = project.hosts[1]
    made = [len(project.backups(host)) for host in project.hosts]
    subprocess.run(["chattr", "+i", str(project.env(two))], check=True)
    try:
        ended = project.run("restore", restore="latest")
    finally:
        subprocess.run(["chattr", "-i", str(project.env(two))], check=True)
    assert ended.code == 2, ended.output
    words = f"{two}: {project.env(two)}: could not be replaced: even root may not write it."
    assert f"{words} Look at its attributes (lsattr). Nothing was restored." in " ".join(ended.output.split())
    assert (project.values(), [len(project.backups(host)) for host in project.hosts]) == ({second}, made)


def test_a_restore_that_one_host_cannot_do_says_which_hosts_it_has_changed(project: Project) -> None:
    second = _turned(project)
    one, two = project.hosts
    restarted = project.restarts()
    full = project.backups(two)[0].parent  # what is replaced cannot be backed up there
    subprocess.run(["chattr", "+i", str(full)], check=True)
    try:
        ended = project.run("restore", restore="latest")
    finally:
        subprocess.run(["chattr", "-i", str(full)], check=True)
    assert ended.code == 2, ended.output
    assert (project.values(), project.restarts()) == ({FIRST, second}, restarted)
    words = " ".join(ended.output.split())
    replaced = project.backups(one)[-1].name
    assert f"Another host could not go on. Files were restored here: {project.env(one)}. Services may not" in words
    assert f"run the same command again; what was there is in {replaced}." in words
    assert f"Files were restored here: {project.env(two)}" not in words
    (record,) = _restores_on_record(project)
    assert (record["hosts"]["expected"], record["hosts"]["done"]) == (sorted(project.hosts), [one])
    assert any(text.startswith(f"{two}: ") for text in record["messages"])
    again = project.run("restore", restore="latest")
    assert (again.code, project.values(), project.restarts()) == (0, {FIRST}, restarted + 1), again.output


def test_backups_of_the_older_program_are_restored(project: Project) -> None:
    for host in project.hosts:
        project.older_backup(host, "of-last-year")
    listed = project.run("restore")
    assert "no checksums, made by another program" in listed.output
    done = project.run("restore", restore="20251031-143000", restart="all")
    assert done.code == 0, done.output
    assert (project.values(), project.restarts(), project.restarts("web")) == ({"of-last-year"}, 1, 1)
    assert "the catalog does not know kong, which" in done.output
    assert "read none of these secrets now" not in done.output, "all were restarted"
    assert "another program made this backup" in done.output
    again = project.run("restore", restore="20251031-143000")
    assert (again.code, project.restarts(), project.restarts("web")) == (0, 2, 1), again.output
    assert "the catalog does not know kong, which" in again.output
    assert "keyturn.rotation.restart -e keyturn_restart=web" in again.output


@pytest.mark.parametrize("kind", ["age", "ansible_vault"])
def test_encrypted_backups_are_made_and_restored(tmp_path: Path, kind: str) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(_VECTORS["identities"][0] if kind == "age" else "a password of the controller\n")
    recipients = {"recipients": _VECTORS["age"][0]["recipients"]} if kind == "age" else {}
    project = Project(tmp_path, {"encrypt": {"type": kind, **recipients}})
    if kind == "ansible_vault":
        project.controller.environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(key)
    second = _turned(project)
    for host in project.hosts:
        for path in project.backups(host)[0].rglob("*"):
            assert path.is_dir() or FIRST not in path.read_text("latin-1")
    if kind == "age":
        without = project.run("restore", restore="latest")
        assert without.code == 2
        assert "keyturn_backup_key" in without.output
        assert (project.values(), project.left_in_tmp()) == ({second}, [])
        done = project.run("restore", restore="latest", backup_key=str(key))
    else:
        done = project.run("restore", restore="latest")
    assert done.code == 0, done.output
    assert project.values() == {FIRST}


def test_trap_37_a_backup_that_fails_changes_nothing_on_any_host(project: Project) -> None:
    before = {host: project.env(host).read_bytes() for host in project.hosts}
    (project.project(project.hosts[1]) / "backups").touch()  # no folder can be made here
    failed = project.run("rotate", only=SECRET)
    assert failed.code == 2
    assert "everything was brought back" in failed.output
    assert {host: project.env(host).read_bytes() for host in project.hosts} == before
    assert (project.statuses(), project.restarts()) == (["rolled_back"], 0)
    assert not list(project.folder.rglob("state/secrets/*/*/new")), "no new version was made"
    (record,) = project.state(project.hosts[0]).glob("evidence/*.rolled_back/evidence.json")
    assert [phase["name"] for phase in json.loads(record.read_text())["phases"]][:2] == ["preflight", "backup"]


def test_a_data_key_is_copied_elsewhere_and_not_restored_over_rows_of_another(
    stack: Stack, controller: Controller
) -> None:
    before, identity = stack.key(), _VECTORS["identities"][0]
    recipients = _VECTORS["age"][0]["recipients"]
    folder = stack.folder / "escrow"
    escrow = {"hosts": "db", "directory": str(folder), "recipients": recipients, "at_retire": "remove"}
    backup = {"encrypt": {"type": "age", "recipients": recipients}, "retention_days": 0, "keep": 1}
    edit(stack, {**load(stack), "keyturn_escrow": escrow, "keyturn_backup": backup})
    without = controller.run(stack.inventory, "rotate", only=DATA_KEY, skip_backup=True)
    assert (without.code, "there must be a backup" in without.output) == (2, True)
    done = controller.run(stack.inventory, "rotate", only=DATA_KEY)
    assert done.code == 0, done.output
    turned = stack.key()
    assert turned not in (None, before)
    (name,) = registry(stack.state_dir("db"))["rotations"]
    copy = folder / DATA_KEY / f"{name}.age"
    assert cells.parse_key(age.decrypt(copy.read_bytes(), identity).decode()) == turned
    assert str(copy) in done.output

    key = controller.home / "identity"
    key.touch(0o600)
    key.write_text(identity)
    pruned = controller.run(stack.inventory, "prune", confirm=DATA_KEY)
    assert "nothing has had its time" in pruned.output, "going back is still possible, so the backup stays"
    refused = controller.run(stack.inventory, "restore", restore=name, backup_key=str(key))
    assert refused.code == 2
    assert "not under the key of this backup" in refused.output
    assert stack.key() == turned
    assert stack.verify().ok
    assert controller.run(stack.inventory, "rollback", only=DATA_KEY).code == 0
    for host in APIS:
        stack.env_file(host).write_text("broken\n")
    restored = controller.run(stack.inventory, "restore", restore=name, backup_key=str(key))
    assert restored.code == 0, restored.output
    assert stack.key() == before
    assert stack.verify(plaintext_ok=True).ok


def test_a_password_that_its_server_does_not_accept_is_not_restored(project: Project, server: PostgresServer) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    database = server.create_database(name)
    try:
        one = project.hosts[0]
        login = {"type": "postgres", "database": "app", "role": database.app_role, "host": "127.0.0.1"}
        stores = [{"hosts": host, "type": "env_file", "path": str(project.env(host))} for host in project.hosts]
        entry = {"kind": "env_secret", "generate": {"type": "string", "length": 32}, "stores": stores, "server": login}
        app = {"hosts": one, "dsn": database.app_dsn}
        project.write(keyturn_databases={"app": app}, keyturn_secrets={SECRET: {**entry, "consumers": ["api"]}})
        accepted = database.app_dsn.split(":")[2].split("@")[0]
        for host in project.hosts:
            project.older_backup(host, "of-last-year")
            project.env(host).write_text(f"{SECRET}={accepted}\n")
        refused = project.run("restore", restore="latest")
        assert refused.code == 2
        assert "the server refuses the password" in refused.output, refused.output
        assert (project.values(), project.left_in_tmp()) == ({accepted}, [])
    finally:
        server.drop_database(name)


def test_skipping_the_backup_is_loud_and_in_the_evidence(project: Project) -> None:
    planned = project.run("plan", only=SECRET, skip_backup=True)
    assert "WARNING     no backup will be made" in planned.output
    done = project.run("rotate", only=SECRET, skip_backup=True, until="stage")
    assert done.code == 0, done.output
    refused = project.run("restore", restore="latest")
    assert (refused.code, "is open" in refused.output) == (2, True)
    done = project.run("rotate", only=SECRET)
    assert done.code == 0, done.output
    assert "WARNING     no backup was made" in done.output
    assert [project.backups(host) for host in project.hosts] == [[], []]
    (record,) = project.state(project.hosts[0]).glob("evidence/*.rotated/evidence.json")
    assert any("no backup was made" in message for message in json.loads(record.read_text())["messages"])


def test_trap_49_a_version_is_closed_when_its_last_backup_is_gone(project: Project) -> None:
    one = project.hosts[0]
    _turned(project)
    retired = project.run("retire", only=SECRET, confirm=SECRET)
    assert retired.code == 0, retired.output
    assert project.statuses() == ["retired"]
    (record,) = project.state(one).glob("evidence/*.retired/evidence.json")
    said = {(entry["host"], entry["path"]) for entry in json.loads(record.read_text())["backups"]}
    assert said == {(host, str(project.backups(host)[0])) for host in project.hosts}
    assert "the version before is still in: " in project.run("status").output
    kept = project.run("prune")
    assert kept.code == 0, kept.output
    assert "nothing has had its time" in kept.output
    project.write({"retention_days": 0})
    assert "nothing has had its time" in project.run("prune").output, "the only good backup stays"
    dry = project.run("prune", "--check", confirm=SECRET)
    assert "older than 0 days" in dry.output
    assert project.statuses() == ["retired"]
    shutil.rmtree(project.backups(project.hosts[1])[0])
    assert "closed" not in project.run("prune").output, "one host still has one"
    pruned = project.run("prune", confirm=SECRET)
    assert pruned.code == 0, pruned.output
    assert "closed      API_TOKEN" in pruned.output
    assert project.statuses() == ["closed"]
    assert ": closed" in project.run("status").output
    (record,) = project.state(one).glob("evidence/*.closed/evidence.json")
    assert json.loads(record.read_text())["secrets"][0]["versions"][0]["state"] == "closed"


def test_trap_49_an_old_backup_that_cannot_be_removed_is_said_and_keeps_no_rotation(project: Project) -> None:
    _turned(project)
    assert project.run("retire", only=SECRET, confirm=SECRET).code == 0
    project.write({"retention_days": 0})
    stuck = project.backups(project.hosts[0])[0]
    words = f"An old backup stays: {stuck}: cannot be removed ("
    subprocess.run(["chattr", "+i", str(stuck)], check=True)
    try:
        turned = project.run("rotate", only=SECRET)
        retired = project.run("retire", only=SECRET, confirm=SECRET)
        pruned = project.run("prune", confirm=SECRET)
    finally:
        subprocess.run(["chattr", "-i", str(stuck)], check=True)
    assert (turned.code, retired.code, pruned.code) == (0, 0, 2), turned.output + retired.output + pruned.output
    assert words in " ".join(turned.output.split())
    assert words in " ".join(retired.output.split())
    assert f"{stuck}: cannot be removed (" in " ".join(pruned.output.split())
    assert project.statuses() == ["retired", "retired"], "one host still has a backup of the first version"
    assert project.run("prune", confirm=SECRET).code == 0
    assert project.statuses() == ["closed", "closed"]


def test_trap_49_another_folder_and_other_names_do_not_hide_the_backups_of_before(project: Project) -> None:
    """What the catalog said before still holds the version: it is not closed, and restored and pruned as ever."""
    second = _turned(project)
    made = {host: project.backups(host)[0] for host in project.hosts}
    project.write({"directory": "vault/old", "filename_format": "kept-%Y.%m.%d"})
    retired = project.run("retire", only=SECRET, confirm=SECRET)
    assert (retired.code, project.statuses()) == (0, ["retired"]), retired.output
    assert "nothing has had its time" in project.run("prune").output
    third = _turned(project)
    assert third != second
    assert [len(list(project.project(host).glob("vault/old/kept-*"))) for host in project.hosts] == [1, 1]
    assert project.run("retire", only=SECRET, confirm=SECRET).code == 0
    project.write({"directory": "elsewhere"})
    listed = project.run("restore")
    first, _second = sorted(registry(project.state(project.hosts[0]))["rotations"])
    assert [listed.output.count(text) for text in (f"rotation  {first}", "kept-20")] == [2, 2], listed.output
    assert all(f"{backup.name}: " in listed.output for backup in made.values())
    restored = project.run("restore", restore=first, confirm=SECRET)
    assert (restored.code, project.values()) == (0, {FIRST}), restored.output
    project.write({"directory": "elsewhere", "retention_days": 0})
    pruned = project.run("prune", confirm=SECRET)
    assert pruned.code == 0, pruned.output
    assert not any(path.exists() for path in made.values())
    assert not list(project.folder.rglob("kept-*"))
    assert project.statuses() == ["closed", "closed"], pruned.output
