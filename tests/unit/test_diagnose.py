# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundle for somebody who looks into a fault: what is in it, what is not, and who can read it."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import diagnosis
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.bundle import bundle_files, shown_catalog, write_bundle

from tests.support.modules import run_module_process

CANARY = "canary-5be0c1f97a2d-canary"


def catalog() -> dict[str, Any]:
    """A catalog with a value wherever a person may put one by mistake."""
    secrets = {
        "token": {
            "kind": "example.kinds.marker",
            "options": {"anything": CANARY},
            "stores": [{"hosts": ["api1"], "type": "env_file", "path": "/srv/.env"}],
            "probes": [
                {
                    "type": "http",
                    "url": f"https://u:{CANARY}@x/p?q={CANARY}",
                    "headers": {"X-Key": CANARY},
                    "body": CANARY,
                },
                {"type": "command", "command": ["psql", f"--password={CANARY}"]},
            ],
            "value_from": {"file": "/given/value"},
        },
        "verifiers": {
            "stores": [
                {"type": "keyset_command", **{verb: ["curl", CANARY] for verb in ("read", "provision", "promote")}},
                {"type": "keyset_command", "remove": ["curl", CANARY]},
            ],
            "key_api": {
                "headers": [{"name": "X-Key", "text": CANARY}, {"name": "X-Env", "env": "API_KEY"}],
                "promote": {"path": f"/keys/{{kid}}?api_key={CANARY}"},
            },
        },
    }
    services = {"api": {"hosts": ["api1"], "manager": "command", "start": ["/bin/ctl", CANARY], "stop": ["/bin/ctl"]}}
    databases = {"app": {"hosts": ["db"], "dsn": f"postgresql://u:{CANARY}@db/app", "rate": 5}}
    return shown_catalog(secrets, services, databases)


def found() -> dict[str, Any]:
    """What a host that answered has said."""
    return {
        "system": {"name": "Debian", "python": "3.11", "libraries": {"cryptography": "45"}},
        "disk_free": 5, "clock": 1.0, "uid": 0, "problems": [],
        "state": [{"path": "secrets/token/r1/new", "mode": "-rw-------", "size": 32}],
        "journals": {"r1": [{"event": "acquire"}, {"event": "note", "text": f"https://u:{CANARY}@x"}]},
        "evidence": {"r1.rotated": {"event": "rotated", "secrets": [{"name": "token"}]}},
    }  # fmt: skip


def files(**planned: Any) -> dict[str, bytes]:
    said = {
        "secrets": [{"name": "token"}],
        "rotations": {"r1": {"status": "overlap"}},
        "agenda": {"runs": []},
        **planned,
    }
    health = {"api1": {"services": {"api": {"status": "unhealthy", "reason": "HTTP 503"}}}}
    hosts = {"api1": found(), "api2": {"unreachable": True}, "api3": {"failed": True, "msg": "no python"}}
    return bundle_files(said, hosts, health, {"python": "3.12"}, ["", "Secrets", "  token"])


def test_no_value_is_in_the_catalog_and_its_shape_is() -> None:
    shown = catalog()
    assert CANARY not in json.dumps(shown)
    secret, keys = shown["secrets"]
    assert keys["stores"][1]["remove"] == ["curl", "and 1 more words"]
    assert [header["name"] for header in keys["key_api"]["headers"]] == ["X-Key", "X-Env"]
    assert keys["key_api"]["promote"]["path"].startswith("/keys/{kid}?")
    assert secret["name"] == "token"
    assert secret["stores"][0]["path"] == "/srv/.env"
    assert secret["probes"][0]["url"].startswith("https://x/p")
    assert list(secret["probes"][0]["headers"]) == ["X-Key"]
    assert shown["services"][0]["start"] == ["/bin/ctl", "and 1 more words"]
    assert shown["databases"][0]["rate"] == 5


def test_the_bundle_has_what_helps() -> None:
    made = files(catalog=catalog())
    assert CANARY.encode() not in b"".join(made.values())
    assert sorted(made) == [
        "catalog.json", "evidence/r1.rotated.json", "hosts.json", "journals/r1.jsonl", "register.json", "status.txt",
        "versions.json",
    ]  # fmt: skip
    hosts = json.loads(made["hosts.json"])
    assert hosts["api1"]["health"]["api"]["status"] == "unhealthy"
    assert hosts["api1"]["state"][0]["path"] == "secrets/token/r1/new"
    assert (hosts["api2"]["failed"], hosts["api3"]["failed"]) == ("cannot be reached", "no python")
    assert json.loads(made["versions.json"])["hosts"]["api1"]["name"] == "Debian"
    assert json.loads(made["register.json"])["rotations"]["r1"]["status"] == "overlap"
    assert json.loads(made["catalog.json"])["secrets"][0]["name"] == "token"


def test_a_catalog_that_does_not_load_is_part_of_the_answer() -> None:
    made = bundle_files({"failed": True, "msg": "keyturn_secrets.X: field 'kind' is missing."}, {}, {}, {}, ["broken"])
    assert "field 'kind' is missing" in json.loads(made["catalog.json"])["failed"]


@pytest.mark.parametrize("name", ["bundle", "bundle.tar.gz", "new/deep/bundle.tar.gz"])
def test_a_bundle_is_private_and_replaces_nothing(tmp_path: Path, name: str) -> None:
    to = tmp_path / name
    write_bundle(files(), str(to))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in to.rglob("*") if path.is_file()} if to.is_dir() else set()
    if to.is_dir():
        assert modes == {0o600}
        assert {stat.S_IMODE(path.stat().st_mode) for path in [to, *to.rglob("*")] if path.is_dir()} == {0o700}
    else:
        assert stat.S_IMODE(to.stat().st_mode) == 0o600
        with tarfile.open(to) as archive:
            assert {member.mode for member in archive.getmembers()} == {0o600}
            assert {member.name for member in archive.getmembers()} == {f"bundle/{path}" for path in files()}
    with pytest.raises(KeyturnError) as raised:
        write_bundle(files(), str(to))
    assert raised.value.code == "bundle-exists"


def test_a_host_says_names_and_sizes_and_opens_no_value(tmp_path: Path) -> None:
    value = tmp_path / "secrets" / "KEY" / "r1" / "new"
    value.parent.mkdir(parents=True)
    value.write_text(CANARY)
    value.chmod(0o600)
    journal = tmp_path / "rotations" / "r1" / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"event": "acquire"}\n' * 300)
    record = tmp_path / "evidence" / "r1.rotated" / "evidence.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"event": "rotated"}')
    broken = tmp_path / "evidence" / "r2.failed" / "evidence.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    (tmp_path / "link").symlink_to("/etc")
    ran = run_module_process("diagnose_info", {"state_dir": str(tmp_path), "rotations": ["r1", "r2", "r3"]})
    assert CANARY not in ran.printed
    assert ran["changed"] is False
    assert ran["system"]["libraries"]["cryptography"]
    listed = {entry["path"]: entry for entry in ran["state"]}
    assert listed["secrets/KEY/r1/new"]["mode"] == "-rw-------"
    assert listed["secrets/KEY/r1/new"]["size"] == len(CANARY)
    assert listed["link"]["mode"].startswith("l")
    assert not any(path.startswith("link/") for path in listed)
    assert list(ran["journals"]) == ["r1"]
    assert len(ran["journals"]["r1"]) == 100
    assert ran["evidence"] == {"r1.rotated": {"event": "rotated"}}
    assert ran["problems"] == ["evidence of r2: JSONDecodeError"]
    assert run_module_process("diagnose_info", {"state_dir": str(tmp_path), "rotations": ["../x"]})["failed"]


def test_a_host_without_state_is_no_error(tmp_path: Path) -> None:
    found = diagnosis.run({"state_dir": str(tmp_path / "none"), "rotations": []}, False)
    assert (found["state"], found["journals"], found["evidence"]) == ([], {}, {})
