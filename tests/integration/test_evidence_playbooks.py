# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks ``evidence`` and ``evidence_verify``: a keyset on two hosts, sealed, and checked anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.support.controller import Controller, Ended
from tests.support.local import LOCAL
from tests.support.page import Page
from tests.support.project import FIRST, SECRET, Project

CANARY = "CANARY-secret-of-a-keyset"


def signing(folder: Path) -> dict[str, Any]:
    """``keyturn_evidence`` with a key made for it, whose public half is in ``public.pem``."""
    key = folder / "signing.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)
    key.chmod(0o600)
    make = ["openssl", "pkey", "-in", key, "-pubout", "-out", folder / "public.pem"]
    subprocess.run(make, check=True, capture_output=True)
    return {"signing_key": str(key), "copies": [str(folder / "copy")]}


class Place:
    """A state host and two hosts with a keyset each, and a controller."""

    def __init__(self, folder: Path) -> None:
        mark = uuid.uuid4().hex[:8]
        self.folder = folder
        self.mark = mark
        self.hosts = [f"one-{mark}", f"two-{mark}"]
        self.state = folder / "state-host"
        self.inventory = folder / "inventory.yml"
        self.controller = Controller(folder / "home")
        self.keyset = folder / "{{ inventory_hostname }}.json"
        names = [f"state-{mark}", *self.hosts]
        variables = {
            **LOCAL,
            "keyturn_state_host": names[0],
            "keyturn_evidence": signing(folder),
        }
        hosts = {name: {"keyturn_state_dir": str(folder / name)} for name in names}
        hosts[names[0]]["keyturn_state_dir"] = str(self.state)
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": variables, "hosts": hosts}}))

    def write(self, active: str, keys: dict[str, str], *hosts: str) -> None:
        for host in hosts or self.hosts:
            path = self.folder / f"{host}.json"
            path.touch(0o600)
            path.write_text(json.dumps({"active_kid": active, "keys": keys}))

    def capture(self, event_id: str, *arguments: str, **variables: Any) -> Ended:
        given = {"keyset": "JWT", "keyset_hosts": self.hosts, "event_id": event_id, **variables}
        if "keyset_command" not in given:
            given["keyset_file"] = str(self.keyset)
        ended = self.controller.run(self.inventory, "evidence", "-vvv", *arguments, **given)
        assert CANARY not in ended.output
        return ended

    def summary(self, event_id: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.state / "evidence" / event_id / "summary.json").read_text())
        return content


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_keyset_of_two_hosts_is_captured_compared_and_the_copy_checked(place: Place, tmp_path: Path) -> None:
    place.write("k1", {"k1": CANARY + "1"})
    ended = place.capture("audit-1", reason="before the audit")
    assert ended.code == 0, ended.output
    assert {name: place.summary("audit-1")[name] for name in ("source_mode", "rotation_state", "hosts_done")} == {
        "source_mode": "file", "rotation_state": "initial", "hosts_done": 2,
    }  # fmt: skip
    place.write("k2", {"k1": CANARY + "changed", "k2": CANARY + "2"})
    ended = place.capture("audit-2", keyset_command=["cat", str(place.keyset)])
    assert ended.code == 0, ended.output
    for said in ("Active moved from k1 to k2.", "Added: k2.", "Changed under the same kid: k1."):
        assert said in ended.output
    assert place.summary("audit-2")["changed"] == ["k1"]
    place.write("k2", {"k2": CANARY + "3"}, place.hosts[1])
    ended = place.capture("audit-3")
    assert (ended.code, place.hosts[1] in ended.output, "keysets-differ" in ended.output) == (2, True, True)
    assert sorted(path.name for path in (place.state / "evidence").glob("audit*")) == ["audit-1", "audit-2"]
    assert not list(Path("/tmp").glob(f"keyturn-check-*{place.mark}"))
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path]
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []

    away = tmp_path / "somewhere" / "else"
    shutil.copytree(tmp_path / "copy", away)
    (tmp_path / "none.yml").write_text("all: {}\n")

    named = {"evidence_dir": str(away), "evidence_public_key": [str(tmp_path / "public.pem")]}

    def checked() -> Ended:
        return place.controller.run(tmp_path / "none.yml", "evidence_verify", **named)

    ended = checked()
    assert (
        ended.code,
        "records: 2, with a signature that holds: 2." in ended.output,
        "Nothing is wrong" in ended.output,
    ) == (0, True, True)
    (away / "audit-1/summary.json").write_bytes(b"{}")
    ended = checked()
    assert (ended.code, "audit-1/summary.json is not what was sealed (edited)" in ended.output) == (2, True)


def test_a_rotation_is_signed_and_copied_as_the_inventory_says_and_the_status_shows_it(tmp_path: Path) -> None:
    project = Project(tmp_path, keyturn_evidence=signing(tmp_path))
    assert project.run("rotate", only=SECRET).code == 0
    (tmp_path / "none.yml").write_text("all: {}\n")
    named = {"evidence_dir": str(tmp_path / "copy"), "evidence_public_key": [str(tmp_path / "public.pem")]}
    ended = project.controller.run(tmp_path / "none.yml", "evidence_verify", **named)
    assert (ended.code, "records: 1, with a signature that holds: 1." in ended.output) == (0, True), ended.output
    page, inventory = tmp_path / "status.html", tmp_path / "secrets.cdx.json"
    ended = project.run("status", status_to=str(page), inventory_to=str(inventory))
    assert ended.code == 0, ended.output
    line = next(line for line in ended.output.splitlines() if line.startswith(f"  {SECRET} "))
    assert "rotated 2" in line
    shown = Page(page.read_text())
    assert shown.tables["secrets"][1][0] == SECRET
    assert shown.tables["secrets"][1][-1].startswith("rotated 2")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(inventory.read_text()) is None
    (asset,) = json.loads(inventory.read_text())["components"]
    assert asset["cryptoProperties"]["relatedCryptoMaterialProperties"]["state"] == "active"
    for value in (FIRST, *project.values()):
        assert value not in page.read_text() + inventory.read_text()


def test_a_reason_with_a_secret_is_masked_and_what_cannot_be_sealed_is_not_begun(tmp_path: Path) -> None:
    """Either would else be found at the end: it has turned, and can neither end nor go back."""
    project = Project(tmp_path, keyturn_evidence={"signing_key": str(tmp_path / "evidence.pem")})
    refused = project.run("rotate", only=SECRET)
    assert refused.code == 2
    assert f"{tmp_path}/evidence.pem: evidence cannot be signed with this key, which does not exist" in refused.output
    assert (project.values(), project.statuses(), project.restarts()) == ({FIRST}, [], 0)

    project.write(keyturn_evidence={**signing(tmp_path), "copies": ["/proc/nothing"]})
    leaked = "abcdefghijklmnopqrstuvwxyz0123456789"
    done = project.run("rotate", only=SECRET, reason=f"Bearer {leaked} was in a log", skip_backup=True)
    assert done.code == 0, done.output
    assert "holds what looks like a secret" in done.output
    assert "WARNING     The copy in /proc/nothing was not made" in done.output
    assert project.statuses() == ["overlap"]
    left = [path for path in project.folder.rglob("*") if path.is_file() and leaked in path.read_text("latin-1")]
    assert left == []
    back = project.run("rollback", only=SECRET)
    assert (back.code, project.values(), project.statuses()) == (0, {FIRST}, ["rolled_back"]), back.output
    for record in project.state(project.hosts[0]).glob("evidence/*/evidence.json"):
        assert json.loads(record.read_text())["why"] == "******** was in a log"
